package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestProxyRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"no database", nil, "which database? Set $AURORAPGX_BACKEND"},
		{"no DSN", []string{"--backend", "postgres://app:hunter2/x@localhost:y/orders"}, "--backend is no connection string"},
		{"no DSN either", []string{"--backend", "host=localhost password=correct hunter2 battery"}, "--backend is no connection string"},
		{"a password", []string{"--backend", nowhere, "--user", "app=hunter2"}, "--user (app) has a password from what is neither env:VARIABLE nor file:PATH"},
		{"half a password", []string{"--backend", nowhere, "--md5-user", "app"}, "--md5-user (app) has no password; say where it is"},
		{"no name", []string{"--backend", nowhere, "--iam-user", "=env:X"}, "--iam-user has no name"},
		{"a key", []string{"--backend", nowhere, "--access-key", "hunter2"}, "--access-key is neither env nor file:PATH"},
		{"size", []string{"--backend", nowhere, "--max-connections", "0"}, "--max-connections is 0; write 1 or more"},
		{"rate", []string{"--backend", nowhere, "--iam-rate", "-1"}, "--iam-rate is -1; write 0 or more"},
		{"clock", []string{"--backend", nowhere, "--clock-scale", "NaN"}, "--clock-scale is NaN; write 1 or more"},
		{"faster clock", []string{"--backend", nowhere, "--clock-scale", "Inf"}, "--clock-scale is +Inf; write"},
		{"host", []string{"--backend", nowhere, "--host", "px.local:5432"}, `--host is "px.local:5432"; write the name alone`},
		{"time", []string{"--backend", nowhere, "--borrow-timeout", "5"}, `"5" is no time; write one such as 30s or 5m`},
		{"negative time", []string{"--backend", nowhere, "--idle-client-timeout", "-5s"}, "--idle-client-timeout is -5s; write 0s or more"},
		{"address", []string{"--backend", nowhere, "--listen", "5432"}, `--listen is "5432"; write HOST:PORT`},
		{"port", []string{"--backend", nowhere, "--status", ":http"}, `--status has port "http"; write a number`},
		{"level", []string{"--backend", nowhere, "--log-level", "loud"}, `--log-level is "loud"; write debug, info or warn`},
		{"keep what", []string{"--backend", nowhere, "--keep-ca-file"}, "--keep-ca-file needs a file to keep"},
		{"flag", []string{"--backned", nowhere}, `there is no flag --backned; did you mean "--backend"?`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := run(t, append([]string{"proxy"}, tt.args...)...)
			if r.code != exitUsage || r.stdout != "" || !strings.Contains(r.stderr, tt.want) {
				t.Errorf("exit code %d, stdout %q, stderr %q; want %q", r.code, r.stdout, r.stderr, tt.want)
			}
			if strings.Contains(r.stderr, "hunter2") {
				t.Errorf("the password is shown: %s", r.stderr)
			}
		})
	}
}

func TestProxySettingsFile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{`{"maxConections": 3}`, `there is no field "maxConections" here; did you mean "maxConnections"?`},
		{`{"users": [{"naem": "app"}]}`, `there is no field "naem" in users[0]; did you mean "name"?`},
		{`{"users": [{"name": "app"}]}`, "users[0] (app) has no password"},
		{`{"users": [{"name": "app", "auth": "kerberos"}]}`, `users[0] (app) has auth "kerberos"; write scram, md5 or iam`},
		{`{"users": [{"name": "app", "password": "hunter2", "passwordFrom": "env:X"}]}`, "users[0] (app) has both password and passwordFrom"},
		{`{"borrowTimeout": 5}`, `5 is no time; write one such as "30s" or "5m"`},
		{`{"borrowTimeout": "5"}`, `"5" is no time`},
		{`{"maxConnections": "5"}`, "maxConnections is a number here, not a JSON string"},
		{`{"maxConnections": -5}`, "maxConnections is -5; write 1 or more"},
		{`{"backend": "postgres://app:hunter2/x@localhost:y/orders"}`, "backend is no connection string"},
		{`{"status": "6433"}`, `status is "6433"; write HOST:PORT`},
		{"{\n\"status\": }", "line 2, column 11"},
	} {
		name := file(t, tt.text)
		r := run(t, "proxy", "--config", name, "--backend", nowhere)
		if r.code != exitFailed || r.stdout != "" || !strings.Contains(r.stderr, name+": ") || !strings.Contains(r.stderr, tt.want) || strings.Contains(r.stderr, "hunter2") {
			t.Errorf("%s: %+v, want %q", tt.text, r, tt.want)
		}
	}

	// Flags win, defaults fill in.
	s := settings(t, world{stdin: `{"maxConnections": 20, "borrowTimeout": "5s", "backend": "postgres://app@db/orders", "setLocalPins": true,
		"users": [{"name": "app", "password": "file's"}, {"name": "job", "auth": "iam"}]}`},
		"--config", "-", "--max-connections", "30", "--user=app=env:PW", "--md5-user=old=env:PW")
	want := defaultProxySettings()
	want.MaxConnections, want.BorrowTimeout, want.Backend, want.SetLocalPins = 30, duration(5*time.Second), "postgres://app@db/orders", true
	want.Users = []proxyUser{{Name: "app", Auth: "scram", PasswordFrom: "env:PW"}, {Name: "job", Auth: "iam"}, {Name: "old", Auth: "md5", PasswordFrom: "env:PW"}}
	if asJSON(t, s) != asJSON(t, want) {
		t.Errorf("%s\nwant %s", asJSON(t, s), asJSON(t, want))
	}
}

func settings(t *testing.T, w world, args ...string) *proxySettings {
	t.Helper()
	p := &program{strings.NewReader(w.stdin), io.Discard, io.Discard, func(name string) string { return w.env[name] }, false}
	s, err := p.proxySettings(args)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Each setting of the file has its flag, and the other way round.
func TestProxyFlagsAreFields(t *testing.T) {
	t.Parallel()
	p := &program{getenv: func(string) string { return "" }}
	f, _ := p.proxyFlags(defaultProxySettings())
	known := map[string]bool{"json": true, "config": true, "md5-user": true, "iam-user": true}
	var fields map[string]any
	if err := json.Unmarshal([]byte(asJSON(t, defaultProxySettings())), &fields); err != nil {
		t.Fatal(err)
	}
	for field := range fields {
		name := flagName(field)
		if field == "users" {
			name = "user"
		}
		if f.Lookup(name) == nil {
			t.Errorf("%s has no flag --%s", field, name)
		}
		known[name] = true
	}
	f.VisitAll(func(d *flag.Flag) {
		if !known[d.Name] {
			t.Errorf("--%s has no field", d.Name)
		}
	})
}

func TestProxySecrets(t *testing.T) {
	t.Parallel()
	env := map[string]string{"AURORAPGX_BACKEND": nowhere, "AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "hunter3", "PW": "hunter4"}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--user", "app=env:NOPE"}, "user app: the environment variable NOPE is not set; set it to the password"},
		{[]string{"--user", "app=file:" + file(t, "\n")}, " is empty; write the password into it"},
		{[]string{"--user", "app=file:/does/not/exist"}, "user app: open /does/not/exist"},
		{[]string{"--access-key", "file:" + file(t, "[default]\nregion = x\n")}, "has no access key in a profile [default]"},
		{[]string{"--ca-file", file(t, "somebody's")}, "which no aurorapgx proxy has written"},
		{[]string{"--ca-file", filepath.Join(t.TempDir(), "no", "ca.pem")}, "caFile: "},
	} {
		r := world{env: env}.run(t, append([]string{"proxy", "--listen=:0", "--status=:0"}, tt.args...)...)
		if r.code != exitFailed || r.stdout != "" || !strings.Contains(r.stderr, tt.want) || strings.Contains(r.stderr, "hunter") {
			t.Errorf("%q: %+v, want %q", tt.args, r, tt.want)
		}
	}

	// A key file is made once, for its owner only, and stays.
	key := filepath.Join(t.TempDir(), "credentials")
	var keys []string
	for range 2 {
		startProxy(t, world{env: env}, "--access-key", "file:"+key).stop()
		data, err := os.ReadFile(key)
		info, statErr := os.Stat(key)
		if err != nil || statErr != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Fatalf("%v, %v, %v", err, statErr, info)
		}
		keys = append(keys, string(data))
	}
	if keys[0] != keys[1] || !strings.Contains(keys[0], "aws_secret_access_key = ") {
		t.Error("the key is another one at the second start")
	}
	// One from the environment is in no file.
	if s := startProxy(t, world{env: env}, "--access-key", "env"); s.KeyFile != "" || strings.Contains(s.IAMToken, "FILE") || strings.Contains(asJSON(t, s.proxySummary), "hunter") {
		t.Errorf("%+v", s.proxySummary)
	}
	// The CA file of an earlier run is replaced.
	ca := filepath.Join(t.TempDir(), "ca.pem")
	startProxy(t, world{env: env}, "--ca-file", ca, "--keep-ca-file").stop()
	before, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	s := startProxy(t, world{env: env}, "--ca-file", ca)
	after, err := os.ReadFile(ca)
	if err != nil || bytes.Equal(before, after) || s.CAFile != ca {
		t.Errorf("%v, %s", err, s.CAFile)
	}
}

func TestProxyWarnsOfAPasswordInTheProcessList(t *testing.T) {
	t.Parallel()
	s := startProxy(t, world{}, "--backend", nowhere, "--log-level", "warn")
	if log := s.stderr.String(); !strings.Contains(log, "can read the password in --backend") || strings.Contains(log, "hunter2") {
		t.Errorf("log: %s", log)
	}
}

// The settings that PROXY.md shows are settings, and all of them but for those that depend on the place.
func TestProxyPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("PROXY.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```json\n")
	text, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("no settings in PROXY.md")
	}
	settings(t, world{stdin: text, env: map[string]string{"AURORAPGX_BACKEND": nowhere}}, "--config", "-")
	var shown, all map[string]any
	if err := errors.Join(json.Unmarshal([]byte(text), &shown), json.Unmarshal([]byte(asJSON(t, defaultProxySettings())), &all)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"backend", "host", "region", "endpointName", "endToEndIam", "allowPlaintext"} {
		delete(all, name)
	}
	for name := range all {
		if _, ok := shown[name]; !ok {
			t.Errorf("%s is not shown", name)
		}
	}
	// The command of the compose file, as far as a run that ends at once can tell.
	_, rest, _ = strings.Cut(string(page), "command: >\n")
	command, _, _ := strings.Cut(rest, "    environment:")
	settings(t, world{env: map[string]string{"AURORAPGX_BACKEND": nowhere}}, strings.Fields(command)[2:]...)
}

func TestReachable(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"[::]:6433": "localhost:6433", "0.0.0.0:1": "localhost:1", "127.0.0.1:2": "127.0.0.1:2", "10.0.0.5:3": "10.0.0.5:3",
	} {
		if got := reachable(addr); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
	for dsn, want := range map[string]bool{
		"postgres://app:a%40b@db/x": true, "host=db password=x": true, "postgres://db:5432/x?sslpassword=y": true,
		"postgres://app@db:5432/x": false, "host=db user=app": false, "postgres://db:5432/x?application_name=a@b": false,
	} {
		if got := hasPassword(dsn); got != want {
			t.Errorf("%s: %t", dsn, got)
		}
	}
}
