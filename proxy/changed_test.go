package proxy_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
	"github.com/aurorapgx/aurorapgx/secrets"
)

// configured is a configuration that went through Configure.
func configured(t *testing.T, dsn string, opts ...proxy.Option) *pgxpool.Config {
	t.Helper()
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if err := proxy.Configure(cfg, opts...); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// A configuration that is changed after it was checked is followed where that can be
// done, and refused where it cannot; never ignored.
func TestConfigurationsChangedAfterConfigure(t *testing.T) {
	t.Parallel()
	other := newScripted(t, login)
	for name, change := range map[string]func(*pgxpool.Config){
		"port": func(c *pgxpool.Config) { c.ConnConfig.Port = 6543 },
		"host": func(c *pgxpool.Config) { c.ConnConfig.Host = "localhost" },
		"TLS":  func(c *pgxpool.Config) { c.ConnConfig.TLSConfig = other.clientTLS(t) },
		"hook": func(c *pgxpool.Config) {
			c.BeforeConnect = func(_ context.Context, cc *pgx.ConnConfig) error { cc.Database = "tenant7"; return nil }
		},
		"looking": func(c *pgxpool.Config) { c.ConnConfig.LookupFunc = loopbackOther },
	} {
		s := newScripted(t, login)
		cfg := configured(t, s.dsn()+"?sslmode=disable", proxy.WithConnectBudget(2e9))
		change(cfg)
		pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		err = pool.Ping(t.Context())
		var cfgErr *proxy.ConfigError
		if !errors.As(err, &cfgErr) || !strings.Contains(err.Error(), "changed after") || other.accepted.Load() != 0 {
			t.Errorf("%s: got %v", name, err)
		}
		pool.Close()
	}
}

func TestACopyOfAPoolsConfigurationForAnotherDatabase(t *testing.T) {
	t.Parallel()
	var asked map[string]string
	s := newScripted(t, func(d *dialogue) {
		msg, err := d.startup()
		if err != nil {
			return
		}
		asked = msg.(*pgproto3.StartupMessage).Parameters
		d.Send(&pgproto3.AuthenticationOk{})
		d.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		_ = d.Flush()
		d.serve()
	})
	cfg := newPool(t, s.dsn()).Config()
	cfg.ConnConfig.Database = "template"
	cfg.ConnConfig.RuntimeParams["application_name"] = "migration"
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := pool.Ping(t.Context()); err != nil || asked["database"] != "template" || asked["application_name"] != "migration" {
		t.Errorf("the server was asked for %v: %v", asked, err)
	}
	_, err = pgx.ConnectConfig(t.Context(), cfg.ConnConfig) // has no hook that could follow
	if err == nil || !strings.Contains(err.Error(), "changed after") {
		t.Errorf("got %v", err)
	}
}

func TestNoWayToAPlaintextToken(t *testing.T) {
	t.Parallel()
	s := newScripted(t, login)
	token := secrets.Static("app", "db.example.com:5432/?Action=connect&X-Amz-Signature=00")
	for name, try := range map[string]func() error{
		"token from a source": func() error {
			_, err := proxy.Connect(t.Context(), "postgres://app@127.0.0.1:"+s.port()+"/orders?sslmode=disable", proxy.WithCredentials(token))
			return err
		},
		"second host": func() error {
			cfg, err := pgxpool.ParseConfig("postgres://app@" + proxyHost + ",127.0.0.1:" + s.port() + "/orders?sslmode=require")
			if err != nil {
				return errors.New("pgx refuses it: " + err.Error())
			}
			return proxy.Configure(cfg)
		},
		"fallback": func() error {
			cfg, err := pgxpool.ParseConfig("postgres://app@" + proxyHost + "/orders?sslmode=require")
			if err != nil {
				return errors.New("pgx refuses it: " + err.Error())
			}
			cfg.ConnConfig.Fallbacks = append(cfg.ConnConfig.Fallbacks, &pgconn.FallbackConfig{Host: "replica.example.com", Port: 5432})
			return proxy.Configure(cfg)
		},
	} {
		var cfgErr *proxy.ConfigError
		if err := try(); !errors.As(err, &cfgErr) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// localhost with another machine's hostaddr is another machine.
func TestLocalIsWhereTheConnectionGoes(t *testing.T) {
	t.Parallel()
	dialled := ""
	opts := []proxy.Option{proxy.WithConnectBudget(1e8), proxy.WithDialer(func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() {
			buf := make([]byte, 8)
			_, _ = server.Read(buf)
			dialled = string(buf)
			_ = server.Close()
		}()
		return client, nil
	})}
	_, _ = proxy.Connect(t.Context(), "postgres://app:x@localhost/orders?hostaddr=203.0.113.5", opts...)
	if sslRequest := "\x00\x00\x00\x08\x04\xd2\x16\x2f"; dialled != sslRequest {
		t.Errorf("the first bytes are %q, want a request for TLS", dialled)
	}
	s := newScripted(t, login)
	cfg := configured(t, s.dsn()+"?sslmode=require") // explicit, through a tunnel say
	conn, err := pgx.ConnectConfig(t.Context(), cfg.ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	if conn.PgConn().Conn().(interface{ NetConn() net.Conn }).NetConn() == nil || !s.sawTLS.Load() {
		t.Error("sslmode=require became plaintext")
	}
	_ = conn.Close(t.Context())
}

func TestNoConfigurationShowsThePassword(t *testing.T) {
	t.Parallel()
	s := newScripted(t, login)
	pool := newPool(t, s.dsn())
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for what, shown := range map[string]string{"pool": pool.Config().ConnString(), "connection": conn.Conn().Config().ConnString()} {
		if strings.Contains(shown, password) {
			t.Errorf("the %s's configuration shows the password: %s", what, shown)
		}
	}
}

func TestAPanicInADiallerCostsNoSlot(t *testing.T) {
	t.Parallel()
	s := newScripted(t, login)
	panics := true
	cfg := configured(t, s.dsn()+"?sslmode=disable", proxy.WithConnectLimit(1), proxy.WithDialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
		if panics {
			panic("boom")
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}))
	func() {
		defer func() { _ = recover() }()
		_, _ = pgx.ConnectConfig(t.Context(), cfg.ConnConfig)
	}()
	panics = false
	ctx, cancel := context.WithTimeout(retry.Never(t.Context()), 10e9) // which is about the caller's work, not about connecting
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, cfg.ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(ctx)
}

// loopbackOther resolves to an address that the configuration was not checked with.
func loopbackOther(context.Context, string) ([]string, error) { return []string{"127.0.0.2"}, nil }
