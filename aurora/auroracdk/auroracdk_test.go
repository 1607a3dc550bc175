package auroracdk_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/assertions"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsec2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/jsii-runtime-go"

	"github.com/aurorapgx/aurorapgx/aurora"
	"github.com/aurorapgx/aurorapgx/aurora/auroracdk"
)

// newStack is a stack with a VPC that is there already.
func newStack() (awscdk.App, awscdk.Stack, awsec2.IVpc) {
	app := awscdk.NewApp(&awscdk.AppProps{AnalyticsReporting: jsii.Bool(false)})
	stack := awscdk.NewStack(app, jsii.String("Stack"), nil)
	vpc := awsec2.Vpc_FromVpcAttributes(stack, jsii.String("Vpc"), &awsec2.VpcAttributes{
		VpcId: jsii.String("vpc-0123456789abcdef0"), AvailabilityZones: jsii.Strings("eu-west-1a", "eu-west-1b"),
		IsolatedSubnetIds: jsii.Strings("subnet-0123456789abcdef0", "subnet-0123456789abcdef1"),
	})
	return app, stack, vpc
}

func newDatabase(t *testing.T, spec aurora.Spec) (awscdk.Stack, *auroracdk.Database) {
	t.Helper()
	_, stack, vpc := newStack()
	db, err := auroracdk.New(stack, "Database", auroracdk.Props{Spec: spec, Vpc: vpc})
	if err != nil {
		t.Fatal(err)
	}
	return stack, db
}

type template struct {
	Resources map[string]struct {
		Type       string
		DependsOn  any
		Properties map[string]any
	}
	Outputs map[string]struct{ Value any }
}

// synthesized is the stack's template as the CDK would deploy it.
func synthesized(t *testing.T, stack awscdk.Stack) template {
	t.Helper()
	return reread(t, *assertions.Template_FromStack(stack, nil).ToJSON())
}

func reread(t *testing.T, v any) template {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out template
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// The same Spec is the same resources, be it deployed with the CDK or without: nothing
// is lost on the way, be it newer than the CDK's own types.
func TestTheSameResourcesAsThePlainTemplate(t *testing.T) {
	specs := map[string]aurora.Spec{}
	for _, stage := range aurora.Stages() {
		specs[stage.Name] = stage.Spec
	}
	secrets := aurora.Growth()
	secrets.Auth = aurora.Secrets
	specs["secrets"] = secrets
	direct := aurora.Growth()
	direct.Users = []aurora.User{{Name: "app"}, {Name: "migrate", Access: aurora.Owner, Direct: true}}
	specs["direct"] = direct
	for name, spec := range specs {
		stack, _ := newDatabase(t, spec)
		got := synthesized(t, stack)
		text, err := spec.Template()
		if err != nil {
			t.Fatal(err)
		}
		network := strings.NewReplacer(`{"Ref":"VpcId"}`, `"vpc-0123456789abcdef0"`, `{"Ref":"SubnetIds"}`, `["subnet-0123456789abcdef0","subnet-0123456789abcdef1"]`)
		var compact map[string]any
		if err := json.Unmarshal(text, &compact); err != nil {
			t.Fatal(err)
		}
		text, err = json.Marshal(compact)
		if err != nil {
			t.Fatal(err)
		}
		want := reread(t, json.RawMessage(network.Replace(string(text))))
		for id, r := range want.Resources {
			if strings.HasPrefix(id, "FromClient") || strings.HasPrefix(id, "FromDirect") {
				continue
			}
			if g := got.Resources[id]; g.Type != r.Type || !reflect.DeepEqual(g.Properties, r.Properties) || !reflect.DeepEqual(g.DependsOn, r.DependsOn) {
				t.Errorf("%s: %s is\n%v\nand should be\n%v", name, id, g, r)
			}
			delete(got.Resources, id)
		}
		if len(got.Resources) > 0 {
			t.Errorf("%s: there is more: %v", name, got.Resources)
		}
		if !reflect.DeepEqual(got.Outputs, want.Outputs) {
			t.Errorf("%s: outputs are\n%v\nand should be\n%v", name, got.Outputs, want.Outputs)
		}
	}
}

func TestGrantsAndConnections(t *testing.T) {
	for _, auth := range []aurora.Auth{aurora.IAM, aurora.Secrets} {
		spec := aurora.EarlyProduction()
		spec.Auth = auth
		stack, db := newDatabase(t, spec)
		role := awsiam.NewRole(stack, jsii.String("ServiceRole"), &awsiam.RoleProps{AssumedBy: awsiam.NewServicePrincipal(jsii.String("lambda.amazonaws.com"), nil)})
		if err := db.GrantConnect(role, "app"); err != nil {
			t.Fatal(err)
		}
		if err := db.GrantConnect(role, "nobody"); err == nil {
			t.Error("granted to connect as nobody")
		}
		client := awsec2.SecurityGroup_FromSecurityGroupId(stack, jsii.String("Client"), jsii.String("sg-0123456789abcdef0"), nil)
		db.AllowFrom(client)

		got := synthesized(t, stack)
		var statement, ingress string
		for id, r := range got.Resources {
			switch {
			case r.Type == "AWS::IAM::Policy" && strings.HasPrefix(id, "ServiceRole"):
				statement = fmt.Sprint(r.Properties["PolicyDocument"])
			case r.Type == "AWS::EC2::SecurityGroupIngress" && r.Properties["SourceSecurityGroupId"] == "sg-0123456789abcdef0":
				ingress = fmt.Sprint(r.Properties)
			}
		}
		want := []string{"rds-db:connect", "rds-db:", "Fn::GetAtt:[Proxy DBProxyArn]", "/app"}
		if auth == aurora.Secrets {
			want = []string{"secretsmanager:GetSecretValue", "Ref:SecretApp"}
		}
		for _, w := range want {
			if !strings.Contains(statement, w) || strings.Contains(statement, "*") {
				t.Errorf("%s: the policy %s lacks %q, or allows too much", auth, statement, w)
			}
		}
		if !strings.Contains(ingress, "5432") || !strings.Contains(ingress, "ProxySecurityGroup") {
			t.Errorf("%s: ingress %s", auth, ingress)
		}
	}
}

// A user who may pass the proxy by may log in at both, and who is let in to the cluster is the CDK's
// business.
func TestDirectAccess(t *testing.T) {
	spec := aurora.EarlyProduction()
	spec.Users = []aurora.User{{Name: "app"}, {Name: "migrate", Access: aurora.Owner, Direct: true}}
	stack, db := newDatabase(t, spec)
	role := awsiam.NewRole(stack, jsii.String("ServiceRole"), &awsiam.RoleProps{AssumedBy: awsiam.NewServicePrincipal(jsii.String("lambda.amazonaws.com"), nil)})
	if err := db.GrantConnect(role, "migrate"); err != nil {
		t.Fatal(err)
	}
	client := awsec2.SecurityGroup_FromSecurityGroupId(stack, jsii.String("Client"), jsii.String("sg-0123456789abcdef0"), nil)
	db.Cluster.Connections().AllowDefaultPortFrom(client, jsii.String("migrations"))
	got := synthesized(t, stack)
	var statement, ingress string
	for id, r := range got.Resources {
		switch {
		case r.Type == "AWS::IAM::Policy" && strings.HasPrefix(id, "ServiceRole"):
			statement = fmt.Sprint(r.Properties["PolicyDocument"])
		case r.Type == "AWS::EC2::SecurityGroupIngress" && r.Properties["SourceSecurityGroupId"] == "sg-0123456789abcdef0":
			ingress = fmt.Sprint(r.Properties)
		}
	}
	for _, want := range []string{"Fn::GetAtt:[Proxy DBProxyArn]", "Fn::GetAtt:[Cluster DBClusterResourceId]", "/migrate"} {
		if !strings.Contains(statement, want) {
			t.Errorf("the policy %s lacks %q", statement, want)
		}
	}
	if !strings.Contains(ingress, "ClusterSecurityGroup") || !strings.Contains(ingress, "5432") {
		t.Errorf("ingress %q", ingress)
	}
	env, err := db.Env("migrate")
	if err != nil {
		t.Fatal(err)
	}
	if host := stack.Resolve((*env)["AURORA_CLUSTER_HOST"]); !strings.Contains(fmt.Sprint(host), "Cluster Endpoint.Address") {
		t.Errorf("the cluster is at %v", host)
	}
}

// The environment of a function is the hand-off, resolved when the stack is deployed.
func TestEnvironment(t *testing.T) {
	spec := aurora.EarlyProduction()
	spec.Name, spec.Database = "orders", "orders"
	stack, db := newDatabase(t, spec)
	env, err := db.Env("migrate")
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(stack.Resolve((*env)["DATABASE_URL"]))
	if want := `{"Fn::Join":["",["postgres://migrate@",{"Fn::GetAtt":["Proxy","Endpoint"]},"/orders"]]}`; err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
	if got := stack.Resolve((*env)["DATABASE_READER_URL"]); !strings.Contains(fmt.Sprint(got), "ProxyReaderEndpoint") {
		t.Error(got)
	}
	if _, err := db.Env("nobody"); err == nil {
		t.Error("an environment for nobody")
	}
	if got := stack.Resolve(db.Proxy.Endpoint()); !strings.Contains(fmt.Sprint(got), "Proxy Endpoint") {
		t.Error(got)
	}
	if got := stack.Resolve(db.Cluster.ClusterResourceIdentifier()); !strings.Contains(fmt.Sprint(got), "DBClusterResourceId") {
		t.Error(got)
	}
}

// Mistakes are errors of Go, not panics.
func TestErrors(t *testing.T) {
	_, stack, vpc := newStack()
	if _, err := auroracdk.New(stack, "A", auroracdk.Props{}); err == nil {
		t.Error("no VPC, no error")
	}
	bad := aurora.Spec{Capacity: aurora.Capacity{Max: 300}}
	if _, err := auroracdk.New(stack, "B", auroracdk.Props{Spec: bad, Vpc: vpc}); !errors.Is(err, aurora.RuleCapacity) {
		t.Error(err)
	}
	public := &awsec2.SubnetSelection{SubnetType: awsec2.SubnetType_PUBLIC}
	if _, err := auroracdk.New(stack, "C", auroracdk.Props{Vpc: vpc, VpcSubnets: public}); err == nil {
		t.Error("no subnets, no error")
	}
	one := &awsec2.SubnetSelection{AvailabilityZones: jsii.Strings("eu-west-1a"), SubnetType: awsec2.SubnetType_PRIVATE_ISOLATED}
	if _, err := auroracdk.New(stack, "D", auroracdk.Props{Vpc: vpc, VpcSubnets: one}); !errors.Is(err, aurora.RuleSubnets) {
		t.Error(err)
	}
	// What the CDK panics with: the same construct twice.
	if _, err := auroracdk.New(stack, "E", auroracdk.Props{Vpc: vpc}); err != nil {
		t.Fatal(err)
	}
	if _, err := auroracdk.New(stack, "E", auroracdk.Props{Vpc: vpc}); err == nil || !strings.Contains(err.Error(), "auroracdk") {
		t.Error(err)
	}
}
