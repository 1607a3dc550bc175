package main

// The verbs that take a spec: where it comes from, and what they say of it.

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aurorapgx/aurorapgx/aurora"
)

var update = flag.Bool("update", false, "write aurora/COSTS.md anew")

// file writes a file for a test.
func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file.json")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return v
}

func TestRender(t *testing.T) {
	t.Parallel()
	for _, stage := range aurora.Stages() {
		want, err := stage.Spec.Template()
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got := run(t, "render", "--stage", stage.Name).ok(t); got != string(want) {
				t.Errorf("%s: not the template of the stage", stage.Name)
			}
		}
	}
	r := run(t, "render", "--spec", file(t, `{"capacity": {"max": 300}}`))
	if r.code != exitFailed || r.stdout != "" || !strings.Contains(r.stderr, "the spec is not valid:\n  - Capacity.Max: it is 300") {
		t.Errorf("%+v", r)
	}
}

// A file over a stage changes what it names and nothing else; a list is a whole.
func TestSpecSources(t *testing.T) {
	t.Parallel()
	const changes = `{"name": "orders", "capacity": {"max": 12}, "readers": [{}, {"tier": 5}], "users": [{"name": "api", "statementTimeout": "30s"}]}`
	want := aurora.EarlyProduction()
	want.Name, want.Capacity.Max, want.Readers = "orders", 12, []aurora.Reader{{}, {Tier: 5}}
	want.Users = []aurora.User{{Name: "api", StatementTimeout: 30e9}}
	template, err := want.Template()
	if err != nil {
		t.Fatal(err)
	}
	got := world{stdin: changes}.run(t, "render", "--spec", "-", "--stage", "early-production").ok(t)
	if got != string(template) {
		t.Error("not the template of the stage with the changes")
	}
	if got := run(t, "render", "--stage=early-production", "-spec="+file(t, changes)).ok(t); got != string(template) {
		t.Error("from a file: another template")
	}

	// Elements of a list do not inherit from those they take the place of.
	spec := aurora.Spec{Readers: []aurora.Reader{{Tier: 7}}, Users: []aurora.User{{Name: "a", Access: aurora.Owner}}}
	if err := decodeSpec([]byte(`{"readers": [{}], "users": [{"name": "b"}]}`), &spec); err != nil || spec.Readers[0].Tier != 0 || spec.Users[0].Access != "" {
		t.Errorf("%+v, %v", spec, err)
	}
}

func TestWrongSpecs(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]string{
		`{"capcity": {}}`:                     `there is no field "capcity" here; did you mean "capacity"?`,
		`{"capacity": {"maximum": 4}}`:        `there is no field "maximum" in capacity; did you mean "max"?`,
		`{"users": [{}, {"acces": "owner"}]}`: `there is no field "acces" in users[1]; did you mean "access"?`,
		`{"capacity": {"zzzzzz": 4}}`:         `there is no field "zzzzzz" in capacity; there are min, max, autoPause`,
		`{"capacity": {"max": "4"}}`:          `capacity.max is a number, not a JSON string`,
		`{"capacity": 4}`:                     `capacity is a object, not a JSON number`,
		`{"capacity": {"autoPause": "soon"}}`: `capacity.autoPause: "soon" is no time`,
		"{\"name\": \"x\",\n  \"engine\": }":  `line 2, column 13: invalid character '}'`,
		`{"name": "x"} {}`:                    `line 1, column 15: something follows the JSON object`,
		`[]`:                                  `the spec is no JSON object`,
		``:                                    `no JSON`,
	} {
		r := world{stdin: spec}.run(t, "render", "--spec", "-")
		if r.code != exitFailed || r.stdout != "" || !strings.Contains(r.stderr, "aurorapgx: standard input: ") || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: %+v, want %q", spec, r, want)
		}
	}
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"render"}, exitUsage, "which spec? Give --stage NAME, --spec FILE or both"},
		{[]string{"validate", "--stage", "groth"}, exitUsage, `there is no stage "groth"; there are development, early-production, growth, scale; did you mean "growth"?`},
		{[]string{"explain", "--spec", "/no/such/file"}, exitFailed, "/no/such/file"},
		{[]string{"sql", "--stage", "growth", "--json=no"}, exitUsage, "invalid boolean value"},
	} {
		if r := run(t, tt.args...); r.code != tt.code || r.stdout != "" || !strings.Contains(r.stderr, tt.want) {
			t.Errorf("%q: %+v", tt.args, r)
		}
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	got := run(t, "validate", "--stage", "growth").ok(t)
	if !strings.Contains(got, "warning  Alarms.TopicARN: nobody hears") || !strings.Contains(got, "\nvalid: 0 errors, 1 warning\n") {
		t.Error(got)
	}
	wrong := file(t, `{"capacity": {"max": 300, "autoPause": "5m"}}`)
	r := run(t, "validate", "--spec", wrong)
	for _, want := range []string{"error    Capacity.Max: it is 300", "error    Capacity.AutoPause: ", "https://docs.aws.amazon.com/", "not valid: 2 errors"} {
		if r.code != exitFailed || r.stderr != "" || !strings.Contains(r.stdout, want) {
			t.Errorf("%+v, want %q", r, want)
		}
	}
	r = run(t, "validate", "--json", "--spec", wrong)
	v := decode[validation](t, r.stdout)
	if r.code != exitFailed || v.Valid || len(v.Problems) != 2 || v.Problems[0].Rule == "" || v.Spec.Database != "app" {
		t.Errorf("%+v", v)
	}
	v = decode[validation](t, run(t, "validate", "--json", "--stage", "scale").ok(t))
	if !v.Valid || v.Problems == nil || v.Warnings == nil || v.Spec.Capacity.Max != 32 {
		t.Errorf("%+v", v)
	}
}

// Every resource of the template, with a reason and a page.
func TestExplain(t *testing.T) {
	t.Parallel()
	for _, stage := range aurora.Stages() {
		template := decode[struct{ Resources map[string]any }](t, run(t, "render", "--stage", stage.Name).ok(t))
		all := decode[[]aurora.Explanation](t, run(t, "explain", "--json", "--stage", stage.Name).ok(t))
		text := run(t, "explain", "--stage", stage.Name).ok(t)
		for _, r := range all {
			if r.Why == "" || !strings.HasPrefix(r.Doc, "https://") || !strings.Contains(text, r.ID+"  "+r.Type+"\n    "+r.Why+"\n    "+r.Doc+"\n") {
				t.Errorf("%+v", r)
			}
			delete(template.Resources, r.ID)
		}
		if len(template.Resources) > 0 {
			t.Errorf("%s: not explained: %v", stage.Name, template.Resources)
		}
	}
}

func TestSQL(t *testing.T) {
	t.Parallel()
	want, err := aurora.BootstrapSQL(aurora.Growth())
	if err != nil {
		t.Fatal(err)
	}
	if got := run(t, "sql", "--stage", "growth").ok(t); got != want {
		t.Error("not the bootstrap of the stage")
	}
	if got := decode[map[string]string](t, run(t, "sql", "--json", "--stage", "growth").ok(t)); got["sql"] != want || got["database"] != "app" {
		t.Errorf("%v", got)
	}
	const password = "s3cret-Passw0rd"
	secrets := file(t, `{"auth": "secrets"}`)
	got := world{stdin: `{"app": "` + password + `"}`}.run(t, "sql", "--spec", secrets, "--passwords", "-").ok(t)
	if strings.Contains(got, password) || !strings.Contains(got, `ALTER ROLE "app" PASSWORD 'SCRAM-SHA-256$`) {
		t.Error("no verifier, or the password itself:\n", got)
	}
	for stdin, want := range map[string]string{
		`{"ap": "` + password + `"}`:    `a password was given for "ap"`,
		`{"app": "` + password + `ü"}`:  "characters other than printable ASCII",
		`{"app": ["` + password + `"]}`: "standard input has to be a JSON object of user names and passwords",
		`{"app": ` + password + `}`:     "standard input has to be a JSON object of user names and passwords",
	} {
		r := world{stdin: stdin}.run(t, "sql", "--spec", secrets, "--passwords", "-")
		if r.code != exitFailed || r.stdout != "" || !strings.Contains(r.stderr, want) || strings.Contains(r.stderr, password) {
			t.Errorf("%+v, want %q", r, want)
		}
	}
	if r := run(t, "sql", "--spec", "-", "--passwords", "-"); r.code != exitUsage {
		t.Errorf("%+v", r)
	}
}

func TestBudget(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args string
		code int
		want []string
	}{
		{"--stage growth", exitOK, []string{"max_connections  3360 on each instance\n", "proxy's share    90 %", "Give --client NAME=TASKS"}},
		{"--stage growth --client api=20 --client job=4x2 --client report=3@readers", exitOK, []string{"api        20             115      2300\n", "report      3             775      2325  readers"}},
		{"--stage early-production", exitOK, []string{"1669 on each instance\n"}},
		{"--stage development --client dev=1", exitOK, []string{"400 on each instance (interpolated: AWS documents no figure for this maximum)", "clients' share   90 %"}},
		{"--spec CAPPED", exitOK, []string{"2000 on each instance: a minimum of 0 or 0.5 ACU keeps it there\n"}},
		{"--stage growth --client fn=3000", exitOK, []string{"tight (writer): a peak may use 3000 of 3024 connections"}},
		{"--stage growth --client fn=4000", exitFailed, []string{"oversubscribed (writer): when all pools are busy, 976 transactions wait for a connection, up to 30s (BorrowTimeout)"}},
		{"--stage development --client fn=400", exitFailed, []string{"40 connects are refused with SQLSTATE 53300"}},
	} {
		args := strings.Fields("budget " + strings.Replace(tt.args, "CAPPED", file(t, `{}`), 1))
		r := run(t, args...)
		for _, want := range tt.want {
			if r.code != tt.code || r.stderr != "" || !strings.Contains(r.stdout, want) {
				t.Errorf("%s: %+v, want %q", tt.args, r, want)
			}
		}
	}
	b := decode[aurora.Budget](t, run(t, "budget", "--json", "--stage", "scale", "--client", "api=10x20").ok(t))
	if b.MaxConnections != 5000 || !b.Documented || b.Writer.Demand != 200 {
		t.Errorf("%+v", b)
	}
	for _, client := range []string{"api", "api=", "=3", "api=many", "api=3x", "api=3@reader"} {
		if r := run(t, "budget", "--stage", "growth", "--client", client); r.code != exitUsage || !strings.Contains(r.stderr, "write NAME=TASKS") {
			t.Errorf("%s: %+v", client, r)
		}
	}
	if r := run(t, "budget", "--stage", "development", "--client", "r=1@readers"); r.code != exitFailed || !strings.Contains(r.stderr, "the spec has none") {
		t.Errorf("%+v", r)
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	deployed := file(t, run(t, "render", "--stage", "early-production").ok(t))
	if got := run(t, "diff", deployed, "--stage", "early-production").ok(t); got != "no difference\n" {
		t.Error(got)
	}
	r := run(t, "diff", "--stage", "growth", deployed)
	if r.code != exitOK || !strings.Contains(r.stdout, "update   Cluster ServerlessV2ScalingConfiguration.MaxCapacity: 8 -> 16\n") || strings.Contains(r.stdout, "replace or delete") {
		t.Errorf("%+v", r)
	}
	renamed := file(t, `{"name": "orders"}`)
	r = run(t, "diff", "--spec", renamed, deployed)
	for _, want := range []string{"replace  Cluster DBClusterIdentifier: \"app\" -> \"orders\"\n", "a final snapshot is left", "aws-resource-rds-dbcluster.html", "of them replace or delete something that exists"} {
		if r.code != exitFailed || r.stderr != "" || !strings.Contains(r.stdout, want) {
			t.Errorf("%+v, want %q", r, want)
		}
	}
	r = run(t, "diff", "--json", "--spec", renamed, deployed)
	changes := decode[[]aurora.Change](t, r.stdout)
	if r.code != exitFailed || len(changes) == 0 || changes[0].Resource == "" {
		t.Errorf("%d, %+v", r.code, changes)
	}
	if got := run(t, "diff", "--json", "--stage", "early-production", deployed).ok(t); got != "[]\n" {
		t.Error(got)
	}
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"diff", "--stage", "growth"}, exitUsage, "which template is deployed?"},
		{[]string{"diff", "--spec", "-", "-"}, exitUsage, "cannot both be standard input"},
		{[]string{"diff", "--stage", "growth", "-"}, exitFailed, "standard input: aurora: the deployed template: it is no JSON"},
	} {
		if r := (world{stdin: "Resources:"}).run(t, tt.args...); r.code != tt.code || !strings.Contains(r.stderr, tt.want) {
			t.Errorf("%q: %+v", tt.args, r)
		}
	}
}

func TestCost(t *testing.T) {
	t.Parallel()
	got := run(t, "cost", "--stage", "early-production").ok(t)
	for _, want := range []string{
		"US dollars a month, us-east-1, prices as of " + aurora.PricesAsOf, "RDS Proxy            87.60     87.60   175.20  8 to 16 ACU x $0.015 x 730 h\n",
		"RDS Proxy: charged for 8 ACU at least: $87.60 where the 1 ACU of the instances would come to $10.95", "Assumed:", "Not included:", "https://aws.amazon.com/rds/proxy/pricing/",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s\nwant %q", got, want)
		}
	}
	e := decode[aurora.Estimate](t, run(t, "cost", "--json", "--stage", "growth", "--average-acu", "3", "--reader-acu=2.5", "--storage-gb", "100", "--region", "eu-west-2").ok(t))
	if e.Region != "eu-west-2" || e.Items[0].Expected != 3*0.14*730 || e.Items[0].Name != "Writer" {
		t.Errorf("%+v", e)
	}
	prices := file(t, `{"acuHour": 1}`)
	e = decode[aurora.Estimate](t, run(t, "cost", "--json", "--stage", "growth", "--prices", prices).ok(t))
	if e.Items[0].Floor != 2*730 || e.PricesAsOf != aurora.PricesAsOf+", changed by "+prices {
		t.Errorf("%+v", e)
	}
	// Every price there is, some of them 0, makes a region of one's own.
	own := `{"acuHour": 1, "acuHourIOOptimized": 1, "storageGBMonth": 0, "storageGBMonthIOOptimized": 1, "ioMillion": 0, "BackupGBMonth": 1,
		"proxyACUHour": 0, "proxyMinimumACU": 8, "endpointAZHour": 0, "secretMonth": 0, "alarmMonth": 0`
	e = decode[aurora.Estimate](t, world{stdin: own + `, "dashboardMonth": 0}`}.run(t, "cost", "--json", "--stage", "growth", "--region", "eu-west-9", "--prices", "-").ok(t))
	if e.Region != "eu-west-9" || e.Items[0].Floor != 2*730 || e.PricesAsOf != "changed by standard input" {
		t.Errorf("%+v", e)
	}
	for _, tt := range []struct {
		args  string
		stdin string
		code  int
		want  string
	}{
		{"--stage growth --region eu-west-9", "", exitFailed, `no prices for region "eu-west-9": the table has eu-west-2 and us-east-1`},
		{"--stage growth --prices -", `{"acuHuor": 1}`, exitFailed, `there is no field "acuHuor" here; did you mean "acuHour"?`},
		{"--stage growth --prices -", `{"acuHour": "1"}`, exitFailed, `acuHour is a number here, not a JSON string`},
		{"--stage growth --region eu-west-9 --prices -", own + "}", exitFailed, "so every price is needed; write dashboardMonth as well"},
		{"--stage growth --region eu-west-9 --prices -", own + `, "dashboardMonth": null}`, exitFailed, "write dashboardMonth as well"},
		{"--stage growth --region eu-west-9 --prices -", `{"acuHour": 1, "proxyACUHour": 1, "storageGBMonth": 1}`, exitFailed,
			"write acuHourIOOptimized, storageGBMonthIOOptimized, ioMillion, backupGBMonth, proxyMinimumACU, endpointAZHour, secretMonth, alarmMonth, dashboardMonth as well"},
		{"--stage growth --average-acu 99", "", exitFailed, "cannot average 99 ACU"},
		{"--stage growth --markdown", "", exitUsage, "--markdown goes with --stage all"},
		{"--stage all --spec x.json", "", exitUsage, "--stage all takes no --spec"},
	} {
		r := world{stdin: tt.stdin}.run(t, strings.Fields("cost "+tt.args)...)
		if r.code != tt.code || r.stdout != "" || !strings.Contains(r.stderr, tt.want) {
			t.Errorf("%s: %+v, want %q", tt.args, r, tt.want)
		}
	}
}

// The stages beside the plan: on a terminal, as JSON, and in the page, which is up to date.
func TestCostOfAllStages(t *testing.T) {
	t.Parallel()
	got := run(t, "cost", "--stage", "all").ok(t)
	for _, want := range []string{
		"Development       0.5-2 ACU        ~$50   46.20     74.48   179.60\n",
		"Early production  0.5-8 ACU   ~$100-300  193.10    458.32  1600.12\n",
		"Growth            2-16 ACU   ~$300-1000  455.90    966.40  3176.92\n",
		"Scale             4-32 ACU       $1000+  806.30   1912.48  6330.52\n",
		"It did not have: reader $43.80, RDS Proxy $87.60,",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s\nwant %q", got, want)
		}
	}
	if all := decode[[]aurora.StageCost](t, run(t, "cost", "--stage", "all", "--json").ok(t)); len(all) != 4 || all[1].Estimate.Total.Floor == 0 {
		t.Errorf("%+v", all)
	}
	page := run(t, "cost", "--stage", "all", "--markdown").ok(t)
	const path = "../../aurora/COSTS.md"
	if *update {
		if err := os.WriteFile(path, []byte(page), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(committed, []byte(page)) {
		t.Errorf("aurora/COSTS.md is out of date (%v): go run ./cmd/aurorapgx cost --stage all --markdown > aurora/COSTS.md", err)
	}
}
