package integration

// Settling against a real PostgreSQL: COMMITs that are lost on either side, by both kinds of
// evidence, over pgx and database/sql, through RDS Proxy and without.

import (
	"context"
	"database/sql"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy"
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
