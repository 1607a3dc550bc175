package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
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
		"in front of database orders on db.example:5432\n", "  connect    postgres://ann@localhost:", "ann: IAM token\n", "app: IAM token\n",
		"every user: IAM token\n", "(removed at the end)\n", "  IAM token  AWS_SHARED_CREDENTIALS_FILE=", "  status     http://127.0.0.1:",
	} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("no %q in\n%s", want, stdout.String())
		}
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
