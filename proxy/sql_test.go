package proxy_test

// What the bridge to database/sql does apart from the table in sql_cut_test.go, and
// what makes it necessary.

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

// For a library that wants a *sql.DB. Like the pool, it opens before the server has to
// be there.
func ExampleOpenDB() {
	db, err := proxy.OpenDB(context.Background(), "postgres://app@app.proxy-abc.eu-west-1.rds.amazonaws.com/orders")
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	fmt.Printf("%T, %d connections\n", db.Driver(), db.Stats().OpenConnections)
	// Output: *stdlib.Driver, 0 connections
}

// This is the reason for proxy.OpenDB, and for nothing else.
func TestSQLUpstreamRunsAStatementThreeTimes(t *testing.T) {
	t.Parallel()
	for _, f := range []fault{closes, resets} {
		c, s := newCutter(t, insert, f, false)
		cfg, err := pgx.ParseConfig(s.dsn() + "?sslmode=disable")
		if err != nil {
			t.Fatal(err)
		}
		db := stdlib.OpenDB(*cfg)
		defer db.Close()
		_, err = db.ExecContext(t.Context(), insert+")")
		if n := c.received.Load(); n != 3 || !errors.Is(err, driver.ErrBadConn) {
			t.Errorf("received %d times, %v: pgx has fixed this upstream: simplify proxy/sql.go", n, err)
		}
	}
}

// hookedConn tells when its reader waits for the answer to a statement.
type hookedConn struct {
	net.Conn

	armed   atomic.Bool
	waiting chan struct{}
	closed  chan struct{}
	once    sync.Once
}

func (c *hookedConn) Read(p []byte) (int, error) {
	if c.armed.Swap(false) {
		close(c.waiting)
		<-c.closed // orders what the closing goroutine did before what the reader does next
	}
	return c.Conn.Read(p)
}

func (c *hookedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// A busy *pgx.Conn that another goroutine closes makes pgx say that the statement in
// flight was never sent.
func TestSQLClosingABusyConnectionDoesNotRunItsStatementAgain(t *testing.T) {
	t.Parallel()
	s := newScripted(t, login)
	var first atomic.Pointer[hookedConn]
	pool := newPool(t, s.dsn(), proxy.WithDialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		hooked := &hookedConn{Conn: conn, waiting: make(chan struct{}), closed: make(chan struct{})}
		first.CompareAndSwap(nil, hooked)
		return hooked, err
	}))
	db := proxy.OpenDBFromPool(pool)
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pgxConn := behind(t, conn)
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	first.Load().armed.Store(true)
	result := make(chan error)
	go func() {
		_, err := db.ExecContext(t.Context(), insert+")")
		result <- err
	}()
	<-first.Load().waiting
	if err := pgxConn.Close(context.Background()); err != nil {
		t.Error(err)
	}
	err = <-result
	if n := s.statements.Load(); n > 1 || err == nil || errors.Is(err, driver.ErrBadConn) || retry.Classify(err) != retry.Ambiguous {
		t.Errorf("received %d times, %v", n, err)
	}
	t.Log(err)
}

// In a transaction and on a *sql.Conn database/sql does not try again, and the caller
// sees what the driver says.
func TestSQLAClosedConnectionSaysThatNothingWasSent(t *testing.T) {
	t.Parallel()
	for _, bridge := range bridges {
		c, s := newCutter(t, insert, closes, false)
		db := bridge.open(t, s, pgx.QueryExecModeCacheStatement)
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		stmt, err := tx.PrepareContext(t.Context(), "select 1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(t.Context(), insert+")"); retry.Classify(err) != retry.Ambiguous || errors.Is(err, driver.ErrBadConn) {
			t.Errorf("%s: the lost statement: %v", bridge.name, err)
		}
		for what, call := range map[string]func() error{
			"exec":     func() error { _, err := tx.ExecContext(t.Context(), insert+")"); return err },
			"query":    func() error { return tx.QueryRowContext(t.Context(), insert+")").Err() },
			"prepare":  func() error { return prepare(t.Context(), tx) },
			"prepared": func() error { _, err := stmt.ExecContext(t.Context()); return err },
		} {
			err := call()
			if retry.Classify(err) != retry.NotExecuted || !errors.Is(err, driver.ErrBadConn) || c.received.Load() != 1 {
				t.Errorf("%s: %s: %v", bridge.name, what, err)
			}
		}
		err = tx.Commit()
		t.Log(err)
		if retry.Classify(err) != retry.NotExecuted {
			t.Errorf("%s: commit: %v", bridge.name, err)
		}
		if err := stmt.Close(); err != nil {
			t.Errorf("%s: a statement that ended with its connection: %v", bridge.name, err)
		}
	}
}

func prepare(ctx context.Context, tx *sql.Tx) error {
	stmt, err := tx.PrepareContext(ctx, insert+")")
	if err != nil {
		return err
	}
	defer stmt.Close()
	return nil
}

// A context that has ended before the statement: the counter proves that nothing was
// sent, through a user's wrapper too if that can be seen through.
func TestSQLTheCounterIsTheProof(t *testing.T) {
	t.Parallel()
	s := newScripted(t, login)
	for _, tt := range []struct {
		name string
		wrap func(net.Conn) net.Conn
		want retry.Verdict
	}{
		{"as it is", func(c net.Conn) net.Conn { return c }, retry.NotExecuted},
		{"transparent wrapper", func(c net.Conn) net.Conn { return transparent{c} }, retry.NotExecuted},
		{"opaque wrapper", func(c net.Conn) net.Conn { return wrapped{c} }, retry.Ambiguous},
	} {
		cfg, err := pgxpool.ParseConfig(s.dsn() + "?sslmode=disable")
		if err != nil {
			t.Fatal(err)
		}
		cfg.ConnConfig.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) { return tt.wrap(conn), nil }
		if err := proxy.Configure(cfg); err != nil {
			t.Fatal(err)
		}
		pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		conn, err := proxy.OpenDBFromPool(pool).Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for what, call := range map[string]func() error{
			"exec":  func() error { _, err := conn.ExecContext(ended, insert+")"); return err },
			"query": func() error { return conn.QueryRowContext(ended, insert+")").Err() },
			"ping":  func() error { return conn.PingContext(ended) },
		} {
			err := call()
			if retry.Classify(err) != tt.want || !errors.Is(err, context.Canceled) || errors.Is(err, driver.ErrBadConn) {
				t.Errorf("%s, %s: verdict %s, %v", tt.name, what, retry.Classify(err), err)
			}
		}
		if _, err := conn.ExecContext(t.Context(), insert+")"); err != nil {
			t.Errorf("%s: the connection cannot be used any more: %v", tt.name, err)
		}
	}
}

type transparent struct{ net.Conn }

func (c transparent) NetConn() net.Conn { return c.Conn }

// A DB that keeps connections after all checks them by the pool's rule before it sends
// anything, so that database/sql may take another.
func TestSQLAKeptConnectionIsCheckedBeforeUse(t *testing.T) {
	t.Parallel()
	for _, pings := range []bool{true, false} {
		c, s := newCutter(t, insert, closeIdle, false)
		cfg, err := pgxpool.ParseConfig(s.dsn() + "?sslmode=disable&pool_ping_timeout=5s")
		if err != nil {
			t.Fatal(err)
		}
		var idle time.Duration
		cfg.ShouldPing = func(_ context.Context, p pgxpool.ShouldPingParams) bool { idle = p.IdleDuration; return pings }
		pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		db := proxy.OpenDBFromPool(pool)
		defer db.Close()
		db.SetMaxIdleConns(1)
		if _, err := db.ExecContext(t.Context(), "warm up"); err != nil {
			t.Fatal(err)
		}
		if _, err := db.ExecContext(t.Context(), "again"); err != nil || idle <= 0 || idle > time.Minute {
			t.Errorf("%v, idle for %s", err, idle)
		}
		c.idle <- struct{}{}
		<-c.closed
		_, err = db.ExecContext(t.Context(), insert+")")
		if n := c.received.Load(); pings && (err != nil || n != 1) {
			t.Errorf("received %d times, %v", n, err)
		} else if !pings && (retry.Classify(err) != retry.Ambiguous || err == nil || n != 0) {
			t.Errorf("unchecked: received %d times, %v", n, err)
		}
	}
}

func TestSQLCloseClosesThePoolThatItOpened(t *testing.T) {
	t.Parallel()
	s := newScripted(t, login)
	db, err := proxy.OpenDB(t.Context(), s.dsn())
	if err != nil {
		t.Fatal(err)
	}
	if err := db.PingContext(t.Context()); err != nil || s.open.Load() != 1 {
		t.Errorf("%v, %d connections", err, s.open.Load())
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	for s.open.Load() > 0 { // the server sees Terminate and ends
		time.Sleep(time.Millisecond)
	}
	pool := newPool(t, s.dsn())
	db = proxy.OpenDBFromPool(pool)
	if _, ok := db.Driver().(*stdlib.Driver); !ok {
		t.Errorf("libraries that look for pgx find a %T", db.Driver())
	}
	if err := db.PingContext(t.Context()); err != nil {
		t.Error(err)
	}
	if n := db.Stats().OpenConnections; n != 0 || pool.Stat().IdleConns() != 1 {
		t.Errorf("database/sql keeps %d connections, the pool %d", n, pool.Stat().IdleConns())
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if err := pool.Ping(t.Context()); err != nil {
		t.Errorf("the pool was closed: %v", err)
	}
	var config *proxy.ConfigError
	if _, err := proxy.OpenDB(t.Context(), "postgres://app:x@127.0.0.1/orders?sslmode=allow"); !errors.As(err, &config) {
		t.Errorf("got %v", err)
	}
}

// behind is the *pgx.Conn behind a *sql.Conn, got as the documentation says.
func behind(t *testing.T, conn *sql.Conn) *pgx.Conn {
	t.Helper()
	var behind *pgx.Conn
	if err := conn.Raw(func(driverConn any) error {
		behind = driverConn.(interface{ Conn() *pgx.Conn }).Conn()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return behind
}
