package aurora_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/aurorapgx/aurorapgx/aurora"
)

// A preset, a name, and a template for any tool that deploys CloudFormation.
func ExampleSpec_Template() {
	spec := aurora.EarlyProduction()
	spec.Name, spec.Database = "orders", "orders"
	text, err := spec.Template()
	if err != nil {
		log.Fatal(err)
	}
	var template struct {
		Description string
		Parameters  map[string]any
	}
	if err := json.Unmarshal(text, &template); err != nil {
		log.Fatal(err)
	}
	fmt.Println(template.Description)
	fmt.Println(len(template.Parameters), "parameters")
	// Output:
	// orders: Aurora PostgreSQL 17.9 Serverless v2, 0.5 to 8 ACU, behind RDS Proxy. Made by aurorapgx.
	// 3 parameters
}

// What would fail later is refused at once, with the rule and the document.
func ExampleSpec_Validate() {
	spec := aurora.EarlyProduction()
	spec.Capacity.AutoPause = 10 * time.Minute
	err := spec.Validate()
	fmt.Println(errors.Is(err, aurora.RuleAutoPauseBehindProxy))
	if field, ok := errors.AsType[*aurora.FieldError](err); ok {
		fmt.Println(field.Field)
		fmt.Println(field.Doc)
	}
	// Output:
	// true
	// Capacity.AutoPause
	// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora-serverless-v2-auto-pause.html
}

// The outputs of a deployed stack are all an application has to be told.
func ExampleHandoffFromOutputs() {
	outputs := map[string]string{ // as from aws cloudformation describe-stacks
		"Region": "eu-west-1", "Host": "orders.proxy-abc.eu-west-1.rds.amazonaws.com", "Port": "5432", "Database": "orders", "Auth": "iam",
		"ClusterArn": "arn:aws:rds:eu-west-1:123456789012:cluster:orders", "ResourceId": "prx-0123456789abcdef0",
		"MasterSecretArn": "arn:aws:secretsmanager:eu-west-1:123456789012:secret:rds!cluster-1", "Users": "app,migrate",
	}
	handoff, err := aurora.HandoffFromOutputs(outputs)
	if err != nil {
		log.Fatal(err)
	}
	env, err := handoff.Env("app")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(env["DATABASE_URL"])
	// Output: postgres://app@orders.proxy-abc.eu-west-1.rds.amazonaws.com/orders
}

func ExampleReplacements() {
	old, err := aurora.Spec{Name: "orders"}.Template()
	if err != nil {
		log.Fatal(err)
	}
	renamed, err := aurora.Spec{Name: "orders", Database: "sales"}.Template()
	if err != nil {
		log.Fatal(err)
	}
	all, err := aurora.Replacements(old, renamed)
	if err != nil {
		log.Fatal(err)
	}
	for _, r := range all {
		fmt.Println(r)
	}
	// Output: Cluster (AWS::RDS::DBCluster) would be replaced: DatabaseName changes from "app" to "sales"
}
