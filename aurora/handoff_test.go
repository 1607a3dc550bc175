package aurora_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"testing"

	"github.com/aurorapgx/aurorapgx/aurora"
)

// deployedHandoff is what a deployed stack hands off.
func deployedHandoff(t *testing.T, spec aurora.Spec) (aurora.Handoff, map[string]string, []byte) {
	t.Helper()
	out, err := deployment.Deploy(render(t, spec))
	if err != nil {
		t.Fatal(err)
	}
	h, err := aurora.HandoffFromOutputs(out.Outputs)
	if err != nil {
		t.Fatal(err)
	}
	return h, out.Outputs, []byte(out.Resources["HandoffParameter"].Properties["Value"].(string))
}

func TestHandoffIsTheSameFromEverywhere(t *testing.T) {
	t.Parallel()
	for name, spec := range golden() {
		h, outputs, parameter := deployedHandoff(t, spec)
		fromSSM, err := aurora.ParseHandoff(parameter)
		if err != nil || !reflect.DeepEqual(fromSSM, h) {
			t.Errorf("%s: the parameter says %+v, the outputs %+v, %v", name, fromSSM, h, err)
		}
		for _, user := range h.Users {
			env, err := h.Env(user.Name)
			if err != nil {
				t.Fatal(err)
			}
			fromEnv, err := aurora.HandoffFromEnv(func(name string) string { return env[name] })
			want := h
			want.Users = []aurora.HandoffUser{user}
			if err != nil || !reflect.DeepEqual(fromEnv, want) {
				t.Errorf("%s: the environment says %+v, the outputs %+v, %v", name, fromEnv, want, err)
			}
		}
		env, err := h.Env("")
		if err != nil || env["DATABASE_URL"] != outputs["DatabaseUrl"] || env["DATABASE_READER_URL"] != outputs["DatabaseReaderUrl"] {
			t.Errorf("%s: %v, %v, %v", name, env, outputs, err)
		}
		if h.ReaderHost != "" && env["DATABASE_READER_URL"] == "" || h.ReaderHost == "" && name != "development" {
			t.Errorf("%s: readers at %q and %q", name, h.ReaderHost, env["DATABASE_READER_URL"])
		}
		text, err := json.Marshal(h)
		if err != nil || strings.Contains(string(text), "password") {
			t.Errorf("%s, %v", text, err)
		}
	}
}

func TestHandoffSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	h, outputs, parameter := deployedHandoff(t, golden()["secrets"])
	env, err := h.Env("migrate")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Host", "Region", "Database", "Auth", "Port", "Users", "ResourceId", "ClusterArn", "MasterSecretArn", "SecretArnApp"} {
		less := maps.Clone(outputs)
		delete(less, name)
		if _, err := aurora.HandoffFromOutputs(less); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	for _, name := range []string{"AURORA_HOST", "AURORA_REGION", "AURORA_PORT", "AURORA_USER", "AURORA_SECRET_ARN"} {
		if _, err := aurora.HandoffFromEnv(func(n string) string {
			if n == name {
				return ""
			}
			return env[n]
		}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	for _, text := range []string{"", "{}", "null", strings.Replace(string(parameter), `"secrets"`, `"kerberos"`, 1)} {
		if _, err := aurora.ParseHandoff([]byte(text)); err == nil {
			t.Errorf("%q is a hand-off", text)
		}
	}
	if _, err := h.Env("nobody"); err == nil {
		t.Error("an environment for nobody")
	}
	h.ReaderHost = ""
	if _, err := h.ReaderURL("app"); err == nil {
		t.Error("a URL for readers that are not there")
	}
}

// Who may pass the proxy by hears where the cluster is, and whoever asks, which users may.
func TestHandoffOfDirectAccess(t *testing.T) {
	t.Parallel()
	h, outputs, _ := deployedHandoff(t, golden()["direct"])
	if h.ClusterHost == "" || h.ClusterHost == h.Host || h.ClusterResourceID == h.ResourceID || h.Users[0].Direct || !h.Users[1].Direct {
		t.Errorf("%+v", h)
	}
	for user, direct := range map[string]string{"app": "", "migrate": "true"} {
		env, err := h.Env(user)
		if err != nil || env["AURORA_CLUSTER_HOST"] != h.ClusterHost || env["AURORA_DIRECT"] != direct {
			t.Errorf("%s: %v, %v", user, env, err)
		}
	}
	delete(outputs, "ClusterResourceId")
	if _, err := aurora.HandoffFromOutputs(outputs); err == nil || !strings.Contains(err.Error(), "lack ClusterResourceId;") {
		t.Error(err)
	}
}

func TestIAMPolicyNamesOneUser(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"early-production": `["arn:aws:rds-db:eu-west-1:123456789012:dbuser:prx-0123456789abcdef0/migrate"]`,
		"development":      `["arn:aws:rds-db:eu-west-1:123456789012:dbuser:cluster-ABCDEFGHIJKLMNOPQRSTUVWXYZ/migrate"]`,
		"direct": `["arn:aws:rds-db:eu-west-1:123456789012:dbuser:prx-0123456789abcdef0/migrate",` +
			`"arn:aws:rds-db:eu-west-1:123456789012:dbuser:cluster-ABCDEFGHIJKLMNOPQRSTUVWXYZ/migrate"]`,
		"secrets": `["arn:aws:secretsmanager:eu-west-1:123456789012:secret:orders/migrate-AbCdEf"]`,
	} {
		spec := golden()[name]
		h, _, _ := deployedHandoff(t, spec)
		text, err := h.IAMPolicy("migrate")
		if err != nil {
			t.Fatal(err)
		}
		var policy struct {
			Statement []struct{ Action, Resource []string }
		}
		if err := json.Unmarshal(text, &policy); err != nil {
			t.Fatal(err)
		}
		got, err := json.Marshal(policy.Statement[0].Resource)
		if err != nil || string(got) != want {
			t.Errorf("%s: %s, %v", name, got, err)
		}
		// And the template's managed policy says the same.
		out, err := deployment.Deploy(render(t, spec))
		if err != nil {
			t.Fatal(err)
		}
		managed, err := json.Marshal(out.Resources["ConnectMigrate"].Properties["PolicyDocument"])
		if err != nil || !sameJSON(t, managed, text) {
			t.Errorf("%s: the template says\n%s\nthe hand-off\n%s", name, managed, text)
		}
		if _, err := h.IAMPolicy("nobody"); err == nil {
			t.Errorf("%s: a policy for nobody", name)
		}
	}
}

func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal(a, &x); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &y); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}
