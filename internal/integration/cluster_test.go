package integration

// Straight to a cluster, past no proxy: what becomes of a pool when the writer moves.

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/internal/pgtest/lab"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

func startCluster(tb testing.TB) *lab.Cluster {
	tb.Helper()
	c, err := lab.Start(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
	})
	return c
}

// clusterPool is a pool as an application has it, but for the names and the network.
func clusterPool(tb testing.TB, c *lab.Cluster, host string, opts ...proxy.Option) *pgxpool.Pool {
	tb.Helper()
	return newPool(tb, c.URL(host), append([]proxy.Option{
		proxy.WithLookup(c.Lookup), proxy.WithDialer(c.Dial), proxy.WithRootCAs(c.CA()),
	}, opts...)...)
}

// whoServes is the instance that a pool's next connection leads to.
func whoServes(tb testing.TB, pool *pgxpool.Pool) (id string) {
	tb.Helper()
	if err := pool.QueryRow(tb.Context(), "select aurora_db_instance_identifier()").Scan(&id); err != nil {
		tb.Fatal(err)
	}
	return id
}

// open opens all of a pool's connections.
func open(tb testing.TB, pool *pgxpool.Pool) {
	tb.Helper()
	if n := len(sockets(tb, pool)); n != int(pool.Config().MaxConns) {
		tb.Fatalf("%d connections", n)
	}
}

// Every connection that was open to the old writer when it became read-only: the first write finds
// out, in whichever way it is sent, and no other connection is asked.
func TestNobodyStaysOnTheOldWriter(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	ways := map[string]func(ctx context.Context, pool *pgxpool.Pool, by string) error{
		"a batch": func(ctx context.Context, pool *pgxpool.Pool, by string) error {
			b := &pgx.Batch{}
			b.Queue("select 1")
			b.Queue("insert into note values ($1)", by)
			return pool.SendBatch(ctx, b).Close()
		},
		"a transaction": func(ctx context.Context, pool *pgxpool.Pool, by string) error {
			return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
				_, err := tx.Exec(ctx, "insert into note values ($1)", by)
				return err
			})
		},
		"copy": func(ctx context.Context, pool *pgxpool.Pool, by string) error {
			_, err := pool.CopyFrom(ctx, pgx.Identifier{"note"}, []string{"by"}, pgx.CopyFromRows([][]any{{by}}))
			return err
		},
		"a literal": func(ctx context.Context, pool *pgxpool.Pool, by string) error {
			_, err := pool.Exec(ctx, "insert into note values ('"+by+"')")
			return err
		},
	}
	for _, mode := range []pgx.QueryExecMode{
		pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
		pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
	} {
		ways[mode.String()] = func(ctx context.Context, pool *pgxpool.Pool, by string) error {
			_, err := pool.Exec(ctx, "insert into note values ($1)", mode, by)
			return err
		}
	}
	const size = 4
	pools := map[string]*pgxpool.Pool{}
	for way := range ways {
		pools[way] = clusterPool(t, c, c.WriterHost(), proxy.WithMaxConns(size))
		open(t, pools[way])
	}
	around := clusterPool(t, c, c.WriterHost(), proxy.WithMaxConns(size))
	open(t, around)
	exec(t, around, "create table note (by text)")

	db, err := proxy.OpenDB(t.Context(), c.URL(c.WriterHost()), proxy.WithLookup(c.Lookup), proxy.WithDialer(c.Dial), proxy.WithRootCAs(c.CA()))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxIdleConns(size)
	var held []*sql.Conn
	for range size {
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
	}
	for _, conn := range held {
		_ = conn.Close()
	}

	old := c.Writer()
	if err := old.SetReadOnly(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	for way, write := range ways {
		t.Run(way, func(t *testing.T) {
			pool := pools[way]
			waitFor(t, "the old writer to be read-only", func() bool {
				var on string
				return pool.QueryRow(t.Context(), "show transaction_read_only").Scan(&on) == nil && on == "on"
			})
			before := sockets(t, pool)
			err := write(t.Context(), pool, way)
			if pgErr := new(pgconn.PgError); !errors.As(err, &pgErr) || pgErr.Code != "25006" {
				t.Errorf("the first write: %v, want 25006", err)
			}
			if verdict := retry.Classify(err); !verdict.Retryable() {
				t.Errorf("the first write's error is %s", verdict)
			}
			for range 2 * size {
				if err := write(t.Context(), pool, way); err != nil {
					t.Errorf("a later write: %v", err)
				}
			}
			for socket := range sockets(t, pool) {
				if before[socket] {
					t.Errorf("a connection to the old writer is still in use")
				}
			}
			if id := whoServes(t, pool); id != c.Writer().ID() {
				t.Errorf("served by %s", id)
			}
		})
	}
	refused := 0
	for range 2 * size {
		if _, err := db.ExecContext(t.Context(), "insert into note values ($1)", "database/sql"); err != nil {
			refused++
			if pgErr := new(pgconn.PgError); !errors.As(err, &pgErr) || pgErr.Code != "25006" {
				t.Errorf("database/sql: %v", err)
			}
		}
	}
	if refused != 1 {
		t.Errorf("database/sql: %d writes refused, want the first alone", refused)
	}

	attempts := 0
	err = retry.Tx(t.Context(), around, func(tx pgx.Tx) error {
		attempts++
		_, err := tx.Exec(t.Context(), "insert into note values ('retry.Tx')")
		return err
	})
	if err != nil || attempts != 2 {
		t.Errorf("retry.Tx: %v after %d attempts", err, attempts)
	}

	// What the application itself makes read-only says nothing of the server.
	conn, err := around.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn.Release()
	open(t, around)
	before := sockets(t, around)
	for range 3 {
		err := pgx.BeginTxFunc(t.Context(), around, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), "insert into note values ('no')")
			return err
		})
		if err == nil {
			t.Error("a read-only transaction has written")
		}
	}
	kept := 0
	for socket := range sockets(t, around) {
		if before[socket] {
			kept++
		}
	}
	if kept == 0 {
		t.Error("a read-only transaction of the application's own has cost the pool all its connections")
	}
}

// Packets are lost, for real, and nobody has set a deadline.
func TestABlackHoleEndsInSeconds(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	pool := clusterPool(t, c, c.WriterHost(), proxy.WithMaxConns(6), proxy.WithPeerTimeout(2*time.Second))
	exec(t, pool, "create table note (id int)")
	open(t, pool)
	waiting := make(chan error, 1)
	go func() {
		_, err := pool.Exec(t.Context(), "select pg_sleep(3600)")
		waiting <- err
	}()
	admin, err := pgx.Connect(t.Context(), c.AdminDSN())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(t.Context())
	waitFor(t, "the server to sleep", func() (asleep bool) {
		err := admin.QueryRow(t.Context(), "select exists (select from pg_stat_activity where wait_event = 'PgSleep')").Scan(&asleep)
		return err == nil && asleep
	})
	begun, holed, moved := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() { // a timeout of its own in a hole is not the statement's fault
		runs := 0
		moved <- retry.Tx(t.Context(), pool, func(tx pgx.Tx) error {
			if runs++; runs == 1 {
				close(begun)
				<-holed
			}
			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			_, err := tx.Exec(ctx, "insert into note values (3)")
			return err
		}, retry.WithPolicy(retry.Failover()))
	}()
	<-begun
	start := time.Now()
	c.Writer().BlackHole()
	close(holed)
	sent := make(chan error, 1)
	go func() {
		_, err := pool.Exec(t.Context(), "insert into note values (1)")
		sent <- err
	}()
	for what, ended := range map[string]chan error{"a statement that waits": waiting, "a statement that was sent": sent} {
		select {
		case err := <-ended:
			t.Logf("%s ended after %s: %v", what, time.Since(start).Round(10*time.Millisecond), err)
			if err == nil {
				t.Errorf("%s succeeded", what)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s hangs", what)
		}
	}
	if _, err := c.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	start = time.Now()
	exec(t, pool, "insert into note values (2)") // four idle connections lead into the hole
	t.Logf("the next statement took %s", time.Since(start).Round(time.Millisecond))
	if id := whoServes(t, pool); id != c.Writer().ID() {
		t.Errorf("served by %s", id)
	}
	if err := <-moved; err != nil {
		t.Errorf("the transaction did not move to the new writer: %v", err)
	}
}

// Also in the middle of large statements, and where the server could not take in all that was sent.
func TestABlackHoleEndsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	megabyte := strings.Repeat("x", 1<<20)
	for name, tt := range map[string]struct {
		send func(context.Context, *pgxpool.Pool) error
		goes time.Duration
	}{
		"which was taken in": {func(ctx context.Context, pool *pgxpool.Pool) error {
			for {
				if _, err := pool.Exec(ctx, "select length($1)", megabyte); err != nil {
					return err
				}
			}
		}, time.Second},
		"which was not": {func(ctx context.Context, pool *pgxpool.Pool) error {
			var batch pgx.Batch
			batch.Queue("select pg_advisory_xact_lock(1)")
			for range 40 {
				batch.Queue("select length($1)", megabyte)
			}
			return pool.SendBatch(ctx, &batch).Close()
		}, 6 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startCluster(t)
			pool := clusterPool(t, c, c.WriterHost(), proxy.WithPeerTimeout(2*time.Second))
			lock, err := pool.Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = lock.Rollback(context.WithoutCancel(t.Context())) }()
			if _, err := lock.Exec(t.Context(), "select pg_advisory_xact_lock(1)"); err != nil {
				t.Fatal(err)
			}
			sent := make(chan error, 1)
			go func() { sent <- tt.send(t.Context(), pool) }()
			select {
			case err := <-sent:
				t.Fatalf("it ended before: %v", err)
			case <-time.After(tt.goes):
			}
			start := time.Now()
			c.Writer().BlackHole()
			select {
			case err := <-sent:
				t.Logf("ended after %s: %v", time.Since(start).Round(10*time.Millisecond), err)
				if err == nil {
					t.Error("it succeeded")
				}
			case <-time.After(time.Minute):
				t.Fatal("it hangs")
			}
		})
	}
}

// With the topology known the endpoint's name is not waited for: neither while the old
// writer is down nor when it comes back as a reader.
func TestTheNewWriterIsFoundWithoutDNS(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]proxy.Option{
		"learned": {proxy.WithTopology()},
		"named":   {proxy.WithTopology("orders-1.c0ffee0lab.eu-west-1.rds.amazonaws.com", "orders-2.c0ffee0lab.eu-west-1.rds.amazonaws.com")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := startCluster(t)
			c.SetDNSLag(time.Hour)
			pool := clusterPool(t, c, c.WriterHost(), append(opts, proxy.WithMaxConns(5))...)
			exec(t, pool, "create table note (id int)")
			open(t, pool)
			if err := c.Writer().Kill(t.Context()); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			accepted := make(chan time.Time, 1)
			first := make(chan time.Time, 5)
			for i := range 5 {
				wg.Go(func() {
					err := retry.Tx(t.Context(), pool, func(tx pgx.Tx) error {
						_, err := tx.Exec(t.Context(), "insert into note values ($1)", i)
						return err
					})
					if err != nil {
						t.Error(err)
					}
					first <- time.Now()
				})
			}
			time.Sleep(700 * time.Millisecond) // the application tries on
			at, err := c.Promote(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			accepted <- at
			wg.Wait()
			t.Logf("first commit %s after the writer accepted it", (<-first).Sub(at).Round(time.Millisecond))
			if err := c.Return(t.Context()); err != nil {
				t.Fatal(err)
			}
			pool.Reset()
			open(t, pool) // with the endpoint leading to a reader
			for range 5 {
				conn, err := pool.Acquire(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if got := conn.Conn().PgConn().ParameterStatus("in_hot_standby"); got != "off" {
					t.Errorf("in_hot_standby is %q", got)
				}
				conn.Release()
			}
			exec(t, pool, "insert into note values (6)")
		})
	}
}

// A pool whose first connection finds the old writer, as a reader, asks it for the way.
func TestAReaderShowsTheWay(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	c.SetDNSLag(time.Hour)
	if _, err := c.Switchover(t.Context()); err != nil {
		t.Fatal(err)
	}
	pool := clusterPool(t, c, c.WriterHost(), proxy.WithTopology())
	start := time.Now()
	if id := whoServes(t, pool); id != "orders-2" {
		t.Errorf("served by %s", id)
	}
	t.Logf("found in %s", time.Since(start).Round(time.Millisecond))

	plain := clusterPool(t, c, c.WriterHost(), proxy.WithConnectBudget(time.Second))
	err := plain.Ping(t.Context())
	if !errors.Is(err, proxy.ErrReader) {
		t.Errorf("without the topology: %v", err)
	}
}

// A planned failover under load, again and again: nothing is lost, nothing done twice, and nobody
// sees an error.
func TestSwitchoversUnderLoad(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	pool := clusterPool(t, c, c.WriterHost(), proxy.WithTopology(), proxy.WithMaxConns(4))
	exec(t, pool, "create table note (id bigint primary key)")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		done     []int64
		inDoubt  int
		problems []error
	)
	for w := range int64(6) {
		wg.Go(func() {
			for id := w << 32; ctx.Err() == nil; id++ {
				err := retry.Tx(t.Context(), pool, func(tx pgx.Tx) error {
					_, err := tx.Exec(t.Context(), "insert into note values ($1)", id)
					return err
				}, retry.WithPolicy(retry.Failover()))
				mu.Lock()
				switch {
				case err == nil:
					done = append(done, id)
				case errors.As(err, new(*retry.AmbiguousCommitError)):
					inDoubt++
				default:
					problems = append(problems, err)
				}
				mu.Unlock()
			}
		})
	}
	for range 3 {
		time.Sleep(200 * time.Millisecond)
		if _, err := c.Switchover(t.Context()); err != nil {
			t.Error(err)
			break
		}
	}
	time.Sleep(200 * time.Millisecond)
	stop()
	wg.Wait()
	var there int
	if err := pool.QueryRow(t.Context(), "select count(*) from note").Scan(&there); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d transactions, %d commits in doubt, %d rows", len(done), inDoubt, there)
	for _, err := range problems {
		t.Error(err)
	}
	if there < len(done) || there > len(done)+inDoubt {
		t.Errorf("%d rows for %d commits and %d in doubt", there, len(done), inDoubt)
	}
}

// A pool on the reader endpoint reads from readers, follows the name, and is told of a write that
// it is one without losing the connection.
func TestReaderEndpoint(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	writer := clusterPool(t, c, c.WriterHost())
	exec(t, writer, "create table note (id int)")
	pool := clusterPool(t, c, c.ReaderHost(), proxy.WithMaxConns(2))
	waitFor(t, "the table to be there", func() bool { _, err := pool.Exec(t.Context(), "select from note"); return err == nil })
	if id := whoServes(t, pool); id != c.Reader().ID() {
		t.Errorf("served by %s", id)
	}
	open(t, pool)
	before := sockets(t, pool)
	_, err := pool.Exec(t.Context(), "insert into note values (1)")
	if pgErr := new(pgconn.PgError); !errors.As(err, &pgErr) || pgErr.Code != "25006" {
		t.Errorf("a write: %v", err)
	}
	for socket := range sockets(t, pool) {
		if !before[socket] {
			t.Error("the write cost a connection")
		}
	}
	if _, err := c.Switchover(t.Context()); err != nil {
		t.Fatal(err)
	}
	pool.Reset()
	if id := whoServes(t, pool); id != c.Reader().ID() {
		t.Errorf("after the switchover served by %s", id)
	}
}
