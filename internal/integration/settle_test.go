package integration

// Settling against a real PostgreSQL: COMMITs that are lost on either side, by both kinds of
// evidence, over pgx and database/sql, through RDS Proxy and without.

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
	"github.com/aurorapgx/aurorapgx/retry"
)

// ledger creates a ledger in the database.
func ledger(tb testing.TB, db retry.Execer) *retry.Ledger {
	tb.Helper()
	l, err := retry.NewLedger("public.commits")
	if err != nil {
		tb.Fatal(err)
	}
	if err := l.Create(tb.Context(), db); err != nil {
		tb.Fatal(err)
	}
	return l
}

// lastAttempts records what a Tx goes through.
type lastAttempts struct{ seen []retry.Attempt }

func (a *lastAttempts) policy() retry.TxOption {
	p := retry.Serialization()
	p.OnAttempt = func(_ context.Context, one retry.Attempt) { a.seen = append(a.seen, one) }
	return retry.WithPolicy(p)
}

func TestALostCommitIsSettled(t *testing.T) {
	t.Parallel()
	r, through := newCuttingRelay(t, database(t, shared))
	ours := newPool(t, through, proxy.WithMaxConns(2))
	plain, err := pgxpool.New(t.Context(), through)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(plain.Close)
	db := openDB(t, through)
	value := counter(t, ours)
	l := ledger(t, ours)
	viaSQL := func(opts ...retry.TxOption) func(*int) error {
		return func(runs *int) error {
			return retry.SQLTx(t.Context(), db, nil, func(tx *sql.Tx) error {
				*runs++
				_, err := tx.ExecContext(t.Context(), "update counter set n = n + 1")
				return err
			}, opts...)
		}
	}
	via := func(pool retry.Beginner, opts ...retry.TxOption) func(*int) error {
		return func(runs *int) error {
			return retry.Tx(t.Context(), pool, func(tx pgx.Tx) error {
				*runs++
				_, err := tx.Exec(t.Context(), "update counter set n = n + 1")
				return err
			}, opts...)
		}
	}
	for _, evidence := range []struct {
		name   string
		option retry.TxOption
	}{{"by xid", retry.SettleCommits()}, {"in a ledger", retry.SettleIn(l)}} {
		var seen lastAttempts
		for kind, do := range map[string]func(*int) error{
			"pool":       via(ours, evidence.option, seen.policy()),
			"plain pool": via(plain, evidence.option, seen.policy()),
			"Beginner":   via(onlyBeginTx{ours}, evidence.option, seen.policy()),
			"isolation":  via(ours, evidence.option, seen.policy(), retry.WithTxOptions(pgx.TxOptions{IsoLevel: pgx.Serializable, DeferrableMode: pgx.NotDeferrable})),
			"sql.DB":     viaSQL(evidence.option, seen.policy()),
		} {
			for _, after := range []bool{true, false} {
				seen.seen = nil
				before, runs := value(), 0
				r.cutAt("commit\x00", after, 1)
				err := do(&runs)
				r.cutNoMore()
				want, settlement := 2, retry.SettledRolledBack
				if after {
					want, settlement = 1, retry.SettledCommitted
				}
				if err != nil || runs != want || value() != before+1 || seen.seen[0].Settlement != settlement {
					t.Errorf("%s, %s, after=%v: %d runs, counter from %d to %d, attempts %+v: %v", evidence.name, kind, after, runs, before, value(), seen.seen, err)
				}
			}
		}
	}
}

// onlyBeginTx is a pool that hides what else it can do.
type onlyBeginTx struct{ pool *pgxpool.Pool }

func (b onlyBeginTx) Begin(ctx context.Context) (pgx.Tx, error) { return b.pool.Begin(ctx) }
func (b onlyBeginTx) BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error) {
	return b.pool.BeginTx(ctx, o)
}

// A COMMIT that is still under way when its transaction is settled comes too late: the
// ledger has the transaction's row in another's hand.
func TestALedgerKeepsALateCommitOut(t *testing.T) {
	t.Parallel()
	r, through := newFrameRelay(t, database(t, shared))
	pool := newPool(t, through, proxy.WithMaxConns(3))
	counter(t, pool)
	l := ledger(t, pool)
	// The relay holds the first COMMIT back until the transaction has been settled and run
	// again, and then delivers it. The caller has given up waiting for the answer.
	var held atomic.Pointer[chan struct{}]
	release, delivered := make(chan struct{}), make(chan struct{})
	held.Store(&release)
	hold := func(g group) place {
		if g.kinds == "Q" && bytes.HasSuffix(g.bytes, []byte("commit\x00")) {
			if wait := held.Swap(nil); wait != nil {
				<-*wait
				defer close(delivered)
				return unheard
			}
		}
		return nowhere
	}
	r.chance.Store(&hold)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	runs := 0
	add := func(tx pgx.Tx) error {
		runs++
		_, err := tx.Exec(t.Context(), "insert into counter values (1)") // no lock that the second run would wait for
		return err
	}
	err := retry.Tx(ctx, pool, add, retry.SettleIn(l), retry.WithSettleBudget(time.Minute))
	if runs != 1 || !errors.Is(err, context.DeadlineExceeded) || errors.As(err, new(*retry.AmbiguousCommitError)) {
		t.Fatalf("%d runs: %v", runs, err)
	}
	// It is known that nothing was committed: the caller may do it again.
	if err := retry.Tx(t.Context(), pool, add, retry.SettleIn(l)); err != nil {
		t.Fatal(err)
	}
	close(release)
	<-delivered
	waitFor(t, "the late session to end", func() bool {
		var n int
		err := pool.QueryRow(t.Context(), "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in transaction%'").Scan(&n)
		return err == nil && n == 0
	})
	var rows int
	if err := pool.QueryRow(t.Context(), "select count(*) from counter").Scan(&rows); err != nil || rows != 2 {
		t.Errorf("%d rows, want the first and one: %v", rows, err)
	}
}

// Why every transaction notes itself, and not only one that has an id: NOTIFY has an effect
// and gets its id at COMMIT only.
func TestATransactionThatOnlyNotifiesIsSettledToo(t *testing.T) {
	t.Parallel()
	dsn := database(t, shared)
	r, through := newCuttingRelay(t, dsn)
	pool := newPool(t, through, proxy.WithMaxConns(2))
	l := ledger(t, pool)
	listener := control(t, dsn)
	if _, err := listener.Exec(t.Context(), "listen news"); err != nil {
		t.Fatal(err)
	}
	for name, option := range map[string]retry.TxOption{"by xid": retry.SettleCommits(), "in a ledger": retry.SettleIn(l)} {
		r.cutAt("commit\x00", true, 1)
		err := retry.Tx(t.Context(), pool, func(tx pgx.Tx) error {
			var assigned bool
			if err := tx.QueryRow(t.Context(), "select pg_current_xact_id_if_assigned() is not null").Scan(&assigned); err != nil {
				return err
			}
			_, err := tx.Exec(t.Context(), "notify news")
			if err == nil && name == "in a ledger" {
				err = tx.QueryRow(t.Context(), "select pg_current_xact_id_if_assigned() is not null").Scan(&assigned)
				if assigned {
					t.Error("NOTIFY has given the transaction an id: the condition would do")
				}
			}
			return err
		}, option)
		r.cutNoMore()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := listener.WaitForNotification(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := listener.Exec(t.Context(), "select 1"); err != nil { // a second one would come with its answer
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if _, err := listener.WaitForNotification(ctx); err == nil {
			t.Errorf("%s: notified twice", name)
		}
		cancel()
	}
}

// Rows whose COMMIT was answered do not stay, and what is left is pruned by age.
func TestALedgerStaysSmall(t *testing.T) {
	t.Parallel()
	pool := newPool(t, database(t, shared), proxy.WithMaxConns(8))
	exec(t, pool, "create table note (n int)")
	l := ledger(t, pool)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 150 {
				err := retry.Tx(t.Context(), pool, func(tx pgx.Tx) error {
					_, err := tx.Exec(t.Context(), "insert into note values (1)")
					return err
				}, retry.SettleIn(l))
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	rows := func() (n int) {
		if err := pool.QueryRow(t.Context(), "select count(*) from commits").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := rows(); n != 1200%256 {
		t.Errorf("%d rows after 1200 transactions", n)
	}
	if n, err := l.Prune(t.Context(), pool, time.Hour); n != 0 || err != nil {
		t.Errorf("pruned %d young rows: %v", n, err)
	}
	exec(t, pool, "update commits set at = at - interval '2 hours'")
	if n, err := l.Prune(t.Context(), pool, time.Hour); n != 1200%256 || err != nil || rows() != 0 {
		t.Errorf("pruned %d, %d left: %v", n, rows(), err)
	}
}

// A ledger whose table is not there says so.
func TestALedgerWithoutATable(t *testing.T) {
	t.Parallel()
	dsn := database(t, shared)
	pool := newPool(t, dsn)
	exec(t, pool, "create table note (n int)")
	l, err := retry.NewLedger(`public."Commits"`)
	if err != nil {
		t.Fatal(err)
	}
	for kind, err := range map[string]error{
		"pgx": retry.Tx(t.Context(), pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), "insert into note values (1)")
			return err
		}, retry.SettleIn(l)),
		"sql": retry.SQLTx(t.Context(), openDB(t, dsn), nil, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(t.Context(), "insert into note values (1)")
			return err
		}, retry.SettleIn(l)),
	} {
		if err == nil || !strings.Contains(err.Error(), `the ledger "public"."Commits" is missing`) || errors.As(err, new(*retry.AmbiguousCommitError)) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	var n int
	if err := pool.QueryRow(t.Context(), "select count(*) from note").Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows: %v", n, err)
	}
}

// Through RDS Proxy neither kind of settling pins, and a proxy that hangs up in the middle of
// COMMIT leaves nothing in doubt.
func TestSettlingThroughTheProxy(t *testing.T) {
	t.Parallel()
	px, url, _ := startProxy(t, proxytest.WithMaxConnections(2))
	pool := newPool(t, url, signedBy(px), proxy.WithMaxConns(6))
	value := counter(t, pool)
	l := ledger(t, pool)
	for name, option := range map[string]retry.TxOption{"by xid": retry.SettleCommits(), "in a ledger": retry.SettleIn(l)} {
		before := value()
		for range 20 {
			err := retry.Tx(t.Context(), pool, func(tx pgx.Tx) error {
				_, err := tx.Exec(t.Context(), "update counter set n = n + 1")
				return err
			}, option)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if value() != before+20 {
			t.Errorf("%s: counter from %d to %d", name, before, value())
		}
	}
	if pins := px.Pins(); len(pins) > 0 {
		t.Errorf("pinned: %+v", pins)
	}
}
