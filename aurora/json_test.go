package aurora_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aurorapgx/aurorapgx/aurora"
)

func TestSpecAsJSON(t *testing.T) {
	t.Parallel()
	spec, err := aurora.ParseSpec([]byte(`{
		"name": "orders",
		"capacity": {"max": 8, "autoPause": "5m"},
		"proxy": {"off": true, "borrowTimeout": "1m30s"},
		"auth": "secrets",
		"rotation": {"every": "30d"},
		"users": [{"name": "app", "statementTimeout": "-1s"}],
		"overrides": [{"resource": "Cluster", "property": "Port", "value": 5433}]
	}`))
	if err != nil {
		t.Fatal(err)
	}
	if spec.Capacity.AutoPause != 5*time.Minute || spec.Proxy.BorrowTimeout != 90*time.Second || spec.Rotation.Every != 720*time.Hour || spec.Users[0].StatementTimeout != -time.Second {
		t.Errorf("%+v", spec)
	}
	text, err := json.Marshal(spec)
	if err != nil || !strings.Contains(string(text), `"every":"30d"`) || !strings.Contains(string(text), `"autoPause":"5m0s"`) {
		t.Errorf("%s, %v", text, err)
	}
	again, err := aurora.ParseSpec(text)
	if err != nil || !reflect.DeepEqual(again, spec) {
		t.Errorf("%+v, %v", again, err)
	}
	growth := aurora.Growth()
	if err := json.Unmarshal([]byte(`{"name": "orders"}`), &growth); err != nil || growth.Name != "orders" || growth.Capacity.Max != 16 {
		t.Errorf("a preset was not read over: %+v, %v", growth, err)
	}
	for text, want := range map[string]string{
		`{"capacty": {}}`:                           "capacty",
		`{"capacity": {"maximum": 8}}`:              "maximum",
		`{"capacity": {"autoPause": 300}}`:          "capacity.autoPause: 300 is no time",
		`{"users": [{"statementTimeout": "soon"}]}`: `users[0].statementTimeout: "soon" is no time`,
		`{"capacity": {"max": "8"}}`:                "max",
		`[]`:                                        "",
		``:                                          "",
	} {
		if _, err := aurora.ParseSpec([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// Presets are complete and have nothing to warn of that their purpose does not explain.
func TestWarnings(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		spec aurora.Spec
		want []string
	}{
		{"development", aurora.Development(), []string{"Proxy.Off"}},
		{"early production", aurora.EarlyProduction(), []string{"Capacity.Min", "Alarms.TopicARN"}},
		{"scale", aurora.Scale(), []string{"Alarms.TopicARN"}},
		{"engine", aurora.Spec{Engine: "17.12", Capacity: aurora.Capacity{Min: 2}}, []string{"Engine", "Alarms.TopicARN"}},
		{"everything off", aurora.Spec{
			Engine: "18.6", DataAPI: true, WriterOnly: true, Capacity: aurora.Capacity{Min: 2}, Alarms: aurora.Alarms{Off: true}, Backup: aurora.Backup{Days: 1},
			Proxy: aurora.Proxy{Off: true, DebugLogging: true}, Rotation: aurora.Rotation{Off: true},
		}, []string{"DataAPI", "WriterOnly", "Proxy.Off", "Proxy.DebugLogging", "Proxy", "Rotation", "Alarms.Off", "Backup.Days"}},
		{"past no proxy", aurora.Spec{WriterOnly: true, Disposable: true, Alarms: aurora.Alarms{Off: true}, Proxy: aurora.Proxy{Off: true}, Auth: aurora.Secrets,
			Capacity: aurora.Capacity{Min: 2}, Network: aurora.Network{DirectSecurityGroups: []string{"sg-01234567"}}}, []string{"Network.DirectSecurityGroups"}},
		{"what users have", aurora.Spec{Capacity: aurora.Capacity{Min: 2}, Proxy: aurora.Proxy{Session: map[string]string{
			"statement_timeout": "5s", "idle_in_transaction_session_timeout": "1min", "search_path": "app",
		}}}, []string{`Proxy.Session["idle_in_transaction_session_timeout"]`, `Proxy.Session["statement_timeout"]`, "Alarms.TopicARN"}},
		{"secrets", aurora.Spec{Auth: aurora.Secrets, BootstrapAtDeploy: true, Capacity: aurora.Capacity{Min: 2}, Rotation: aurora.Rotation{Off: true}}, []string{"Rotation.Off", "Rotation", "Alarms.TopicARN"}},
	} {
		var got []string
		for _, w := range test.spec.Warnings() {
			got = append(got, w.Field)
			if w.Reason == "" || !strings.HasPrefix(w.Doc, "https://") {
				t.Errorf("%s: %+v", test.name, w)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: %q, should be %q", test.name, got, test.want)
		}
	}
}

func TestDefaultsShareNothing(t *testing.T) {
	t.Parallel()
	spec := golden()["secrets"]
	spec.Users = []aurora.User{{Name: "app"}}
	spec.Network.DirectSecurityGroups = []string{"sg-01234567"}
	spec.Proxy.Session = map[string]string{"search_path": "a"}
	full := spec.WithDefaults()
	full.Users[0].Name, full.Readers[0].Tier, full.Tags["team"], full.Network.Subnets[0], full.Proxy.Session["search_path"] = "x", 9, "x", "x", "x"
	full.Network.DirectSecurityGroups[0] = "x"
	if spec.Users[0].Name != "app" || spec.Readers[0].Tier != 1 || spec.Tags["team"] != "orders" || spec.Network.Subnets[0] == "x" || spec.Network.DirectSecurityGroups[0] == "x" || spec.Proxy.Session["search_path"] != "a" {
		t.Errorf("the original changed: %+v", spec)
	}
	if again := full.WithDefaults(); !reflect.DeepEqual(again, full) {
		t.Errorf("defaults of defaults differ: %+v", again)
	}
}

func TestStageByName(t *testing.T) {
	t.Parallel()
	for _, stage := range aurora.Stages() {
		if got, err := aurora.StageByName(stage.Name); err != nil || got.Title != stage.Title {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if _, err := aurora.StageByName("prod"); err == nil || !strings.Contains(err.Error(), "early-production") {
		t.Error(err)
	}
}
