package proxytest

import (
	"bytes"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// login signs in with a password, or the IAM token given as one, in TLS.
func login(t *testing.T, p *Proxy, user, password string) (*pgconn.PgConn, error) {
	t.Helper()
	cfg, err := pgconn.ParseConfig("sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Host, cfg.Port, cfg.User, cfg.Password, cfg.Database = "127.0.0.1", p.Port(), user, password, "orders"
	cfg.RuntimeParams, cfg.Fallbacks = nil, nil
	cfg.TLSConfig = &tls.Config{RootCAs: p.RootCAs(), ServerName: p.Host(), MinVersion: tls.VersionTLS12}
	conn, err := pgconn.ConnectConfig(t.Context(), cfg)
	if err == nil {
		t.Cleanup(func() { _ = conn.Close(t.Context()) })
	}
	return conn, err
}

func wantRefusal(t *testing.T, err error, code, text string) {
	t.Helper()
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Code != code || pgErr.Message != text || pgErr.Severity != "FATAL" {
		t.Errorf("got %v, want FATAL %s %q", err, code, text)
	}
}

func TestClientLimits(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, "", WithUser("app", "secret"), WithMaxClientConnections(2))
	for range 2 {
		if _, err := login(t, p, "app", "secret"); err != nil {
			t.Fatal(err)
		}
	}
	_, err := login(t, p, "app", "secret")
	wantRefusal(t, err, "53300", "The maximum number of client connections to the proxy exceeded 2.")

	// Many at once, so that the machine's speed does not matter.
	p = NewProxy(t, "", WithUser("app", "secret"), WithClientConnectionRate(1))
	wantRefusal(t, lastOf(t, p, "secret", "53300"), "53300", "Rate of connection to proxy exceeded 1.")
	p = NewProxy(t, "", WithUser("app", "secret"), WithIAMUser("app"), WithIAMRate(1), WithLogger(slog.New(slog.DiscardHandler)))
	wantRefusal(t, lastOf(t, p, "no token", "53300"), "53300", "The IAM authentication failed because of too many competing requests.")
}

// lastOf signs in several times at once and returns an error with the code.
func lastOf(t *testing.T, p *Proxy, password, code string) (found error) {
	t.Helper()
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range 8 {
		wg.Go(func() {
			_, err := login(t, p, "app", password)
			var pgErr *pgconn.PgError
			mu.Lock()
			defer mu.Unlock()
			if errors.As(err, &pgErr) && pgErr.Code == code {
				found = err
			}
		})
	}
	wg.Wait()
	return found
}

func TestRateRefills(t *testing.T) {
	t.Parallel()
	var r rate
	now := time.Unix(1, 0)
	got := ""
	for _, after := range []time.Duration{0, 0, 0, 400 * time.Millisecond, 200 * time.Millisecond, time.Hour, 0, 0} {
		now = now.Add(after)
		if r.allow(2, now) {
			got += "y"
		} else {
			got += "n"
		}
	}
	if got != "yynnyyyn" {
		t.Error(got)
	}
	if !r.allow(0, now) {
		t.Error("0 is a limit")
	}
}

func TestMD5(t *testing.T) {
	t.Parallel()
	var logins []Login
	var mu sync.Mutex
	p := NewProxy(t, "", WithUser("old", "secret"), WithUser("new", "secret"), WithMD5User("old"),
		WithLogger(slog.New(slog.DiscardHandler)), WithOnLogin(func(l Login) {
			mu.Lock()
			defer mu.Unlock()
			logins = append(logins, l)
		}))
	if _, err := login(t, p, "old", "secret"); err != nil {
		t.Error(err)
	}
	_, err := login(t, p, "old", "wrong")
	wantRefusal(t, err, "28P01", "The password that was provided for the role old is wrong.")
	if _, err := login(t, p, "new", "secret"); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(logins) != 3 || logins[0].Method != "MD5" || logins[2].Method != "SCRAM-SHA-256" {
		t.Errorf("%+v", logins)
	}
}

func TestEndToEndIAMWantsTokens(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, "", WithEndToEndIAM())
	_, err := login(t, p, "anyone", "a password")
	wantRefusal(t, err, "28000", "Enable IAM authentication for the client connection to the proxy and try again.")
	// Any database user may sign in with one, also a user whose secret has been there and is not any more.
	p.SetUser("former", "secret")
	p.RemoveUser("former")
	for _, user := range []string{"anyone", "former"} {
		if _, err := login(t, p, user, sign(t, p.iam.endpoint, p.Region(), user, p.Credentials())); err != nil {
			t.Errorf("%s: %v", user, err)
		}
	}
}

func TestEndpointName(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	p := NewProxy(t, "", WithUser("app", "secret"), WithEndpointName("reporting"), WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	if want := "reporting.endpoint.proxy-0123456789ab.eu-west-1.rds.amazonaws.com"; p.Host() != want {
		t.Errorf("host %s, want %s", p.Host(), want)
	}
	if _, err := login(t, p, "app", "secret"); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "[proxyEndpoint=reporting] [clientConnection=1] A new client connected") {
		t.Error(log.String())
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestDatabaseConnectionsAge looks at the pool's clock: connections that idle go, and those that are
// too old when they are given back.
func TestDatabaseConnectionsAge(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &Proxy{log: &proxyLog{logger: slog.New(slog.DiscardHandler)}}
		var err error
		if p.cfg, err = newConfig([]Option{WithClockScale(60)}); err != nil {
			t.Fatal(err)
		}
		at := &target{}
		cp := newConnPool(p, []*target{at}, 10)
		p.pool = cp
		open := func() *dbConn {
			here, there := net.Pipe()
			_ = there.Close()
			db := &dbConn{p: p, target: at, born: time.Now(), conn: here, info: startupInfo{key: "k"}}
			cp.conns[db] = struct{}{}
			cp.total++
			at.open++
			at.borrowed++
			return db
		}
		cp.put(open())
		time.Sleep(4900 * time.Millisecond)
		if cp.size() != 1 {
			t.Error("closed before its 5 minutes, which are 5 s here")
		}
		time.Sleep(200 * time.Millisecond)
		if cp.size() != 0 {
			t.Error("not closed after 5 minutes")
		}
		old := open()
		time.Sleep(24*time.Minute + time.Second)
		cp.put(old)
		if cp.size() != 0 || at.open != 0 || at.borrowed != 0 {
			t.Errorf("older than 24 h and kept: %d, %+v", cp.size(), at)
		}
		cp.close()
	})
	if _, err := newConfig([]Option{WithClockScale(0)}); err == nil {
		t.Error("clock scale 0 is taken")
	}
}
