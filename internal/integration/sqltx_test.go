package integration

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

func TestSQLTx(t *testing.T) {
	t.Parallel()
	r, through := newCuttingRelay(t, database(t, shared))
	db := openDB(t, through)
	direct := newPool(t, through)
	value := counter(t, direct)
	add := func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRowContext(t.Context(), "select n from counter").Scan(&n); err != nil {
			return err
		}
		_, err := tx.ExecContext(t.Context(), "update counter set n = $1", n+1)
		return err
	}

	for _, where := range []string{"begin", "update counter"} { // lost before COMMIT: run again
		before, runs := value(), 0
		r.cutAt(where, true, 1)
		err := retry.SQLTx(t.Context(), db, nil, func(tx *sql.Tx) error { runs++; return add(tx) })
		r.cutNoMore()
		if err != nil || value() != before+1 {
			t.Errorf("cut at %s: counter went from %d to %d in %d runs: %v", where, before, value(), runs, err)
		}
	}

	before, runs := value(), 0
	r.cutAt("commit", true, 1) // COMMIT took effect, its answer is lost
	err := retry.SQLTx(t.Context(), db, nil, func(tx *sql.Tx) error { runs++; return add(tx) })
	r.cutNoMore()
	if !errors.As(err, new(*retry.AmbiguousCommitError)) || runs != 1 || value() != before+1 {
		t.Errorf("commit in doubt: counter went from %d to %d in %d runs: %v", before, value(), runs, err)
	}

	mine := errors.New("insufficient funds")
	before, runs = value(), 0
	err = retry.SQLTx(t.Context(), db, nil, func(tx *sql.Tx) error { runs++; return errors.Join(add(tx), mine) })
	if !errors.Is(err, mine) || runs != 1 || value() != before {
		t.Errorf("application's error: counter went from %d to %d in %d runs: %v", before, value(), runs, err)
	}

	for _, foreign := range []error{io.EOF, &url.Error{Op: "Post", URL: "https://payments.example.com", Err: context.DeadlineExceeded}} {
		runs = 0 // such an error is not the database's, and a payment is not sent twice for it
		err = retry.SQLTx(t.Context(), db, nil, func(tx *sql.Tx) error { runs++; return errors.Join(add(tx), foreign) })
		if !errors.Is(err, foreign) || runs != 1 || value() != before {
			t.Errorf("%v: %d runs, counter from %d to %d: %v", foreign, runs, before, value(), err)
		}
	}

	ctx, cancel := context.WithCancel(t.Context())
	err = retry.SQLTx(ctx, db, nil, func(tx *sql.Tx) error { defer cancel(); return add(tx) })
	if !errors.Is(err, context.Canceled) || value() != before {
		t.Errorf("context: counter went from %d to %d: %v", before, value(), err)
	}
}

func TestSQLTxRunsSerializationFailuresAgain(t *testing.T) {
	t.Parallel()
	dsn := database(t, shared)
	db := openDB(t, dsn, proxy.WithMaxConns(8))
	value := counter(t, newPool(t, dsn))
	policy := retry.Policy{Attempts: 500, Base: time.Millisecond, Cap: 50 * time.Millisecond}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				err := retry.SQLTx(t.Context(), db, &sql.TxOptions{Isolation: sql.LevelSerializable}, func(tx *sql.Tx) error {
					var n int
					if err := tx.QueryRowContext(t.Context(), "select n from counter").Scan(&n); err != nil {
						return err
					}
					_, err := tx.ExecContext(t.Context(), "update counter set n = $1", n+1)
					return err
				}, retry.WithPolicy(policy))
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if value() != 40 {
		t.Errorf("the counter is %d after 40 increments", value())
	}
}
