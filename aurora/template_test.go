package aurora_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aurorapgx/aurorapgx/aurora"
)

var (
	update  = flag.Bool("update", false, "write the golden templates anew")
	replace = flag.Bool("replace", false, "with -update: also if that replaces clusters or proxies")
)

// golden are the templates under review: the stages, and what they do not show.
func golden() map[string]aurora.Spec {
	specs := map[string]aurora.Spec{}
	for _, stage := range aurora.Stages() {
		specs[stage.Name] = stage.Spec
	}
	full := aurora.Scale()
	full.Name, full.Database, full.Auth = "orders", "orders", aurora.Secrets
	full.Readers = []aurora.Reader{{Tier: 1}, {Tier: 5}}
	full.KMSKey = "arn:aws:kms:eu-west-1:123456789012:key/0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f"
	full.Alarms.TopicARN = "arn:aws:sns:eu-west-1:123456789012:alarms"
	full.Network = aurora.Network{VPC: "vpc-0123456789abcdef0", Subnets: []string{"subnet-0123456789abcdef0", "subnet-0123456789abcdef1"}, ClientSecurityGroups: []string{"sg-0123456789abcdef0"}}
	full.Tags = map[string]string{"team": "orders", "stage": "production"}
	full.IOOptimized = true
	full.Insights.Advanced = true
	specs["secrets"] = full
	direct := aurora.EarlyProduction()
	direct.Network.DirectSecurityGroups = []string{"sg-0123456789abcdef2", "sg-0123456789abcdef3"}
	direct.Users = []aurora.User{{Name: "app"}, {Name: "migrate", Access: aurora.Owner, Direct: true}}
	specs["direct"] = direct
	deployed := aurora.EarlyProduction()
	deployed.BootstrapAtDeploy, deployed.Alarms.Off = true, true
	specs["bootstrap"] = deployed
	return specs
}

func TestGoldenTemplates(t *testing.T) {
	t.Parallel()
	for name, spec := range golden() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := render(t, spec)
			path := filepath.Join("testdata", name+".json")
			want, err := os.ReadFile(path)
			if *update {
				if err == nil && !*replace {
					nothingReplaced(t, want, got)
				}
				if err := os.WriteFile(path, got, 0o600); err != nil && !t.Failed() {
					t.Fatal(err)
				}
				return
			}
			if err != nil {
				t.Fatalf("%v; make it with go test ./aurora -run Golden -update", err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s is not what is rendered now: review the difference after go test ./aurora -run Golden -update\n%s", path, firstDifference(want, got))
			}
		})
	}
}

// An update of this package must not replace the clusters and proxies of those who use
// it, whatever else it changes in a template.
func TestNothingIsReplaced(t *testing.T) {
	t.Parallel()
	for name, spec := range golden() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(filepath.Join("testdata", name+".json"))
			if err != nil {
				t.Fatal(err)
			}
			nothingReplaced(t, want, render(t, spec))
		})
	}
}

func nothingReplaced(t *testing.T, old, updated []byte) {
	t.Helper()
	all, err := aurora.Replacements(old, updated)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range all {
		if r.HoldsData() {
			t.Error(r)
		}
	}
	if t.Failed() {
		t.Fatal("whoever updates a stack loses data or an endpoint; if it must be: -update -replace, and say it in the change log")
	}
}

// Past the proxy there is a way where the Spec asks for one, for the groups that are given, and no
// trace of one where it does not.
func TestDirectAccess(t *testing.T) {
	t.Parallel()
	group := []string{"sg-0123456789abcdef2"}
	users := []aurora.User{{Name: "app"}, {Name: "migrate", Direct: true}}
	for _, tt := range []struct {
		name string
		spec aurora.Spec
		want bool
	}{
		{"nobody", aurora.Spec{}, false},
		{"a group", aurora.Spec{Network: aurora.Network{DirectSecurityGroups: group}}, true},
		{"a user", aurora.Spec{Users: users}, true},
		{"a user with a secret", aurora.Spec{Users: users, Auth: aurora.Secrets}, true},
		{"without a proxy", aurora.Spec{Users: users, Network: aurora.Network{DirectSecurityGroups: group}, Proxy: aurora.Proxy{Off: true}}, false},
	} {
		text := render(t, tt.spec)
		out, err := deployment.Deploy(text)
		if err != nil {
			t.Fatal(err)
		}
		var into []string
		for id, r := range out.Resources {
			if r.Type == "AWS::EC2::SecurityGroupIngress" && r.Properties["GroupId"] == out.Resources["FromDirect1"].Properties["GroupId"] {
				into = append(into, fmt.Sprint(id, " ", r.Properties["SourceSecurityGroupId"]))
			}
		}
		slices.Sort(into)
		cluster := out.Resources["Cluster"].Properties["VpcSecurityGroupIds"]
		switch {
		case !tt.want:
			if strings.Contains(string(text), "Direct") || out.Outputs["ClusterHost"] != "" {
				t.Errorf("%s: there is a way past the proxy", tt.name)
			}
		case len(into) != 3 || !strings.HasPrefix(into[0], "ClusterFromProxy ") || into[1] != "FromDirect1 sg-0123456789abcdef2" || into[2] != "FromDirect2 sg-0123456789abcdef3":
			t.Errorf("%s: into the cluster may %q", tt.name, into)
		case fmt.Sprint(cluster) != fmt.Sprint([]any{out.Resources["FromDirect1"].Properties["GroupId"]}):
			t.Errorf("%s: the rules are for %v, the cluster has %v", tt.name, out.Resources["FromDirect1"].Properties["GroupId"], cluster)
		case out.Outputs["ClusterHost"] == "" || out.Outputs["ClusterHost"] == out.Outputs["Host"]:
			t.Errorf("%s: the cluster is at %q", tt.name, out.Outputs["ClusterHost"])
		}
	}
	six := []string{"sg-00000000", "sg-00000001", "sg-00000002", "sg-00000003", "sg-00000004", "sg-00000005"}
	all := resources(t, render(t, aurora.Spec{Network: aurora.Network{DirectSecurityGroups: six}}))
	if all["FromDirect6"].Condition != "HasDirect6" || all["FromClient6"].Type != "" {
		t.Errorf("of six groups: %+v", all["FromDirect6"])
	}
}

// The guard above must bite on each property that cannot be changed in place.
func TestReplacementsAreFound(t *testing.T) {
	t.Parallel()
	old := render(t, golden()["secrets"])
	for _, id := range []string{"Cluster", "Instance1", "Proxy", "ProxyReaderEndpoint", "ProxyTargets", "SecretApp", "ClusterLogs", "HandoffParameter"} {
		typ := resources(t, old)[id].Type
		properties := aurora.CreateOnlyProperties(typ)
		if len(properties) == 0 {
			t.Errorf("%s: no create-only properties", typ)
		}
		for _, property := range properties {
			changed := edit(t, old, func(all map[string]any) {
				all[id].(map[string]any)["Properties"].(map[string]any)[property] = "something else"
			})
			got, err := aurora.Replacements(old, changed)
			if err != nil || len(got) != 1 || got[0].ID != id || got[0].Property != property || !strings.Contains(got[0].String(), property) {
				t.Errorf("%s.%s: %v, %v", id, property, got, err)
			}
		}
		gone := edit(t, old, func(all map[string]any) { delete(all, id) })
		if got, err := aurora.Replacements(old, gone); err != nil || len(got) != 1 || got[0].Property != "" || !strings.Contains(got[0].String(), "deleted") {
			t.Errorf("%s gone: %v, %v", id, got, err)
		}
	}

	spec := golden()["secrets"]
	for name, change := range map[string]func(){
		"Cluster.DBClusterIdentifier": func() { spec.Name = "invoices" },
		"Cluster.DatabaseName":        func() { spec.Database = "invoices" },
		"Cluster.MasterUsername":      func() { spec.MasterUser = "root" },
		"Cluster.KmsKeyId":            func() { spec.KMSKey = "" },
		"Proxy.DBProxyName":           func() { spec.Name = "invoices" },
	} {
		spec = golden()["secrets"]
		change()
		got, err := aurora.Replacements(old, render(t, spec))
		if err != nil || !slices.ContainsFunc(got, func(r aurora.Replacement) bool { return r.ID+"."+r.Property == name && r.HoldsData() }) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}

	spec = golden()["secrets"]
	spec.Capacity.Max, spec.Backup.Days, spec.LogDays, spec.Engine = 64, 3, 7, "17.7"
	spec.Readers = append(spec.Readers, aurora.Reader{Tier: 2})
	if got, err := aurora.Replacements(old, render(t, spec)); err != nil || len(got) > 0 {
		t.Errorf("a harmless change: %v, %v", got, err)
	}
	for _, text := range []string{"", "{}", "Resources: {}"} {
		if _, err := aurora.Replacements([]byte(text), old); err == nil {
			t.Errorf("%q is a template", text)
		}
	}
}

func TestTheSameBytes(t *testing.T) {
	t.Parallel()
	for name, spec := range golden() {
		first := render(t, spec)
		for range 3 {
			if !bytes.Equal(first, render(t, spec)) {
				t.Fatalf("%s: rendered differently the second time", name)
			}
		}
		if !bytes.Equal(first, render(t, spec.WithDefaults())) {
			t.Errorf("%s: defaults that are spelt out make a difference", name)
		}
	}
}

// CloudFormation takes up to 51,200 bytes as a command's argument; more must go
// through a bucket.
// https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
func TestTemplatesFitIntoACommand(t *testing.T) {
	t.Parallel()
	for name, spec := range golden() {
		if n := len(render(t, spec)); n > 51200 {
			t.Errorf("%s has %d bytes", name, n)
		}
	}
}

func TestNoTransformsNoAssets(t *testing.T) {
	t.Parallel()
	for name, spec := range golden() {
		text := string(render(t, spec))
		for _, word := range []string{`"Transform"`, "S3Bucket", "Fn::ForEach", "Fn::ToJsonString", "Fn::Transform", `"RoleName"`, `"ManagedPolicyName"`} {
			if strings.Contains(text, word) {
				t.Errorf("%s holds %s", name, word)
			}
		}
	}
}

// Each alarm watches the metric with the dimensions it is published with.
func TestAlarmsWatchEachInstance(t *testing.T) {
	t.Parallel()
	all := resources(t, render(t, golden()["secrets"]))
	for n := 1; n <= 3; n++ {
		for _, kind := range []string{"AlarmCapacity", "AlarmCeiling"} {
			id := fmt.Sprintf("%s%d", kind, n)
			got := fmt.Sprint(all[id].Properties["Dimensions"])
			if want := fmt.Sprintf("[map[Name:DBInstanceIdentifier Value:map[Ref:Instance%d]]]", n); got != want {
				t.Errorf("%s: %s", id, got)
			}
		}
	}
	for id, r := range all {
		if r.Type == "AWS::CloudWatch::Alarm" && (r.Properties["TreatMissingData"] != "notBreaching" || r.Properties["AlarmActions"] == nil) {
			t.Errorf("%s: %v", id, r.Properties)
		}
	}
	var body struct{ Widgets []any }
	text := all["Dashboard"].Properties["DashboardBody"].(map[string]any)["Fn::Sub"].(string)
	if err := json.Unmarshal([]byte(text), &body); err != nil {
		t.Fatal(err)
	}
	alarms := 0
	for _, r := range all {
		if r.Type == "AWS::CloudWatch::Alarm" {
			alarms++
		}
	}
	if len(body.Widgets) != alarms || alarms != 3*2+5 {
		t.Errorf("%d widgets, %d alarms", len(body.Widgets), alarms)
	}
}

// No alarm on capacity is on while an instance idles, whatever the capacity.
func TestAlarmsOnCapacityCanBeOff(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]aurora.Capacity{
		"80 16": {}, "80 5": {Min: 3, Max: 5}, "82 8": {Min: 5, Max: 8}, "90 5": {Min: 4, Max: 5}, "100 256": {Min: 255.5, Max: 256}, "none": {Min: 256, Max: 256},
	} {
		for _, spec := range []aurora.Spec{{Capacity: c}, aurora.Spec{Capacity: c}.WithDefaults()} {
			all := resources(t, render(t, spec))
			got := "none"
			if share, ok := all["AlarmCapacity2"]; ok {
				got = fmt.Sprint(share.Properties["Threshold"], all["AlarmCeiling2"].Properties["Threshold"])
			} else if all["AlarmCeiling2"].Type != "" || all["AlarmPinned"].Type == "" {
				t.Errorf("%+v: not all alarms on capacity are left out, or others too", c)
			}
			if got != want {
				t.Errorf("%+v: alarms at %s, want %s", c, got, want)
			}
		}
	}
}

// Where there is nothing to draw, the dashboard's body is still one that CloudWatch takes.
func TestADashboardWithoutAlarms(t *testing.T) {
	t.Parallel()
	all := resources(t, render(t, aurora.Spec{Proxy: aurora.Proxy{Off: true}, Capacity: aurora.Capacity{Min: 2, Max: 2}}))
	if body := fmt.Sprint(all["Dashboard"].Properties["DashboardBody"]); !strings.Contains(body, `"widgets":[]`) {
		t.Errorf("%s", body)
	}
}

func TestExplainNamesEveryResource(t *testing.T) {
	t.Parallel()
	for name, spec := range golden() {
		explained, err := spec.Explain()
		if err != nil {
			t.Fatal(err)
		}
		all := resources(t, render(t, spec))
		for _, e := range explained {
			if all[e.ID].Type != e.Type || e.Why == "" || !strings.HasPrefix(e.Doc, "https://") {
				t.Errorf("%s: %+v", name, e)
			}
			delete(all, e.ID)
		}
		if len(all) > 0 {
			t.Errorf("%s: not explained: %v", name, all)
		}
	}
}

// Services link this package: it must cost them nothing but the standard library.
func TestStandardLibraryOnly(t *testing.T) {
	t.Parallel()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}} {{if eq .ImportPath \"text/template\"}}{{.ImportPath}}{{end}}", ".")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Fields(string(out)); !slices.Equal(got, []string{"github.com/aurorapgx/aurorapgx/aurora"}) {
		t.Errorf("the package depends on %v", got)
	}
}

func BenchmarkTemplate(b *testing.B) {
	for name, spec := range golden() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := spec.Template(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// --- helpers

type stackResource struct {
	Type       string
	DependsOn  []string
	Condition  string
	Properties map[string]any
}

func render(t testing.TB, spec aurora.Spec) []byte {
	t.Helper()
	text, err := spec.Template()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func resources(t testing.TB, text []byte) map[string]stackResource {
	t.Helper()
	var v struct{ Resources map[string]stackResource }
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	return v.Resources
}

// edit changes the resources of a template.
func edit(t *testing.T, text []byte, change func(resources map[string]any)) []byte {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	change(v["Resources"].(map[string]any))
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func firstDifference(a, b []byte) string {
	x, y := strings.Split(string(a), "\n"), strings.Split(string(b), "\n")
	for i := range min(len(x), len(y)) {
		if x[i] != y[i] {
			return fmt.Sprintf("line %d: %s\n     now: %s", i+1, x[i], y[i])
		}
	}
	return fmt.Sprintf("%d lines, now %d", len(x), len(y))
}
