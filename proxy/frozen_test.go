package proxy_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aurorapgx/aurorapgx/proxy"
)

// After a freeze of three hours a Lambda function's connection is pinged before it is used: in the
// process's own time it has idled for a moment, and meanwhile the proxy has closed it, and a NAT device
// forgotten it. database/sql keeps to the same rule.
func TestAFrozenConnectionIsPinged(t *testing.T) {
	t.Parallel()
	s := newScripted(t, login)
	dsn := "postgres://app:" + password + "@" + proxyHost + ":" + s.port() + "/orders"
	options := []proxy.Option{proxy.Lambda(), proxy.WithMaxConns(1), trusted(t), proxy.WithLookup(loopback)}

	pool := newPool(t, dsn, options...)
	take := func(frozen time.Duration) (pings int64) {
		t.Helper()
		before := s.statements.Load()
		conn, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		pings = s.statements.Load() - before
		proxy.Freeze(t, conn.Conn().PgConn(), frozen)
		conn.Release()
		return pings
	}
	take(0)
	if n := take(3 * time.Hour); n != 0 {
		t.Errorf("%d pings without a freeze", n)
	}
	if n := take(-time.Hour); n != 1 {
		t.Errorf("%d pings after a freeze of three hours", n)
	}
	if n := take(0); n != 0 {
		t.Errorf("%d pings after the clock was set back", n)
	}

	db, err := proxy.OpenDB(t.Context(), dsn, options...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for i, want := range []int64{0, 0, 1, 0} {
		before := s.statements.Load()
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n := s.statements.Load() - before; n != want {
			t.Errorf("database/sql, use %d: %d pings", i+1, n)
		}
		if err := conn.Raw(func(raw any) error {
			inner, ok := raw.(interface{ Conn() *pgx.Conn })
			if !ok {
				t.Fatalf("%T", raw)
			}
			if i == 1 {
				proxy.Freeze(t, inner.Conn().PgConn(), 3*time.Hour)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	}
}
