package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

// nowhere is the DSN of a database that is not there.
const nowhere = "postgres://app:hunter2@127.0.0.1:1/orders"

// started is a run of the verb proxy that goes on.
type started struct {
	proxySummary

	stderr *lockedBuffer
	stop   func() result
}

// startProxy runs the verb, on free ports and in JSON, until stop is called.
func startProxy(t *testing.T, w world, args ...string) *started {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, out := io.Pipe()
	var stderr lockedBuffer
	p := &program{strings.NewReader(w.stdin), out, &stderr, func(name string) string { return w.env[name] }, false}
	code := make(chan int, 1)
	go func() {
		code <- p.run(ctx, append([]string{"proxy", "--listen", ":0", "--status", ":0", "--json"}, args...))
		_ = out.Close()
	}()
	s := &started{stderr: &stderr}
	dec := json.NewDecoder(r)
	if err := dec.Decode(s); err != nil {
		cancel()
		t.Fatalf("no summary: %v\n%s", err, stderr.String())
	}
	s.stop = sync.OnceValue(func() result {
		cancel()
		rest, _ := io.ReadAll(io.MultiReader(dec.Buffered(), r))
		return result{<-code, strings.TrimSpace(string(rest)), stderr.String()}
	})
	t.Cleanup(func() { s.stop() })
	return s
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func get(t *testing.T, address string) (status int, body string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(data)
}

// localStatus asks a server for a page of another host.
func localStatus(t *testing.T, host, address string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host, req.Close = host, true
	answer, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = answer.Body.Close()
	return answer.StatusCode
}

// Signing in needs no database. All that was made is gone in the end, goroutines included.
func TestProxy(t *testing.T) {
	before := runtime.NumGoroutine()
	s := startProxy(t, world{env: map[string]string{"AURORAPGX_BACKEND": nowhere, "PW": "tr0ub4dor"}}, "--user", "till=env:PW", "--strict-sessions")
	if s.Users["till"] != "password (SCRAM-SHA-256)" || s.Users["app"] != "IAM token" || s.Database != "orders" || s.Backend != "127.0.0.1:1" {
		t.Errorf("%+v", s.proxySummary)
	}
	if !strings.HasPrefix(s.Address, "127.0.0.1:") || !strings.HasPrefix(s.StatusURL, "http://127.0.0.1:") {
		t.Errorf("an address without a host is not on loopback: %+v", s.proxySummary)
	}
	if !strings.Contains(s.IAMToken, "--hostname "+s.Host) || !strings.Contains(s.IAMToken, "AWS_SHARED_CREDENTIALS_FILE="+s.KeyFile) {
		t.Errorf("IAM token: %s", s.IAMToken)
	}
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("till", "tr0ub4dor")
	conn, err := pgconn.Connect(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"": `<td data-name="user">till</td>`, "metrics": "\nClientConnections 1\n", "pins.json": "[]",
	} {
		if code, body := get(t, s.StatusURL+path); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("/%s: %d, no %q in\n%s", path, code, want, body)
		}
	}
	if code := localStatus(t, "rebound.example:6433", s.StatusURL); code != http.StatusForbidden {
		t.Errorf("for another host: %d", code)
	}
	if code, _ := get(t, s.StatusURL+"secret"); code != http.StatusNotFound {
		t.Errorf("another path: %d", code)
	}
	// A statement waits for a database that is not there, also while the proxy is stopped.
	answered := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.WithoutCancel(t.Context()), "select 1").ReadAll()
		answered <- err
	}()
	waiting := func() bool {
		_, metrics := get(t, s.StatusURL+"metrics")
		return strings.Contains(metrics, "\naurorapgx_borrow_waiting 1\n")
	}
	for deadline := time.Now().Add(10 * time.Second); !waiting(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nobody waits")
		}
	}
	r := s.stop()
	if <-answered == nil {
		t.Error("an answer from nowhere")
	}
	if r.code != exitOK || r.stdout != "" || !strings.Contains(r.stderr, "[INFO] aurorapgx: stopped. Client connections: 1, of which pinned: 0.") {
		t.Errorf("%+v", r)
	}
	for _, secret := range []string{"hunter2", "tr0ub4dor"} {
		if strings.Contains(r.stderr+asJSON(t, s.proxySummary), secret) {
			t.Errorf("%s is in the output", secret)
		}
	}
	for _, file := range []string{s.CAFile, s.KeyFile} {
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("%s: %v", file, err)
		}
	}
	_ = conn.Close(t.Context())
	for deadline := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("goroutines are left:\n%s", buf[:runtime.Stack(buf, true)])
		}
	}
}

// cancelOnWrite ends a run as soon as it has printed something.
type cancelOnWrite struct {
	lockedBuffer

	cancel context.CancelFunc
}

func (b *cancelOnWrite) Write(p []byte) (int, error) {
	defer b.cancel()
	return b.lockedBuffer.Write(p)
}

func TestProxySummaryForPeople(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stdout := &cancelOnWrite{cancel: cancel}
	var stderr lockedBuffer
	p := &program{strings.NewReader(""), stdout, &stderr, func(string) string { return "" }, false}
	if code := p.run(ctx, []string{"proxy", "--listen=:0", "--status=:0", "--backend=postgres://app@db.example/orders", "--end-to-end-iam", "--user=ann=file:" + file(t, "pw")}); code != exitOK {
		t.Fatalf("exit code %d: %s", code, stderr.String())
	}
	for _, want := range []string{
		"in front of database orders on db.example:5432\n", "  connect    postgres://ann@localhost:", "ann: password (SCRAM-SHA-256)\n", "app: IAM token\n",
		"every user: IAM token\n", "(removed at the end)\n", "  IAM token  AWS_SHARED_CREDENTIALS_FILE=", "  status     http://127.0.0.1:",
	} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("no %q in\n%s", want, stdout.String())
		}
	}
}

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

// An address that is taken is an error, and nothing is left behind.
func TestProxyAddressTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	for _, args := range [][]string{{"--listen", l.Addr().String(), "--status=off"}, {"--listen=:0", "--status", l.Addr().String()}} {
		r := run(t, append([]string{"proxy", "--backend=postgres://app@db/orders", "--ca-file", ca}, args...)...)
		if r.code != exitFailed || r.stdout != "" || !strings.Contains(r.stderr, "choose another address") {
			t.Errorf("%+v", r)
		}
		if _, err := os.Stat(ca); !os.IsNotExist(err) {
			t.Errorf("the CA file was written: %v", err)
		}
	}
}

func TestProxyLog(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	l := newProxyLog(&b, slog.LevelInfo)
	log := slog.New(l)
	log.Debug("too little")
	r := slog.NewRecord(time.Date(2024, 10, 12, 19, 20, 40, 5, time.FixedZone("", 7200)), slog.LevelWarn, "[proxyEndpoint=default] one\nline", 0)
	if err := l.Handle(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if want := "2024-10-12T17:20:40 [WARN] [proxyEndpoint=default] one line\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

func TestGroupPins(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	pin := func(client uint64, rule, digest, file string, doubt string) proxytest.Pin {
		at = at.Add(time.Second)
		return proxytest.Pin{ClientConnection: client, Rule: rule, Digest: digest, Time: at, Caller: proxytest.Caller{File: file, Line: 1, Doubt: doubt}}
	}
	groups := groupPins([]proxytest.Pin{
		pin(1, "settings", "set a", "a.py", ""), pin(2, "listen", "listen x", "b.py", ""), pin(3, "settings", "set a", "a.py", "not looked for"), pin(4, "settings", "set a", "c.py", ""),
	}, []proxytest.ClientConnection{{ID: 1, Pinned: true}, {ID: 2}, {ID: 4, Pinned: true}})
	var got []string
	for _, g := range groups {
		got = append(got, strings.Join([]string{g.Rule, g.Caller, strings.Repeat("*", g.Times), strings.Repeat("!", g.Now)}, " "))
		if g.Instead == "" {
			t.Errorf("%s: nothing instead", g.Rule)
		}
	}
	if want := "settings c.py:1 * !|settings a.py:1 ** !|listen b.py:1 * "; strings.Join(got, "|") != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// What clients send is text on the page, and nothing else.
func TestStatusPageEscapes(t *testing.T) {
	t.Parallel()
	const evil = `<script>alert(1)</script>`
	var b strings.Builder
	err := statusTemplate.Execute(&b, statusPage{
		Host: "h", Pins: []*pinGroup{{Times: 2, Digest: evil, Caller: evil, User: evil}}, Strict: true,
		Leaks:   []proxytest.Leak{{Kind: "setting", Name: evil, Digests: []string{evil}}},
		Clients: []proxytest.ClientConnection{{User: evil, Application: evil}},
	})
	if err != nil || strings.Contains(b.String(), evil) || strings.Count(b.String(), "&lt;script&gt;") != 7 {
		t.Errorf("%v\n%s", err, b.String())
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
