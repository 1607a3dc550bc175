// Package auroracdk is the template of package aurora as a construct for the AWS CDK in
// Go: the same Spec, the same resources under the same logical ids, with the CDK's own
// handles for the cluster, the proxy and the secrets, grants, and the environment of a
// function or a task.
//
//	db, err := auroracdk.New(stack, "Database", auroracdk.Props{Spec: aurora.EarlyProduction(), Vpc: vpc})
//	if err != nil {
//		return err
//	}
//	db.AllowFrom(function)
//	db.GrantConnect(function, "app")
//	env, err := db.Env("app") // DATABASE_URL and the rest
//
// It is a module of its own because the CDK needs node, and brings 300 MB of modules.
// The CDK's Go packages talk to a node process and are not safe for concurrent use;
// neither is this one.
package auroracdk

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsec2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsrds"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssecretsmanager"
	"github.com/aws/aws-cdk-go/awscdk/v2/cloudformationinclude"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"

	"github.com/aurorapgx/aurorapgx/aurora"
)

// Props say what to build and where.
type Props struct {
	// Spec is the database. Its Network is not used: Vpc and VpcSubnets are.
	Spec aurora.Spec
	// Vpc is where the cluster is put. Required.
	Vpc awsec2.IVpc
	// VpcSubnets are the subnets, in at least two availability zones. Default: the VPC's
	// isolated ones.
	VpcSubnets *awsec2.SubnetSelection
}

// Database is a cluster and all that belongs to it.
type Database struct {
	// Cluster is the cluster, for the CDK's own APIs.
	Cluster awsrds.IDatabaseCluster
	// Proxy is the proxy; nil if the Spec has none.
	Proxy awsrds.IDatabaseProxy
	// Secrets are the users' secrets by user, with aurora.Secrets only.
	Secrets map[string]awssecretsmanager.ISecret
	// MasterSecret is the administrator's secret.
	MasterSecret awssecretsmanager.ISecret
	// Connections open the way to the proxy, or to the cluster if there is none.
	Connections awsec2.Connections
	// Handoff is what applications need to know. Its texts are CDK tokens until the stack
	// is deployed.
	Handoff aurora.Handoff

	scope   constructs.Construct
	include cloudformationinclude.CfnInclude
	spec    aurora.Spec
}

// New adds the database to a stack. Resources keep the logical ids of
// [aurora.Spec.Template], so a stack deployed from the plain template can go on as a
// CDK stack; for the same reason there can be one database in a stack. What the CDK
// panics with is returned as an error.
func New(scope constructs.Construct, id string, props Props) (db *Database, err error) {
	if props.Vpc == nil {
		return nil, errors.New("auroracdk: Props.Vpc is nil; give the VPC the cluster is to be in")
	}
	props.Spec.Network = aurora.Network{}
	text, err := props.Spec.Template()
	if err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil {
			db, err = nil, fmt.Errorf("auroracdk: the CDK refused the stack: %v", p)
		}
	}()
	subnets := props.VpcSubnets
	if subnets == nil {
		subnets = &awsec2.SubnetSelection{SubnetType: awsec2.SubnetType_PRIVATE_ISOLATED}
	}
	ids := props.Vpc.SelectSubnets(subnets).SubnetIds
	if ids == nil || len(*ids) < 2 {
		return nil, &aurora.FieldError{Field: "Props.VpcSubnets", Rule: aurora.RuleSubnets, Doc: aurora.RuleSubnets.Doc(), Reason: "they select fewer than two subnets; cluster and proxy need two, in different availability zones"}
	}
	scope = constructs.NewConstruct(scope, &id)
	include, outputs, err := includeTemplate(scope, text, map[string]any{"VpcId": props.Vpc.VpcId(), "SubnetIds": ids})
	if err != nil {
		return nil, err
	}
	db = &Database{scope: scope, include: include, spec: props.Spec.WithDefaults(), Secrets: map[string]awssecretsmanager.ISecret{}}
	if db.Handoff, err = aurora.HandoffFromOutputs(outputs); err != nil {
		return nil, err
	}
	db.handles()
	return db, nil
}

// includeTemplate reads the template into the scope, without what stands for the
// network: the CDK knows it. The outputs it returns are tokens.
func includeTemplate(scope constructs.Construct, text []byte, parameters map[string]any) (cloudformationinclude.CfnInclude, map[string]string, error) {
	var template map[string]any
	if err := json.Unmarshal(text, &template); err != nil {
		return nil, nil, err
	}
	delete(template, "Rules")
	delete(template, "Conditions")
	resources, _ := template["Resources"].(map[string]any)
	for id := range resources {
		if strings.HasPrefix(id, "FromClient") || strings.HasPrefix(id, "FromDirect") { // see AllowFrom
			delete(resources, id)
		}
	}
	all, _ := template["Parameters"].(map[string]any)
	delete(all, "ClientSecurityGroupIds")
	delete(all, "DirectSecurityGroupIds")
	text, err := json.Marshal(template)
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "auroracdk")
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "template.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, nil, err
	}
	include := cloudformationinclude.NewCfnInclude(scope, jsii.String("Template"), &cloudformationinclude.CfnIncludeProps{
		TemplateFile: &file, Parameters: &parameters,
	})
	outputs := map[string]string{}
	declared, _ := template["Outputs"].(map[string]any)
	for id := range declared {
		outputs[id] = *awscdk.Token_AsString(include.GetOutput(&id).Value(), nil)
	}
	return include, outputs, nil
}

// handles makes the CDK's own constructs of what was included.
func (d *Database) handles() {
	d.MasterSecret = awssecretsmanager.Secret_FromSecretCompleteArn(d.scope, jsii.String("MasterSecret"), &d.Handoff.MasterSecretARN)
	for _, u := range d.Handoff.Users {
		if u.SecretARN != "" {
			d.Secrets[u.Name] = awssecretsmanager.Secret_FromSecretCompleteArn(d.scope, jsii.String("Secret-"+u.Name), &u.SecretARN)
		}
	}
	port := jsii.Number(float64(d.Handoff.Port))
	clusterGroup := d.securityGroup("ClusterSecurityGroup")
	d.Cluster = awsrds.DatabaseCluster_FromDatabaseClusterAttributes(d.scope, jsii.String("Cluster"), &awsrds.DatabaseClusterAttributes{
		ClusterIdentifier:         d.Resource("Cluster").Ref(),
		ClusterResourceIdentifier: d.attribute("Cluster", "DBClusterResourceId"),
		ClusterEndpointAddress:    d.attribute("Cluster", "Endpoint.Address"),
		ReaderEndpointAddress:     d.attribute("Cluster", "ReadEndpoint.Address"),
		Port:                      port,
		DataApiEnabled:            &d.spec.DataAPI,
		Secret:                    d.MasterSecret,
		SecurityGroups:            &[]awsec2.ISecurityGroup{clusterGroup},
	})
	front := clusterGroup
	if !d.spec.Proxy.Off {
		front = d.securityGroup("ProxySecurityGroup")
		d.Proxy = awsrds.DatabaseProxy_FromDatabaseProxyAttributes(d.scope, jsii.String("Proxy"), &awsrds.DatabaseProxyAttributes{
			DbProxyArn: d.attribute("Proxy", "DBProxyArn"), DbProxyName: d.Resource("Proxy").Ref(), Endpoint: d.attribute("Proxy", "Endpoint"),
			SecurityGroups: &[]awsec2.ISecurityGroup{front},
		})
	}
	d.Connections = awsec2.NewConnections(&awsec2.ConnectionsProps{
		SecurityGroups: &[]awsec2.ISecurityGroup{front}, DefaultPort: awsec2.Port_Tcp(port),
	})
}

func (d *Database) securityGroup(id string) awsec2.ISecurityGroup {
	return awsec2.SecurityGroup_FromSecurityGroupId(d.scope, &id, d.attribute(id, "GroupId"), nil)
}

func (d *Database) attribute(id, name string) *string {
	return d.Resource(id).GetAtt(&name, awscdk.ResolutionTypeHint_STRING).ToString()
}

// Resource is a resource of the template by its logical id, as "Cluster", for whatever
// has no handle here. It panics, as the CDK does, if there is none.
func (d *Database) Resource(logicalID string) awscdk.CfnResource {
	return d.include.GetResource(&logicalID)
}

// AllowFrom lets clients connect: it opens the security groups of both sides. Past the proxy, to
// the cluster itself, d.Cluster.Connections().AllowDefaultPortFrom lets them.
func (d *Database) AllowFrom(clients ...awsec2.IConnectable) {
	for _, client := range clients {
		d.Connections.AllowDefaultPortFrom(client, jsii.String("PostgreSQL"))
	}
}

// GrantConnect lets grantee log in as one user: with IAM it may make tokens for that
// user and no other, for the cluster itself too if the user is Direct; with secrets it may
// read that user's secret.
func (d *Database) GrantConnect(grantee awsiam.IGrantable, user string) error {
	u, err := d.Handoff.User(user)
	if err != nil {
		return err
	}
	if d.Handoff.Auth == aurora.Secrets {
		d.Secrets[u.Name].GrantRead(grantee, nil)
		if d.Handoff.KMSKeyARN != "" {
			grant(grantee, []string{"kms:Decrypt"}, d.Handoff.KMSKeyARN)
		}
		return nil
	}
	servers := []string{d.Handoff.ResourceID}
	if u.Direct {
		servers = append(servers, d.Handoff.ClusterResourceID)
	}
	for _, id := range servers {
		grant(grantee, []string{"rds-db:connect"}, *awscdk.Fn_Join(jsii.String(""), jsii.Strings(
			"arn:", *awscdk.Aws_PARTITION(), ":rds-db:", *awscdk.Aws_REGION(), ":", *awscdk.Aws_ACCOUNT_ID(), ":dbuser:", id, "/", u.Name,
		)))
	}
	return nil
}

func grant(grantee awsiam.IGrantable, actions []string, resource string) {
	grantee.GrantPrincipal().AddToPrincipalPolicy(awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
		Actions: jsii.Strings(actions...), Resources: jsii.Strings(resource),
	}))
}

// Env is the environment of a function or a task that logs in as one user: see
// [aurora.Handoff.Env].
func (d *Database) Env(user string) (*map[string]*string, error) {
	env, err := d.Handoff.Env(user)
	if err != nil {
		return nil, err
	}
	out := map[string]*string{}
	for name, value := range env {
		out[name] = &value
	}
	return &out, nil
}
