package integration

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

// signedBy makes a pool sign its tokens with the access key that px knows.
func signedBy(px *proxytest.Proxy) proxy.Option {
	return proxy.WithAWSConfig(aws.Config{Credentials: credentials.StaticCredentialsProvider{Value: px.Credentials()}})
}

func newPool(tb testing.TB, url string, opts ...proxy.Option) *pgxpool.Pool {
	tb.Helper()
	pool, err := proxy.NewPool(tb.Context(), url, opts...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(pool.Close)
	return pool
}

func exec(tb testing.TB, pool *pgxpool.Pool, sql string, args ...any) {
	tb.Helper()
	if _, err := pool.Exec(tb.Context(), sql, args...); err != nil {
		tb.Fatal(err)
	}
}

// 10,000 transactions of several kinds from 32 goroutines, on 10 client connections
// over 4 database connections: nothing fails, nothing pins, and pgx's named prepared
// statements are in use all the while.
func TestMixedTransactionsThroughAProxyWithFewerBackends(t *testing.T) {
	t.Parallel()
	const workers, transactions = 32, 10_000
	px, url, _ := startProxy(t, proxytest.WithMaxConnections(4))
	pool := newPool(t, url, signedBy(px), proxy.WithMaxConns(10))
	exec(t, pool, "create table account (id int primary key, balance int not null)")
	exec(t, pool, "create table transfer (id bigint generated always as identity, source int, target int, amount int)")
	exec(t, pool, "insert into account select i, 1000 from generate_series(1, 50) i")

	var failed, done atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for range workers {
		wg.Go(func() {
			for done.Add(1) <= transactions {
				if err := mixedTransaction(t.Context(), pool); err != nil {
					failed.Add(1)
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(start)

	var sum, transfers int
	if err := pool.QueryRow(t.Context(), "select (select sum(balance) from account), (select count(*) from transfer)").Scan(&sum, &transfers); err != nil {
		t.Fatal(err)
	}
	stats := px.Stats()
	t.Logf("%d transactions in %s, %d errors, %d transfers; %d sessions pinned, %d named statements, %d prepared again on another connection, %d client and %d database connections",
		transactions, took.Round(time.Millisecond), failed.Load(), transfers, stats.PinnedSessions, stats.NamedStatements, stats.Reparsed, stats.ClientConnections, stats.DatabaseConnections)
	if sum != 50*1000 {
		t.Errorf("the balances add up to %d", sum)
	}
	if stats.PinnedSessions != 0 || len(px.Pins()) != 0 {
		t.Errorf("pins: %+v", px.Pins())
	}
	if stats.NamedStatements == 0 || stats.Reparsed == 0 || stats.DatabaseConnections > 4 {
		t.Errorf("not the load this test is about: %+v", stats)
	}
}

// mixedTransaction does one of the things services do.
func mixedTransaction(ctx context.Context, pool *pgxpool.Pool) error {
	a, b := 1+rand.IntN(50), 1+rand.IntN(50)
	switch rand.IntN(4) {
	case 0: // a single statement
		var balance int
		return pool.QueryRow(ctx, "select balance from account where id = $1", a).Scan(&balance)
	case 1: // a batch
		batch := &pgx.Batch{}
		batch.Queue("select balance from account where id = $1", a)
		batch.Queue("select count(*) from transfer where source = $1", b)
		return pool.SendBatch(ctx, batch).Close()
	case 2: // rows
		rows, _ := pool.Query(ctx, "select id, balance from account where id between $1 and $1 + 10 order by id", a)
		_, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct{ ID, Balance int }])
		return err
	default:
		return transfer(ctx, pool, a, b, 1+rand.IntN(10))
	}
}

// transfer locks the two accounts in the order of their ids, so that transfers do not
// deadlock.
func transfer(ctx context.Context, pool *pgxpool.Pool, from, to, amount int) error {
	return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "select from account where id in ($1, $2) order by id for update", from, to); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "update account set balance = balance - $2 where id = $1", from, amount); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "update account set balance = balance + $2 where id = $1", to, amount); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "insert into transfer (source, target, amount) values ($1, $2, $3)", from, to, amount)
		return err
	})
}

// lateListener has its address from the start, and listens once it is opened.
type lateListener struct {
	addr   *net.TCPAddr
	opened chan net.Listener
	closed chan struct{}
	once   sync.Once

	mu   sync.Mutex
	real net.Listener
}

// newLateListener picks a free port, where nothing listens until open.
func newLateListener(tb testing.TB) *lateListener {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	_ = l.Close()
	return &lateListener{addr: l.Addr().(*net.TCPAddr), opened: make(chan net.Listener, 1), closed: make(chan struct{})}
}

func (l *lateListener) open() error {
	listener, err := net.ListenTCP("tcp", l.addr)
	if err == nil {
		l.opened <- listener
	}
	return err
}

func (l *lateListener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.real == nil {
		select {
		case l.real = <-l.opened:
			go func() {
				<-l.closed
				_ = l.real.Close()
			}()
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
	return l.real.Accept()
}

func (l *lateListener) Addr() net.Addr { return l.addr }

func (l *lateListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func TestColdStartIsAbsorbedByTheFirstQuery(t *testing.T) {
	t.Parallel()
	const outage = 8 * time.Second
	late := newLateListener(t)
	px, url, _ := startProxy(t, proxytest.WithListener(late))
	pool := newPool(t, url, signedBy(px))
	var up time.Time
	time.AfterFunc(outage, func() {
		up = time.Now()
		if err := late.open(); err != nil {
			t.Error(err)
		}
	})
	var answer int
	if err := pool.QueryRow(t.Context(), "select $1::int", 42).Scan(&answer); err != nil || answer != 42 {
		t.Fatalf("%d, %v", answer, err)
	}
	t.Logf("the first query succeeded %s after the listener came up", time.Since(up).Round(time.Millisecond))
	if took := time.Since(up); took > 3*time.Second { // the aim is 500 ms; a machine under load may take longer
		t.Errorf("%s is too late", took)
	}
}

func TestColdStartKeepsTheCallersDeadlineAndTellsWhatWasTried(t *testing.T) {
	t.Parallel()
	px, url, _ := startProxy(t, proxytest.WithListener(newLateListener(t)))
	pool := newPool(t, url, signedBy(px))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	start := time.Now()
	_, err := pool.Exec(ctx, "select 1")
	took := time.Since(start)
	t.Logf("after %s: %v", took.Round(time.Millisecond), err)
	var connectErr *proxy.ConnectError
	if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &connectErr) || connectErr.Attempts < 3 || !errors.Is(err, proxy.ErrUnreachable) {
		t.Errorf("got %v", err)
	}
	if took < 2*time.Second || took > 3*time.Second {
		t.Errorf("returned after %s", took)
	}
}

// sessions counts the application's sessions in a database.
func sessions(tb testing.TB, database string) (n int) {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), shared.DSN())
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close(tb.Context())
	if err := conn.QueryRow(tb.Context(), "select count(*) from pg_stat_activity where datname = $1", database).Scan(&n); err != nil {
		tb.Fatal(err)
	}
	return n
}

func waitFor(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			tb.Fatalf("%s: not within 20 s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestConnectingSendsNoStatementAndCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	px, url, dsn := startProxy(t)
	pool := newPool(t, url, signedBy(px), proxy.WithMaxConns(5))
	conns := make([]*pgxpool.Conn, 5)
	for i := range conns {
		var err error
		if conns[i], err = pool.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range conns {
		c.Release()
	}
	if n := px.Stats().Statements; n != 0 {
		t.Errorf("5 connects sent %d statements", n)
	}
	exec(t, pool, "select 1")
	pool.Close()
	waitFor(t, "client connections to close", func() bool { return px.Stats().ClientConnections == 0 })

	direct := newPool(t, dsn)
	exec(t, direct, "select 1")
	if err := px.Close(); err != nil {
		t.Error(err)
	}
	waitFor(t, "the proxy's sessions to end", func() bool { return sessions(t, name(t, dsn)) == 1 })
	direct.Close()
	waitFor(t, "the pool's sessions to end", func() bool { return sessions(t, name(t, dsn)) == 0 })
}

func TestPlainPasswordLoginAndCancellation(t *testing.T) {
	t.Parallel()
	pool := newPool(t, database(t, shared), proxy.WithMaxConns(1))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := pool.Exec(ctx, "select pg_sleep(600) /* to be cancelled */"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	var running int
	waitFor(t, "the query to be cancelled", func() bool {
		err := pool.QueryRow(t.Context(), "select count(*) from pg_stat_activity where query like '%to be cancelled%' and state = 'active' and pid <> pg_backend_pid()").Scan(&running)
		return err == nil && running == 0
	})
}

// A server that acknowledges what it cannot take in yet, as while a lock keeps it from reading on, is busy and
// not gone: it is waited for, for longer than a silent one would be.
func TestAServerThatStopsReadingIsWaitedFor(t *testing.T) {
	t.Parallel()
	const limit = time.Second
	dsn := database(t, shared)
	pool, other := newPool(t, dsn, proxy.WithPeerTimeout(limit)), newPool(t, dsn)
	exec(t, pool, "create table pile (note text)")
	lock, err := other.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := lock.Exec(t.Context(), "select pg_advisory_xact_lock(1)"); err != nil {
		t.Fatal(err)
	}
	var batch pgx.Batch
	batch.Queue("select pg_advisory_xact_lock(1)")
	for range 40 {
		batch.Queue("insert into pile values ($1)", strings.Repeat("x", 1<<20))
	}
	sent := make(chan error, 1)
	go func() { sent <- pool.SendBatch(t.Context(), &batch).Close() }()
	select {
	case err := <-sent:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(5 * limit):
	}
	if err := lock.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}
