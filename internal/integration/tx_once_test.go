package integration

// Functions for Tx and SQLTx that must not run a second time, although their errors look as if
// they might.

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/aurorapgx/aurorapgx/retry"
)

// A function that commits by itself is not run again for it, whether it hears of its success or not.
func TestAFunctionThatCommitsByItselfRunsOnce(t *testing.T) {
	t.Parallel()
	r, through := newCuttingRelay(t, database(t, shared))
	pool, db := newPool(t, through), openDB(t, through)
	value := counter(t, newPool(t, through))
	conflict := retry.Mark(errors.New("a conflict elsewhere"), retry.RolledBack)
	runs := 0
	for name, transact := range map[string]func(then error) error{
		"Tx": func(then error) error {
			return retry.Tx(t.Context(), pool, func(tx pgx.Tx) error {
				runs++
				return errors.Join(increment(t.Context())(tx), tx.Commit(t.Context()), then)
			})
		},
		"SQLTx": func(then error) error {
			return retry.SQLTx(t.Context(), db, nil, func(tx *sql.Tx) error {
				runs++
				_, err := tx.ExecContext(t.Context(), "update counter set n = n + 1")
				return errors.Join(err, tx.Commit(), then)
			})
		},
	} {
		for _, then := range []error{nil, conflict} {
			before := value()
			if runs = 0; transact(then) == nil || runs != 1 || value() != before+1 {
				t.Errorf("%s, then %v: %d runs, counter from %d to %d", name, then, runs, before, value())
			}
		}
		before := value()
		runs = 0
		r.cutAt("commit", true, 1)
		err := transact(nil)
		r.cutNoMore()
		if err == nil || runs != 1 || value() != before+1 {
			t.Errorf("%s, its answer lost: %d runs, counter from %d to %d: %v", name, runs, before, value(), err)
		}
	}
}

// What is in doubt elsewhere is not made again because this transaction can be.
func TestWhatIsInDoubtElsewhereEndsSQLTx(t *testing.T) {
	t.Parallel()
	r, through := newCuttingRelay(t, database(t, shared))
	db, direct := openDB(t, through), newPool(t, through)
	value := counter(t, direct)
	exec(t, direct, "create table audit (what text)")
	paid := retry.Mark(errors.New("the payment was not answered"), retry.Ambiguous)
	for name, elsewhere := range map[string]func() error{
		"a statement beside the transaction": func() error {
			_, err := db.ExecContext(t.Context(), "insert into audit values ('payment')")
			return err
		},
		"an error marked as ambiguous": func() error { return paid },
	} {
		r.cutAt("insert into audit", true, 1)
		runs := 0
		err := retry.SQLTx(t.Context(), db, nil, func(tx *sql.Tx) error {
			runs++
			if _, err := tx.ExecContext(t.Context(), "update counter set n = n + 1"); err != nil {
				return err
			}
			return elsewhere()
		})
		r.cutNoMore()
		if err == nil || runs != 1 || value() != 0 {
			t.Errorf("%s: %d runs, counter %d: %v", name, runs, value(), err)
		}
	}
	var audits int
	if err := direct.QueryRow(t.Context(), "select count(*) from audit").Scan(&audits); err != nil || audits != 1 {
		t.Errorf("%d rows: %v", audits, err)
	}
	runs := 0 // also where this transaction's connection is lost with it
	err := retry.Tx(t.Context(), direct, func(tx pgx.Tx) error {
		runs++
		admin(t, shared, "select pg_terminate_backend($1)", tx.Conn().PgConn().PID())
		_, err := tx.Exec(t.Context(), "select 1")
		return errors.Join(paid, err)
	})
	if !errors.Is(err, paid) || runs != 1 {
		t.Errorf("%d runs: %v", runs, err)
	}
}

// A context of the function's own that ends in the middle of a statement ends the transaction. The statement
// may go on at the server, and another would join it.
func TestAContextOfTheFunctionsOwnEndsTx(t *testing.T) {
	t.Parallel()
	dsn := database(t, shared)
	pool, db, witness := newPool(t, dsn), openDB(t, dsn), newPool(t, dsn)
	databaseName, runs := name(t, dsn), 0
	// cutOff cancels the statement that do sends, when the server is at it.
	cutOff := func(cancel context.CancelFunc, do func(text string) error) error {
		runs++
		const text = "select pg_sleep(600)"
		done := make(chan error, 1)
		go func() { done <- do(text) }()
		waitFor(t, "the server to be at the statement", func() (there bool) {
			err := witness.QueryRow(t.Context(), "select exists (select from pg_stat_activity where datname = current_database() and state = 'active' and query = $1)", text).Scan(&there)
			return err == nil && there
		})
		cancel()
		return <-done
	}
	for name, transact := range map[string]func(context.Context, context.CancelFunc) error{
		"Tx": func(ctx context.Context, cancel context.CancelFunc) error {
			return retry.Tx(t.Context(), pool, func(tx pgx.Tx) error {
				return cutOff(cancel, func(text string) error { _, err := tx.Exec(ctx, text); return err })
			})
		},
		"SQLTx": func(ctx context.Context, cancel context.CancelFunc) error {
			return retry.SQLTx(t.Context(), db, nil, func(tx *sql.Tx) error {
				return cutOff(cancel, func(text string) error { _, err := tx.ExecContext(ctx, text); return err })
			})
		},
	} {
		runs = 0
		ctx, cancel := context.WithCancel(t.Context())
		if err := transact(ctx, cancel); !errors.Is(err, context.Canceled) || runs != 1 {
			t.Errorf("%s: %d runs: %v", name, runs, err)
		}
		admin(t, shared, "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and query like '%pg_sleep(600)%' and pid <> pg_backend_pid()", databaseName)
	}
	ctx, cancel := context.WithCancel(t.Context()) // the caller's: proof for whoever is further out
	err := retry.Tx(ctx, pool, func(tx pgx.Tx) error {
		return cutOff(cancel, func(text string) error { _, err := tx.Exec(ctx, text); return err })
	})
	if !errors.Is(err, context.Canceled) || retry.Classify(err) != retry.RolledBack {
		t.Errorf("the caller's own: %s: %v", retry.Classify(err), err)
	}
}

// A single connection that is lost is not asked for again and again.
func TestSQLTxOnALostConnection(t *testing.T) {
	t.Parallel()
	dsn := database(t, shared)
	conn, err := openDB(t, dsn).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	attempts := 0
	policy := retry.Failover()
	policy.OnAttempt = func(context.Context, retry.Attempt) { attempts++ }
	err = retry.SQLTx(t.Context(), conn, nil, func(tx *sql.Tx) error {
		var pid uint32
		if err := tx.QueryRowContext(t.Context(), "select pg_backend_pid()").Scan(&pid); err != nil {
			return err
		}
		admin(t, shared, "select pg_terminate_backend($1)", pid)
		_, err := tx.ExecContext(t.Context(), "select 1")
		return err
	}, retry.WithPolicy(policy))
	if err == nil || attempts != 2 {
		t.Errorf("%d attempts: %v", attempts, err)
	}
}
