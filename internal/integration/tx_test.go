package integration

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
	"github.com/aurorapgx/aurorapgx/retry"
)

// counter is a table with one number in it.
func counter(tb testing.TB, pool *pgxpool.Pool) (value func() int) {
	tb.Helper()
	exec(tb, pool, "create table counter (n int not null)")
	exec(tb, pool, "insert into counter values (0)")
	return func() (n int) {
		tb.Helper()
		if err := pool.QueryRow(tb.Context(), "select n from counter").Scan(&n); err != nil {
			tb.Fatal(err)
		}
		return n
	}
}

func increment(ctx context.Context) func(pgx.Tx) error {
	return func(tx pgx.Tx) error {
		var n int
		if err := tx.QueryRow(ctx, "select n from counter").Scan(&n); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, "update counter set n = $1", n+1)
		return err
	}
}

// Sixteen workers read and write the same row, serializably, and first all at the same time: they
// conflict, and each increment is made exactly once.
func TestTxRunsSerializationFailuresAgain(t *testing.T) {
	t.Parallel()
	pool := newPool(t, database(t, shared), proxy.WithMaxConns(16))
	value := counter(t, pool)
	var wg sync.WaitGroup
	var conflicts, done atomic.Int64
	policy := retry.Policy{Attempts: 500, Base: time.Millisecond, Cap: 50 * time.Millisecond, OnAttempt: func(_ context.Context, a retry.Attempt) {
		if a.Verdict == retry.RolledBack {
			conflicts.Add(1)
		}
	}}
	var haveRead sync.WaitGroup
	haveRead.Add(16)
	for range 16 {
		wg.Go(func() {
			together := sync.OnceFunc(func() {
				haveRead.Done()
				haveRead.Wait()
			})
			for range 10 {
				err := retry.Tx(t.Context(), pool, func(tx pgx.Tx) error {
					if _, err := tx.Exec(t.Context(), "select n from counter"); err != nil {
						return err
					}
					together()
					return increment(t.Context())(tx)
				}, retry.WithPolicy(policy), retry.WithTxOptions(pgx.TxOptions{IsoLevel: pgx.Serializable}))
				if err != nil {
					t.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	t.Logf("%d increments, %d conflicts", done.Load(), conflicts.Load())
	if value() != 160 || done.Load() != 160 || conflicts.Load() == 0 {
		t.Errorf("the counter is %d after %d increments with %d conflicts", value(), done.Load(), conflicts.Load())
	}
}

func TestTxSurvivesALostConnectionBeforeCommit(t *testing.T) {
	t.Parallel()
	r, through := newCuttingRelay(t, database(t, shared))
	pool := newPool(t, through, proxy.WithMaxConns(2))
	value := counter(t, pool)
	for _, where := range []string{"begin", "update counter"} {
		for _, after := range []bool{false, true} {
			before := value()
			r.cutAt(where, after, 2)
			runs := 0
			err := retry.Tx(t.Context(), pool, func(tx pgx.Tx) error { runs++; return increment(t.Context())(tx) })
			if err != nil || value() != before+1 {
				t.Errorf("cut at %s (after=%v): counter went from %d to %d in %d runs: %v", where, after, before, value(), runs, err)
			}
		}
	}
	r.cutNoMore()
	// The server ends the session in the middle of a transaction.
	before, runs := value(), 0
	err := retry.Tx(t.Context(), pool, func(tx pgx.Tx) error {
		if runs++; runs == 1 {
			admin(t, shared, "select pg_terminate_backend($1)", tx.Conn().PgConn().PID())
		}
		return increment(t.Context())(tx)
	})
	if err != nil || runs != 2 || value() != before+1 {
		t.Errorf("terminated: counter went from %d to %d in %d runs: %v", before, value(), runs, err)
	}
}

func TestTxDoesNotRunACommitInDoubtAgain(t *testing.T) {
	t.Parallel()
	r, through := newCuttingRelay(t, database(t, shared))
	pool := newPool(t, through)
	value := counter(t, pool)
	for _, after := range []bool{true, false} { // COMMIT took effect, COMMIT never arrived: from here they look the same
		before, runs := value(), 0
		r.cutAt("commit", after, 1)
		err := retry.Tx(t.Context(), pool, func(tx pgx.Tx) error { runs++; return increment(t.Context())(tx) })
		var inDoubt *retry.AmbiguousCommitError
		if !errors.As(err, &inDoubt) || runs != 1 {
			t.Errorf("after=%v: %d runs: %v", after, runs, err)
		}
		want := before
		if after {
			want++
		}
		if value() != want {
			t.Errorf("after=%v: the counter went from %d to %d", after, before, value())
		}
	}
}

func TestTxEndsWithTheApplicationsErrorsAndPanics(t *testing.T) {
	t.Parallel()
	pool := newPool(t, database(t, shared), proxy.WithMaxConns(1))
	value := counter(t, pool)
	insufficient := errors.New("insufficient funds")
	ended, cancel := context.WithCancel(t.Context())
	for name, fn := range map[string]func(pgx.Tx) error{
		"application": func(tx pgx.Tx) error { return errors.Join(increment(t.Context())(tx), insufficient) },
		"constraint": func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), "update counter set n = null")
			return err
		},
		"ignored": func(tx pgx.Tx) error { // COMMIT answers ROLLBACK
			_, _ = tx.Exec(t.Context(), "update counter set n = null")
			return nil
		},
		"context": func(tx pgx.Tx) error {
			err := increment(t.Context())(tx)
			cancel()
			return err
		},
	} {
		runs := 0
		ctx := t.Context()
		if name == "context" {
			ctx = ended
		}
		err := retry.Tx(ctx, pool, func(tx pgx.Tx) error { runs++; return fn(tx) })
		if err == nil || runs != 1 || value() != 0 {
			t.Errorf("%s: %d runs, counter %d: %v", name, runs, value(), err)
		}
		var pgErr *pgconn.PgError
		switch name {
		case "application":
			if !errors.Is(err, insufficient) || errors.As(err, new(*retry.Error)) {
				t.Errorf("%s: got %#v", name, err)
			}
		case "constraint":
			if !errors.As(err, &pgErr) || pgErr.Code != "23502" {
				t.Errorf("%s: got %v", name, err)
			}
		case "ignored":
			if !errors.Is(err, pgx.ErrTxCommitRollback) {
				t.Errorf("%s: got %v", name, err)
			}
		case "context":
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: got %v", name, err)
			}
		}
	}
	func() {
		defer func() {
			if recover() != "boom" {
				t.Error("the panic is lost")
			}
		}()
		_ = retry.Tx(t.Context(), pool, func(tx pgx.Tx) error {
			_ = increment(t.Context())(tx)
			panic("boom")
		})
	}()
	if pool.Stat().AcquiredConns() != 0 || value() != 0 {
		t.Errorf("%d connections are not returned, the counter is %d", pool.Stat().AcquiredConns(), value())
	}
}

// A function that breaks the rules is not run twice for it.
func TestTxDoesNotRunAFunctionAgainThatEndedItsTransaction(t *testing.T) {
	t.Parallel()
	pool := newPool(t, database(t, shared))
	value := counter(t, pool)
	fails := func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "do $$ begin raise sqlstate '40001'; end $$")
		return err
	}
	for name, end := range map[string]func(pgx.Tx) error{
		"SQL, then an error": func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), "commit"); err != nil {
				return err
			}
			return fails(tx)
		},
		"Commit":   func(tx pgx.Tx) error { return tx.Commit(t.Context()) },
		"Rollback": func(tx pgx.Tx) error { return tx.Rollback(t.Context()) },
		"rows left open": func(tx pgx.Tx) error {
			_, err := tx.Query(t.Context(), "select generate_series(1, 10)")
			return err
		},
	} {
		before, runs := value(), 0
		err := retry.Tx(t.Context(), pool, func(tx pgx.Tx) error {
			runs++
			return errors.Join(increment(t.Context())(tx), end(tx))
		})
		if err == nil || runs != 1 || value() > before+1 {
			t.Errorf("%s: %d runs, counter from %d to %d: %v", name, runs, before, value(), err)
		}
		if errors.As(err, new(*retry.AmbiguousCommitError)) {
			t.Errorf("%s: nothing is in doubt: %v", name, err)
		}
	}
}

// Another transaction's COMMIT in doubt, inside this one's function, stays in doubt.
func TestTxKeepsAnInnerCommitInDoubt(t *testing.T) {
	t.Parallel()
	pool := newPool(t, database(t, shared))
	runs := 0
	err := retry.Tx(t.Context(), pool, func(tx pgx.Tx) error {
		runs++
		admin(t, shared, "select pg_terminate_backend($1)", tx.Conn().PgConn().PID())
		_, err := tx.Exec(t.Context(), "select 1") // the outer connection is lost as well
		return errors.Join(&retry.AmbiguousCommitError{Err: errors.New("of another database")}, err)
	})
	if runs != 1 || !errors.As(err, new(*retry.AmbiguousCommitError)) {
		t.Errorf("%d runs: %v", runs, err)
	}
}

func TestTxValueAndSavepoints(t *testing.T) {
	t.Parallel()
	pool := newPool(t, database(t, shared))
	value := counter(t, pool)
	n, err := retry.TxValue(t.Context(), pool, func(tx pgx.Tx) (n int, err error) {
		inner := errors.New("only the savepoint")
		err = retry.Tx(t.Context(), tx, func(sp pgx.Tx) error {
			return errors.Join(increment(t.Context())(sp), inner)
		})
		if !errors.Is(err, inner) {
			t.Errorf("got %v", err)
		}
		if err := retry.Tx(t.Context(), tx, increment(t.Context())); err != nil {
			return 0, err
		}
		if err := retry.Tx(t.Context(), tx, increment(t.Context()), retry.WithTxOptions(pgx.TxOptions{IsoLevel: pgx.Serializable})); err == nil {
			t.Error("a savepoint took transaction options")
		}
		err = tx.QueryRow(t.Context(), "select n from counter").Scan(&n)
		return n, err
	})
	if n != 1 || err != nil || value() != 1 {
		t.Errorf("%d, %v, counter %d", n, err, value())
	}
}

// A failover in the middle of the work: every increment reported as done is there, and
// none in doubt is counted twice.
func TestTxThroughAFailoverOfTheProxy(t *testing.T) {
	t.Parallel()
	primary, standby, dsn := pair(t)
	px := proxytest.NewProxy(t, dsn, proxytest.WithMaxConnections(4))
	pool := newPool(t, px.URL(appUser, name(t, dsn)), signedBy(px))
	exec(t, pool, "create table done (worker int, i int)")
	waitFor(t, "the standby to have the table", func() bool {
		conn, err := pgx.Connect(t.Context(), on(dsn, standby))
		if err != nil {
			return false
		}
		defer conn.Close(t.Context())
		var there bool
		return conn.QueryRow(t.Context(), "select to_regclass('done') is not null").Scan(&there) == nil && there
	})
	stop := make(chan struct{})
	var acknowledged, inDoubt atomic.Int64
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				err := retry.Tx(t.Context(), pool, func(tx pgx.Tx) error {
					_, err := tx.Exec(t.Context(), "insert into done values ($1, $2)", worker, i)
					return err
				})
				switch {
				case err == nil:
					acknowledged.Add(1)
				case errors.As(err, new(*retry.AmbiguousCommitError)):
					inDoubt.Add(1)
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	waitFor(t, "work to be under way", func() bool { return acknowledged.Load() > 200 })
	px.StartFailover()
	if err := primary.Stop(t.Context()); err != nil { // cleanly, so that the asynchronous standby has everything
		t.Fatal(err)
	}
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := px.FinishFailover(on(dsn, standby)); err != nil {
		t.Fatal(err)
	}
	after := acknowledged.Load()
	waitFor(t, "work to go on", func() bool { return acknowledged.Load() > after+200 })
	close(stop)
	wg.Wait()
	var rows, distinct int64
	if err := pool.QueryRow(t.Context(), "select count(*), count(distinct (worker, i)) from done").Scan(&rows, &distinct); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d acknowledged, %d in doubt, %d there", acknowledged.Load(), inDoubt.Load(), rows)
	if rows != distinct || rows < acknowledged.Load() || rows > acknowledged.Load()+inDoubt.Load() {
		t.Errorf("%d rows, %d distinct, for %d acknowledged and %d in doubt", rows, distinct, acknowledged.Load(), inDoubt.Load())
	}
}
