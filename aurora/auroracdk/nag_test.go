package auroracdk_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/assertions"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsec2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsrds"
	"github.com/aws/aws-cdk-go/awscdk/v2/cxapi"
	"github.com/aws/jsii-runtime-go"
	"github.com/cdklabs/cdk-nag-go/cdknag/v2"

	"github.com/aurorapgx/aurorapgx/aurora"
	"github.com/aurorapgx/aurorapgx/aurora/auroracdk"
)

// accepted are the findings of cdk-nag's AwsSolutions pack that follow from what a Spec
// asks for.
func accepted(spec aurora.Spec) map[string]string {
	all := map[string]string{}
	if spec.Disposable {
		all["AwsSolutions-RDS10"] = "deletion protection is what Disposable takes away"
	}
	if spec.Auth == aurora.Secrets {
		all["AwsSolutions-RDS6"] = "with secrets the cluster must not ask for IAM: the proxy logs in with the users' passwords"
	}
	return all
}

// findings are what the pack reports for a stack: errors and warnings, by rule.
func findings(t *testing.T, spec aurora.Spec, spoil func(db *auroracdk.Database)) []string {
	t.Helper()
	app, stack, vpc := newStack()
	db, err := auroracdk.New(stack, "Database", auroracdk.Props{Spec: spec, Vpc: vpc})
	if err != nil {
		t.Fatal(err)
	}
	if spoil != nil {
		spoil(db)
	}
	awscdk.Aspects_Of(app).Add(cdknag.NewAwsSolutionsChecks(&cdknag.NagPackProps{Verbose: jsii.Bool(true)}), nil)
	app.Synth(nil)
	annotations := assertions.Annotations_FromStack(stack)
	var out []string
	everything := assertions.Match_StringLikeRegexp(jsii.String("AwsSolutions-.*"))
	for _, list := range []*[]*cxapi.SynthesisMessage{annotations.FindError(jsii.String("*"), everything), annotations.FindWarning(jsii.String("*"), everything)} {
		for _, m := range *list {
			rule, _, _ := strings.Cut(fmt.Sprint(m.Entry.Data), ": ")
			out = append(out, rule+" "+(*m.Id)[strings.LastIndex(*m.Id, "/")+1:])
		}
	}
	slices.Sort(out)
	return out
}

// unaccepted are the findings that nobody has accepted.
func unaccepted(spec aurora.Spec, found []string) []string {
	list := accepted(spec)
	return slices.DeleteFunc(slices.Clone(found), func(f string) bool {
		rule, _, _ := strings.Cut(f, " ")
		return list[rule] != ""
	})
}

func TestStacksPassAwsSolutions(t *testing.T) {
	specs := map[string]aurora.Spec{"nothing": {}}
	for _, stage := range aurora.Stages() {
		specs[stage.Name] = stage.Spec
	}
	secrets := aurora.EarlyProduction()
	secrets.Auth = aurora.Secrets
	specs["secrets"] = secrets
	for name, spec := range specs {
		found := findings(t, spec, nil)
		for _, f := range unaccepted(spec, found) {
			t.Errorf("%s: %s", name, f)
		}
		for rule := range accepted(spec) {
			if !slices.ContainsFunc(found, func(f string) bool { return strings.HasPrefix(f, rule+" ") }) {
				t.Errorf("%s: %s is accepted and not found: take it off the list", name, rule)
			}
		}
	}
}

// The gate must bite.
func TestAwsSolutionsBites(t *testing.T) {
	spec := aurora.EarlyProduction()
	for want, spoil := range map[string]func(db *auroracdk.Database){
		"AwsSolutions-RDS2 Cluster":  func(db *auroracdk.Database) { cluster(db).SetStorageEncrypted(false) },
		"AwsSolutions-RDS6 Cluster":  func(db *auroracdk.Database) { cluster(db).SetEnableIamDatabaseAuthentication(false) },
		"AwsSolutions-RDS10 Cluster": func(db *auroracdk.Database) { cluster(db).SetDeletionProtection(false) },
		"AwsSolutions-EC23 ClusterFromProxy": func(db *auroracdk.Database) {
			rule := typed[awsec2.CfnSecurityGroupIngress](db, "ClusterFromProxy")
			rule.SetSourceSecurityGroupId(nil)
			rule.SetCidrIp(jsii.String("0.0.0.0/0"))
		},
		"AwsSolutions-IAM5[Resource::*] ConnectApp": func(db *auroracdk.Database) {
			typed[awsiam.CfnManagedPolicy](db, "ConnectApp").SetPolicyDocument(map[string]any{
				"Version": "2012-10-17", "Statement": []any{map[string]any{"Effect": "Allow", "Action": "rds-db:connect", "Resource": "*"}},
			})
		},
	} {
		if got := unaccepted(spec, findings(t, spec, spoil)); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: found %q", want, got)
		}
	}
}

// typed is a resource as the CDK's own type, to change it behind Validate's back.
func typed[T any](db *auroracdk.Database, id string) T {
	var out T
	jsii.UnsafeCast(db.Resource(id), &out)
	return out
}

func cluster(db *auroracdk.Database) awsrds.CfnDBCluster {
	return typed[awsrds.CfnDBCluster](db, "Cluster")
}
