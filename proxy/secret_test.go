package proxy_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
	"github.com/aurorapgx/aurorapgx/secrets"
	"github.com/aurorapgx/aurorapgx/secrets/secretstest"
)

// A service that needs nothing but DATABASE_URL: the whole way from there to a login.
func TestSecretInTheConnectionString(t *testing.T) {
	t.Parallel()
	srv := secretstest.NewServer(t)
	net := newPipes()
	px := proxytest.NewProxy(t, "", proxytest.WithListener(net), proxytest.WithHost(proxyHost), proxytest.WithUser("app", password))
	ca, err := os.ReadFile(px.CAFile())
	if err != nil {
		t.Fatal(err)
	}
	arn := srv.Put("prod/orders", `{"username":"app","password":"`+password+`"}`)
	srv.Put("prod/whole", `{"username":"app","password":"`+password+`","host":"`+proxyHost+`","port":"5432","dbname":"orders"}`)
	opts := []proxy.Option{
		proxy.WithDialer(net.dial), proxy.WithLookup(loopback), proxy.WithRootCAs(ca), proxy.WithAWSConfig(srv.Config()),
	}
	for name, tt := range map[string]struct {
		conn   string
		atOnce int // requests that opening the pool makes
	}{
		"URL":           {"postgres://" + proxyHost + "/orders?secret=prod/orders", 0},
		"ARN":           {"postgres://" + proxyHost + "/orders?secret=" + arn, 0},
		"other user":    {"postgres://nobody@" + proxyHost + "/orders?secret=prod/orders", 0},
		"keyword=value": {"host=" + proxyHost + " dbname=orders secret=prod/orders", 0},
		"no host":       {"postgres:///orders?secret=prod/whole", 1},
		"no database":   {"postgres://" + proxyHost + "?secret=prod/whole", 1},
		"nothing else":  {"postgres:///?secret=prod/whole", 1},
	} {
		t.Run(name, func(t *testing.T) { // one after the other: they count requests
			before := srv.Stats().GetSecretValue
			pool, err := proxy.NewPool(t.Context(), tt.conn, opts...)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			if n := srv.Stats().GetSecretValue - before; n != tt.atOnce {
				t.Errorf("NewPool made %d requests, want %d", n, tt.atOnce)
			}
			conn, err := pool.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			conn.Release()
			cc := pool.Config().ConnConfig
			if n := srv.Stats().GetSecretValue - before; n != 1 || cc.Host != proxyHost || cc.Database != "orders" || cc.Password != "" {
				t.Errorf("%d requests, %s/%s", n, cc.Host, cc.Database)
			}
		})
	}
}

func TestSecretsThatDoNotTellWhereTo(t *testing.T) {
	t.Parallel()
	srv := secretstest.NewServer(t)
	srv.Put("two", `{"username":"app","password":"`+password+`"}`)
	srv.Put("misspelt", `{"username":"app","password":"`+password+`","host":"app.proxy-1.eu-west-1.rds.amazonaws.con","dbname":"orders"}`)
	srv.Put("broken", `{"username":"app","password":"`+password)
	for _, tt := range []struct{ conn, want string }{
		{"postgres:///orders?secret=two", "names no host, and the secret has none"},
		{"postgres://" + proxyHost + "?secret=two", "names no database, and the secret has none"},
		{"postgres:///?secret=misspelt", "does not end like one"},
		{"postgres:///?secret=broken", `secret "broken": is not valid JSON`},
		{"postgres:///?secret=none", "check the name, the region"},
	} {
		_, err := proxy.NewPool(t.Context(), tt.conn, proxy.WithAWSConfig(srv.Config()))
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), password) {
			t.Errorf("%s: %v", tt.conn, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	srv.Fail(secretstest.Silent)
	_, err := proxy.NewPool(ctx, "postgres:///orders?secret=two", proxy.WithAWSConfig(srv.Config()))
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, proxy.ErrCredentials) {
		t.Errorf("with a deadline: %v", err)
	}
}

func TestHostFromAMountedSecret(t *testing.T) {
	t.Parallel()
	s := newScripted(t, login)
	dir := t.TempDir()
	for name, text := range map[string]string{"username": "app", "password": password, "host": "127.0.0.1", "port": s.port(), "dbname": "orders"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := proxy.Connect(t.Context(), "postgres:///", proxy.WithCredentials(secrets.FromFile(dir)))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(t.Context())
}

// Connections with replaced credentials are closed, one by one, within the given time,
// and only when they are not in use.
func TestRetirement(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := newVault(t, []proxy.Option{proxy.WithMaxConns(20), proxy.WithRetirement(10 * time.Minute), proxy.WithConnectLimit(20)})
		acquire := func(n int) (conns []*pgxpool.Conn) {
			for range n {
				conn, err := v.pool.Acquire(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				conns = append(conns, conn)
			}
			return conns
		}
		release := func(conns []*pgxpool.Conn) {
			for _, c := range conns {
				c.Release()
			}
		}
		old := acquire(19)
		inUse := old[0]
		release(old[1:])
		v.srv.Put(secretID, appSecret("app", "new-"+password))
		v.px.SetUser("app", "new-"+password)
		time.Sleep(5*time.Minute + time.Second)
		release(acquire(19)) // one of them new
		made := v.pool.Stat().NewConnsCount()
		if made != 20 {
			t.Fatalf("%d connects", made)
		}
		var replaced []int64
		for range 11 {
			time.Sleep(time.Minute)
			release(acquire(19))
			replaced = append(replaced, v.pool.Stat().NewConnsCount()-made)
		}
		t.Logf("of 18 idle connections, retired after 1 to 11 minutes: %v", replaced)
		if last := replaced[10]; last != 18 || replaced[0] > 9 || replaced[5] < 3 || replaced[5] == 18 {
			t.Errorf("not spread over 10 minutes: %v", replaced)
		}
		if inUse.Conn().IsClosed() {
			t.Error("a connection in use was closed")
		}
		inUse.Release()
	})
}

// The user's own hooks decide about the other connections.
func TestRetirementKeepsTheUsersHook(t *testing.T) {
	t.Parallel()
	s := newScripted(t, login)
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	src := secrets.FromFile(path)
	for name, set := range map[string]func(*pgxpool.Config, *int){
		"PrepareConn": func(cfg *pgxpool.Config, called *int) {
			cfg.PrepareConn = func(context.Context, *pgx.Conn) (bool, error) { *called++; return true, nil }
		},
		"BeforeAcquire": func(cfg *pgxpool.Config, called *int) {
			cfg.BeforeAcquire = func(context.Context, *pgx.Conn) bool { *called++; return true } //nolint:staticcheck // users have it
		},
	} {
		cfg, err := pgxpool.ParseConfig("postgres://app@127.0.0.1:" + s.port() + "/orders?sslmode=disable")
		if err != nil {
			t.Fatal(err)
		}
		var called int
		set(cfg, &called)
		if err := proxy.Configure(cfg, proxy.WithCredentials(src)); err != nil {
			t.Fatal(err)
		}
		pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conn.Release()
		pool.Close()
		if called != 1 {
			t.Errorf("%s: called %d times", name, called)
		}
	}
}
