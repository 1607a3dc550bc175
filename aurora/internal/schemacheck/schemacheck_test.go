package schemacheck_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aurorapgx/aurorapgx/aurora"
	"github.com/aurorapgx/aurorapgx/aurora/internal/cfneval"
	"github.com/aurorapgx/aurorapgx/aurora/internal/schemacheck"
)

var stack = cfneval.Stack{Region: "eu-west-1", Account: "123456789012", Parameters: map[string]string{
	"VpcId": "vpc-0123456789abcdef0", "SubnetIds": "subnet-0123456789abcdef0,subnet-0123456789abcdef1",
	"ClientSecurityGroupIds": "sg-0123456789abcdef0,sg-0123456789abcdef1",
	"DirectSecurityGroupIds": "sg-0123456789abcdef2,sg-0123456789abcdef3",
}}

// specs are the stages, each with IAM and with secrets, and one with all there is.
func specs() map[string]aurora.Spec {
	all := map[string]aurora.Spec{}
	for _, stage := range aurora.Stages() {
		all[stage.Name] = stage.Spec
		stage.Spec.Auth = aurora.Secrets
		all[stage.Name+", secrets"] = stage.Spec
	}
	full := aurora.Scale()
	full.Auth, full.IOOptimized, full.BootstrapAtDeploy = aurora.Secrets, true, true
	full.KMSKey = "arn:aws:kms:eu-west-1:123456789012:key/0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f"
	full.Alarms.TopicARN = "arn:aws:sns:eu-west-1:123456789012:alarms"
	full.Insights.Advanced, full.Proxy.DebugLogging = true, true
	full.Backup.Window, full.MaintenanceWindow = "02:00-03:00", "sun:04:00-sun:05:00"
	full.Tags = map[string]string{"team": "orders"}
	full.Readers = []aurora.Reader{{Tier: 1}, {Tier: 15}}
	full.Users = []aurora.User{{Name: "app"}, {Name: "migrate", Access: aurora.Owner, Direct: true}}
	all["everything"] = full
	return all
}

func open(t *testing.T) *schemacheck.Schemas {
	t.Helper()
	schemas, err := schemacheck.Open()
	if err != nil {
		t.Fatal(err)
	}
	return schemas
}

func deploy(t *testing.T, spec aurora.Spec) map[string]cfneval.Resource {
	t.Helper()
	text, err := spec.Template()
	if err != nil {
		t.Fatal(err)
	}
	out, err := stack.Deploy(text)
	if err != nil {
		t.Fatal(err)
	}
	return out.Resources
}

func TestTemplatesPassTheProviderSchemas(t *testing.T) {
	t.Parallel()
	schemas := open(t)
	for name, spec := range specs() {
		for id, r := range deploy(t, spec) {
			if err := schemas.Check(r.Type, r.Properties); err != nil {
				t.Errorf("%s: %s: %v", name, id, err)
			}
		}
	}
}

// The gate must bite: on a property that does not exist, a wrong type, a value that is
// not among those allowed, and a required one that is missing.
func TestTheSchemasBite(t *testing.T) {
	t.Parallel()
	schemas := open(t)
	for name, spoil := range map[string]func(all map[string]cfneval.Resource){
		"StorageEncryptet":  func(all map[string]cfneval.Resource) { all["Cluster"].Properties["StorageEncryptet"] = true },
		"/Port":             func(all map[string]cfneval.Resource) { all["Cluster"].Properties["Port"] = "many" },
		"/EngineFamily":     func(all map[string]cfneval.Resource) { all["Proxy"].Properties["EngineFamily"] = "ORACLE" },
		"/VpcSubnetIds":     func(all map[string]cfneval.Resource) { all["Proxy"].Properties["VpcSubnetIds"] = []any{"subnet-1"} },
		"RoleArn":           func(all map[string]cfneval.Resource) { delete(all["Proxy"].Properties, "RoleArn") },
		"DefaultAuthScheme": func(all map[string]cfneval.Resource) { all["Proxy"].Properties["DefaultAuthScheme"] = "IAM" },
	} {
		all := deploy(t, aurora.EarlyProduction())
		spoil(all)
		var found []error
		for _, r := range all {
			if err := schemas.Check(r.Type, r.Properties); err != nil {
				found = append(found, err)
			}
		}
		if len(found) != 1 || !strings.Contains(found[0].Error(), name) {
			t.Errorf("%s: %v", name, found)
		}
	}
}

// The list in the aurora package is what the schemas say.
func TestCreateOnlyProperties(t *testing.T) {
	t.Parallel()
	schemas := open(t)
	types := map[string]bool{}
	for _, spec := range specs() {
		for _, r := range deploy(t, spec) {
			types[r.Type] = true
		}
	}
	for typ := range types {
		schema, err := schemas.Read(typ)
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, list := range []string{"createOnlyProperties", "conditionalCreateOnlyProperties"} {
			paths, _ := schema[list].([]any)
			for _, path := range paths {
				want = append(want, strings.TrimPrefix(fmt.Sprint(path), "/properties/"))
			}
		}
		slices.Sort(want)
		got := aurora.CreateOnlyProperties(typ)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s: the list has %v, the schema %v", typ, got, want)
		}
	}
}
