package integration

// Helpers of the proxytest tests: proxies in front of a real PostgreSQL.

import (
	"context"
	"crypto/tls"
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/rds/auth"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

// backend is the DSN of the PostgreSQL the proxies stand in front of.
func backend(tb testing.TB) string {
	tb.Helper()
	return shared.DSN()
}

// proxyConfig is how pgx reaches a proxy: TLS against its CA, and a fresh IAM token for each
// connection.
func proxyConfig(t testing.TB, px *proxytest.Proxy) *pgxpool.Config {
	t.Helper()
	db, err := pgconn.ParseConfig(backend(t))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := pgxpool.ParseConfig("sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	cc := cfg.ConnConfig
	cc.Host, cc.Port, cc.User, cc.Database = px.Host(), px.Port(), db.User, db.Database
	cc.Fallbacks = nil
	cc.RuntimeParams = map[string]string{}
	cc.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
	cc.TLSConfig = clientTLS(px)
	cfg.MaxConns = 16
	cfg.BeforeConnect = func(ctx context.Context, cc *pgx.ConnConfig) error {
		token, err := auth.BuildAuthToken(ctx, net.JoinHostPort(cc.Host, strconv.Itoa(int(cc.Port))), px.Region(), cc.User,
			credentials.StaticCredentialsProvider{Value: px.Credentials()})
		cc.Password = token
		return err
	}
	return cfg
}

func pxPool(t testing.TB, px *proxytest.Proxy, change ...func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()
	cfg := proxyConfig(t, px)
	for _, f := range change {
		f(cfg)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// pxConnect opens one connection through the proxy.
func pxConnect(t testing.TB, px *proxytest.Proxy) *pgx.Conn {
	t.Helper()
	cfg := proxyConfig(t, px)
	if err := cfg.BeforeConnect(t.Context(), cfg.ConnConfig); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(t.Context(), cfg.ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

// direct opens a connection past the proxy.
func direct(t testing.TB) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(context.WithoutCancel(t.Context()), backend(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func clientTLS(px *proxytest.Proxy) *tls.Config {
	return &tls.Config{RootCAs: px.RootCAs(), ServerName: px.Host(), MinVersion: tls.VersionTLS12}
}
