package aurora

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func rendered(t *testing.T, s Spec) []byte {
	t.Helper()
	text, err := s.Template()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// effects are "effect resource path" of all changes to resources, or of those of one type.
func effects(t *testing.T, old, now []byte, only ...string) string {
	t.Helper()
	changes, err := Diff(old, now)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, c := range changes {
		if c.Resource != "" && (len(only) == 0 || c.Type == only[0]) {
			all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s %s", c.Effect, c.Resource, strings.TrimPrefix(c.Path, "Properties."))))
		}
	}
	return strings.Join(all, "; ")
}

func TestDiffOfSpecs(t *testing.T) {
	t.Parallel()
	base := Spec{Name: "orders"}
	for _, tt := range []struct {
		name   string
		change func(*Spec)
		want   string // a part of what effects says
	}{
		{"nothing", func(*Spec) {}, ""},
		{"capacity", func(s *Spec) { s.Capacity.Max = 32 }, "update Cluster ServerlessV2ScalingConfiguration.MaxCapacity"},
		{"backup", func(s *Spec) { s.Backup.Days = 14 }, "update Cluster BackupRetentionPeriod"},
		{"database", func(s *Spec) { s.Database = "sales" }, "replace Cluster DatabaseName"},
		{"key", func(s *Spec) { s.KMSKey = "arn:aws:kms:eu-west-1:111122223333:key/0" }, "replace Cluster KmsKeyId"},
		{"a proxy gone", func(s *Spec) { s.Proxy.Off = true }, "delete Proxy"},
		{"a reader more", func(s *Spec) { s.Readers = []Reader{{}, {}} }, "create Instance3"},
		{"kept apart by case only", func(s *Spec) {
			s.Overrides = []Override{{"Cluster", "DBClusterIdentifier", "Orders"}}
		}, "update Cluster DBClusterIdentifier"},
		{"what hangs on the cluster", func(s *Spec) { s.Database = "sales" }, "replace Instance1 DBClusterIdentifier"},
		{"what hangs on the proxy", func(s *Spec) { s.Overrides = []Override{{"Proxy", "DBProxyName", "other"}} }, "replace ProxyTargets DBProxyName"},
	} {
		next := base
		tt.change(&next)
		got := effects(t, rendered(t, base), rendered(t, next))
		if tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// One group more than there are slots for adds one, and leaves the rules of the others alone.
func TestDiffOfASixthGroup(t *testing.T) {
	t.Parallel()
	six := []string{"sg-00000001", "sg-00000002", "sg-00000003", "sg-00000004", "sg-00000005", "sg-00000006"}
	old, now := Spec{}, Spec{}
	old.Network.ClientSecurityGroups, now.Network.ClientSecurityGroups = six[:5], six
	if got := effects(t, rendered(t, old), rendered(t, now)); got != "create FromClient6" {
		t.Error(got)
	}
}

// Agrees with the list of replacements, which looks at properties alone.
func TestDiffFindsWhatReplacementsFinds(t *testing.T) {
	t.Parallel()
	for _, a := range Stages() {
		for _, b := range Stages() {
			old, now := rendered(t, a.Spec), rendered(t, b.Spec)
			want, err := Replacements(old, now)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Diff(old, now)
			if err != nil {
				t.Fatal(err)
			}
			harmful := map[string]bool{}
			for _, c := range got {
				if c.Harmful() {
					harmful[c.Resource] = true
				}
			}
			for _, r := range want {
				if !harmful[r.ID] {
					t.Errorf("%s to %s: %s", a.Name, b.Name, r)
				}
			}
		}
	}
}

// Templates by hand, for what ours never have.
func TestDiffOfTemplates(t *testing.T) {
	t.Parallel()
	const cluster = `{"Resources":{"C":{"Type":"AWS::RDS::DBCluster","Properties":{"MaxCapacity":1,"List":[1,{"a":2.0}],"DatabaseName":{"Ref":"N"}}%s}}%s}`
	base := fmt.Sprintf(cluster, "", "")
	for _, tt := range []struct {
		name, old, now, want string
	}{
		{"numbers are numbers", base, strings.NewReplacer(":1,", ":1.0,", "2.0", "2").Replace(base), ""},
		{"a list is a whole", base, strings.Replace(base, `[1,`, `[2,`, 1), "update C List"},
		{"a function is a whole", base, strings.Replace(base, `"Ref":"N"`, `"Fn::Sub":"x"`, 1), "replace C DatabaseName"},
		{"another type", base, strings.Replace(base, "DBCluster", "DBInstance", 1), "replace C Type"},
		{"attributes only", base, fmt.Sprintf(cluster, `,"DependsOn":["X"]`, ""), "none C DependsOn"},
		{"outside resources", base, fmt.Sprintf(cluster, "", `,"Outputs":{"O":{"Value":1}}`), ""},
		{"a resource that is retained", fmt.Sprintf(cluster, `,"DeletionPolicy":"Retain"`, ""), `{"Resources":{"X":{"Type":"T"}}}`, "keep C; create X"},
		{"a resource that is gone", base, `{"Resources":{"X":{"Type":"T"}}}`, "delete C; create X"},
		{"as get-template prints it", `{"TemplateBody":` + base + `,"StagesAvailable":["Original"]}`, base, ""},
		{"as get-template prints text", `{"TemplateBody":` + quoted(base) + `}`, base, ""},
	} {
		if got := effects(t, []byte(tt.old), []byte(tt.now)); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	changes, err := Diff([]byte(base), []byte(fmt.Sprintf(cluster, "", `,"Outputs":{"O":{"Value":1}}`)))
	if err != nil || len(changes) != 1 || changes[0].Path != "Outputs" || changes[0].Effect != NoEffect {
		t.Errorf("outside resources: %+v, %v", changes, err)
	}
	for old, want := range map[string]string{
		"Resources:\n  C:\n": "it is no JSON", `{}`: "no Resources", `{"Resources":{"C":1}}`: "resource C is no object",
		`{"TemplateBody":"a: b"}`: "it is no JSON", `{"TemplateBody":1}`: "no Resources",
	} {
		if _, err := Diff([]byte(old), []byte(base)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "the deployed template") {
			t.Errorf("%q: %v, want %q", old, err, want)
		}
	}
}

func quoted(text string) string {
	raw, _ := json.Marshal(text)
	return string(raw)
}

// Every harmful change says what becomes of the data, where there is some.
func TestDiffSaysWhatRemains(t *testing.T) {
	t.Parallel()
	old, next := Spec{Name: "orders", Auth: Secrets}, Spec{Name: "sales"}
	for disposable, want := range map[bool]string{false: "a final snapshot is left", true: "All data in it is lost."} {
		old.Disposable = disposable
		changes, err := Diff(rendered(t, old), rendered(t, next))
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]string{}
		for _, c := range changes {
			if c.Harmful() && seen[c.Type] == "" {
				seen[c.Type] = c.Why
			}
		}
		for typ, part := range map[string]string{
			"AWS::RDS::DBCluster": want, "AWS::RDS::DBProxy": "clients are cut off", "AWS::SecretsManager::Secret": "values go with it",
			"AWS::RDS::DBProxyEndpoint": "cannot be changed",
		} {
			if !strings.Contains(seen[typ], part) {
				t.Errorf("%s: %q, want %q", typ, seen[typ], part)
			}
		}
	}
}

// A resource that leaves the template goes by one policy, one that is replaced by another.
func TestDiffGoesByThePolicyThatCounts(t *testing.T) {
	t.Parallel()
	const gone = ""
	for _, tt := range []struct{ old, now, want string }{
		{`"DeletionPolicy":"Retain"`, `"DeletionPolicy":"Retain"`, "All data in it is lost."},
		{`"DeletionPolicy":"Snapshot"`, `"DeletionPolicy":"Snapshot"`, "All data in it is lost."},
		{`"UpdateReplacePolicy":"Snapshot"`, `"UpdateReplacePolicy":"Snapshot"`, "a final snapshot is left"},
		{`"DeletionPolicy":"Delete","UpdateReplacePolicy":"Retain"`, `"UpdateReplacePolicy":"Retain"`, "The old one stays"},
		{`"UpdateReplacePolicy":"Retain"`, `"UpdateReplacePolicy":"Snapshot"`, "a final snapshot is left"},
		{`"UpdateReplacePolicy":"Retain"`, `"DependsOn":[]`, "All data in it is lost."},
		{`"UpdateReplacePolicy":"Retain"`, gone, "a final snapshot is left"},
		{`"DeletionPolicy":"Delete","UpdateReplacePolicy":"Retain"`, gone, "All data in it is lost."},
		{`"DeletionPolicy":"RetainExceptOnCreate"`, gone, "The old one stays"},
	} {
		const cluster = `{"Resources":{"C":{"Type":"AWS::RDS::DBCluster","Properties":{"DatabaseName":%q},%s},"X":{"Type":"T"}}}`
		next := `{"Resources":{"X":{"Type":"T"}}}`
		if tt.now != gone {
			next = fmt.Sprintf(cluster, "b", tt.now)
		}
		changes, err := Diff([]byte(fmt.Sprintf(cluster, "a", tt.old)), []byte(next))
		if err != nil || !strings.Contains(changes[len(changes)-1].Why+changes[0].Why, tt.want) {
			t.Errorf("%s to %s: %+v, %v; want %q", tt.old, tt.now, changes, err, tt.want)
		}
	}
}

// Groups that come and go at the end, or take another's place, are fine; those that move are not.
func TestDiffTellsOfGroupsThatMove(t *testing.T) {
	t.Parallel()
	const a, b, c = "sg-0000000a", "sg-0000000b", "sg-0000000c"
	for _, tt := range []struct {
		old, now []string
		moved    string
	}{
		{[]string{a, b}, []string{a, b, c}, ""},
		{[]string{a, b}, []string{a}, ""},
		{[]string{a, b}, []string{c, b}, ""},
		{[]string{a, b}, nil, ""},
		{[]string{a, b}, []string{b, a}, b},
		{[]string{a, b, c}, []string{b, c}, b},
		{[]string{a, b, c}, []string{a, c}, c},
	} {
		for _, network := range []func([]string) Network{
			func(groups []string) Network { return Network{ClientSecurityGroups: groups} },
			func(groups []string) Network { return Network{DirectSecurityGroups: groups} },
		} {
			// A user who is direct keeps the parameter where no group is left.
			spec := Spec{Users: []User{{Name: "app", Direct: true}}}
			old, now := spec, spec
			old.Network, now.Network = network(tt.old), network(tt.now)
			changes, err := Diff(rendered(t, old), rendered(t, now))
			if err != nil {
				t.Fatal(err)
			}
			moved := ""
			for _, change := range changes {
				if group, _, is := strings.Cut(change.Why, " changes its place, and EC2 refuses"); is && change.Doc != "" {
					moved = group
				}
			}
			if moved != tt.moved {
				t.Errorf("%v to %v: %q moved, want %q: %+v", tt.old, tt.now, moved, tt.moved, changes)
			}
		}
	}
}
