package aurora_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aurorapgx/aurorapgx/aurora"
	"github.com/aurorapgx/aurorapgx/aurora/internal/cfneval"
)

var deployment = cfneval.Stack{Region: "eu-west-1", Account: "123456789012", Parameters: map[string]string{
	"VpcId": "vpc-0123456789abcdef0", "SubnetIds": "subnet-0123456789abcdef0,subnet-0123456789abcdef1",
	"ClientSecurityGroupIds": "sg-0123456789abcdef0,sg-0123456789abcdef1",
	"DirectSecurityGroupIds": "sg-0123456789abcdef2,sg-0123456789abcdef3",
}}

// FuzzSpec reads a Spec as JSON. Whatever Validate lets through must render, deploy on
// the stand-in for CloudFormation with every reference resolved, hold no circle, and
// allow nobody more than the users and secrets it names.
func FuzzSpec(f *testing.F) {
	for _, spec := range golden() {
		seed(f, spec)
	}
	for _, m := range slices.Concat(whatCheckersMiss, otherMistakes) {
		spec := aurora.EarlyProduction()
		m.spoil(&spec)
		seed(f, spec)
	}
	seed(f, aurora.Spec{Proxy: aurora.Proxy{Off: true}, Capacity: aurora.Capacity{AutoPause: time.Hour}})
	f.Fuzz(func(t *testing.T, text []byte) {
		spec, err := aurora.ParseSpec(text)
		if err != nil {
			return
		}
		if spec.Validate() != nil {
			if _, err := spec.Template(); err == nil {
				t.Error("refused and rendered")
			}
			return
		}
		checkInvariants(t, spec)
		again, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		back, err := aurora.ParseSpec(again)
		if err != nil || string(render(t, back)) != string(render(t, spec)) {
			t.Errorf("written as JSON and read again it is another: %v\n%s", err, again)
		}
	})
}

func seed(f *testing.F, spec aurora.Spec) {
	f.Helper()
	if text, err := json.Marshal(spec); err == nil { // NaN and functions are no JSON
		f.Add(text)
	}
}

func TestInvariants(t *testing.T) {
	t.Parallel()
	for name, spec := range golden() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checkInvariants(t, spec)
		})
	}
}

func checkInvariants(t *testing.T, spec aurora.Spec) {
	t.Helper()
	text := render(t, spec)
	if string(text) != string(render(t, spec)) {
		t.Error("not the same twice")
	}
	all := resources(t, text)
	deployed, err := deployment.Deploy(text) // resolves every Ref, GetAtt and Sub, or fails
	if err != nil {
		t.Fatal(err)
	}
	needs := map[string][]string{}
	for id, r := range all {
		raw, err := json.Marshal(r.Properties)
		if err != nil {
			t.Fatal(err)
		}
		needs[id] = append(mentioned(string(raw), all), r.DependsOn...)
		for _, target := range r.DependsOn {
			if all[target].Type == "" {
				t.Errorf("%s depends on %s, which is not there", id, target)
			}
		}
	}
	checkOrder(t, needs)
	for id, r := range deployed.Resources {
		checkStatements(t, id, r.Properties)
	}
}

var quoted = regexp.MustCompile(`"Ref":"(\w+)"|"Fn::GetAtt":\["(\w+)"|\$\{(\w+)[.}]`)

// mentioned are the resources that a text refers to.
func mentioned(text string, all map[string]stackResource) []string {
	var out []string
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		if id := m[1] + m[2] + m[3]; all[id].Type != "" {
			out = append(out, id)
		}
	}
	return out
}

// checkOrder takes away what needs nothing until nothing is left.
func checkOrder(t *testing.T, needs map[string][]string) {
	t.Helper()
	for len(needs) > 0 {
		n := len(needs)
		maps.DeleteFunc(needs, func(_ string, of []string) bool {
			return !slices.ContainsFunc(of, func(id string) bool { _, ok := needs[id]; return ok })
		})
		if len(needs) == n {
			t.Fatalf("in a circle: %v", slices.Sorted(maps.Keys(needs)))
		}
	}
}

// checkStatements looks for policy statements wherever they are.
func checkStatements(t *testing.T, id string, v any) {
	t.Helper()
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			checkStatements(t, id, one)
		}
	case map[string]any:
		actions, resource := fmt.Sprint(v["Action"]), fmt.Sprint(v["Resource"])
		if v["Effect"] == "Allow" && (strings.Contains(actions, "rds-db:") || strings.Contains(actions, "secretsmanager:")) &&
			(strings.Contains(actions, "*") || strings.Contains(resource, "*") || v["Resource"] == nil) {
			t.Errorf("%s allows %s on %s", id, actions, resource)
		}
		for _, one := range v {
			checkStatements(t, id, one)
		}
	}
}
