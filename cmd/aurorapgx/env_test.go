package main

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/aurorapgx/aurorapgx/aurora"
)

// stackOutputs are those of a deployed stack, with values that a shell would trip over.
func stackOutputs() map[string]string {
	return map[string]string{
		"Region": "eu-west-1", "Host": "orders.proxy-abc.eu-west-1.rds.amazonaws.com",
		"ReaderHost": "orders-read-only.endpoint.proxy-abc.eu-west-1.rds.amazonaws.com",
		"Port":       "5432", "Database": "orders", "Auth": "iam", "ResourceId": "prx-0123",
		"ClusterArn":      "arn:aws:rds:eu-west-1:111122223333:cluster:orders",
		"MasterSecretArn": "arn:aws:secretsmanager:eu-west-1:111122223333:secret:rds!cluster-'$x`",
		"Users":           "app,migrate", "PolicyArnApp": "arn:aws:iam::111122223333:policy/app", "PolicyArnMigrate": "arn:aws:iam::111122223333:policy/migrate",
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// What AWS's tools print of a stack, in all forms, comes to the same environment.
func TestEnv(t *testing.T) {
	t.Parallel()
	outputs := stackOutputs()
	h, err := aurora.HandoffFromOutputs(outputs)
	if err != nil {
		t.Fatal(err)
	}
	var list []map[string]string
	for key, value := range outputs {
		list = append(list, map[string]string{"OutputKey": key, "OutputValue": value, "Description": "what it is"})
	}
	for name, input := range map[string]any{
		"describe-stacks":                   map[string]any{"Stacks": []any{map[string]any{"StackName": "orders", "Outputs": list}}},
		"describe-stacks --query Stacks[0]": map[string]any{"StackName": "orders", "Outputs": list},
		"the outputs alone":                 list,
		"a map":                             outputs,
		"get-parameter":                     map[string]any{"Parameter": map[string]any{"Name": "/aurora/orders", "Value": asJSON(t, h)}},
		"the parameter's value":             h,
	} {
		for _, user := range []string{"", "app", "migrate"} {
			want, err := h.Env(user)
			if err != nil {
				t.Fatal(err)
			}
			got := decode[map[string]string](t, world{stdin: asJSON(t, input)}.run(t, "env", "--json", "--user", user).ok(t))
			if asJSON(t, got) != asJSON(t, want) {
				t.Errorf("%s, user %q: %v\nwant %v", name, user, got, want)
			}
		}
	}

	// A shell reads the lines as they were meant.
	lines := run(t, "env", file(t, asJSON(t, outputs)), "--user=app", "--export").ok(t)
	script := lines + `printf '%s\n' "$DATABASE_URL" "$AURORA_MASTER_SECRET_ARN"`
	out, err := exec.CommandContext(t.Context(), "sh", "-c", script).Output()
	if want := "postgres://app@" + outputs["Host"] + "/orders\n" + outputs["MasterSecretArn"] + "\n"; err != nil || string(out) != want {
		t.Errorf("%q, %v; want %q", out, err, want)
	}
	if plain := run(t, "env", file(t, asJSON(t, outputs))).ok(t); strings.ReplaceAll(lines, "export ", "") != plain {
		t.Errorf("without --export:\n%s", plain)
	}
}

func TestEnvRefuses(t *testing.T) {
	t.Parallel()
	good := asJSON(t, stackOutputs())
	for _, tt := range []struct{ stdin, user, want string }{
		{good, "nobody", `there is no user "nobody"`},
		{`{"Stacks": [{}, {}]}`, "", "there are several stacks in it"},
		{`{"Stacks": []}`, "", "standard input: "},
		{`{"Stacks": [{"Outputs": []}]}`, "", "is this a stack of a template made by this package?"},
		{`{"Host": "x"}`, "", "the stack outputs lack Region"},
		{`Stacks:`, "", "standard input: line 1, column 1"},
	} {
		if r := (world{stdin: tt.stdin}).run(t, "env", "--user", tt.user); r.code != exitFailed || r.stdout != "" || !strings.Contains(r.stderr, tt.want) {
			t.Errorf("%s: %+v, want %q", tt.stdin, r, tt.want)
		}
	}
}
