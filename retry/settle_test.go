package retry_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/retry"
)

// asked tells the statements of settling from others.
func asked(sql string) (learns, asks bool) {
	return strings.Contains(sql, "pg_current_xact_id()"), strings.Contains(sql, "pg_xact_status")
}

// What the server says about a transaction whose COMMIT was lost, and what follows.
func TestWhatAnXIDProves(t *testing.T) {
	t.Parallel()
	const begun, crashed, other = "1000.5", "1001.5", "2000.5"
	same := func(status any) reply { return reply{row: []any{false, begun, begun, status}} }
	restarted := func(status any) reply { return reply{row: []any{false, begun, crashed, status}} }
	promoted := func(status any) reply { return reply{row: []any{false, other, begun, status}} }
	recovering := reply{row: []any{true, other, begun, nil}}
	for _, tt := range []struct {
		name       string
		learned    []any
		answers    []reply // of pg_xact_status, one after the other
		runs       int
		settlement retry.Settlement
		why        string // of an AmbiguousCommitError
	}{
		{name: "committed", answers: []reply{same("committed")}, runs: 1, settlement: retry.SettledCommitted},
		{name: "aborted", answers: []reply{same("aborted")}, runs: 2, settlement: retry.SettledRolledBack},
		{name: "in progress, then committed", answers: []reply{same("in progress"), same("in progress"), same("committed")}, runs: 1, settlement: retry.SettledCommitted},
		{name: "in progress, then aborted", answers: []reply{same("in progress"), same("aborted")}, runs: 2, settlement: retry.SettledRolledBack},
		{name: "a connection is lost", answers: []reply{{cut: true}, {code: "57P03"}, {code: "40001"}, {code: "57014"}, {code: "55P03"}, same("committed")}, runs: 1, settlement: retry.SettledCommitted},
		{name: "a standby has no say", answers: []reply{recovering, same("committed")}, runs: 1, settlement: retry.SettledCommitted},
		{name: "too old", answers: []reply{same(nil)}, runs: 1, settlement: retry.Unsettled, why: "forgotten"},
		{name: "a crash, aborted", answers: []reply{restarted("aborted")}, runs: 2, settlement: retry.SettledRolledBack},
		{name: "a crash, in progress", answers: []reply{restarted("in progress")}, runs: 2, settlement: retry.SettledRolledBack},
		{name: "a crash, committed", answers: []reply{restarted("committed")}, runs: 1, settlement: retry.Unsettled, why: "crashed or was replaced"},
		{name: "a promotion, aborted", answers: []reply{recovering, promoted("aborted")}, runs: 2, settlement: retry.SettledRolledBack},
		{name: "a promotion, committed", answers: []reply{promoted("committed")}, runs: 1, settlement: retry.Unsettled, why: "crashed or was replaced"},
		{name: "a promotion, too old", answers: []reply{promoted(nil)}, runs: 1, settlement: retry.Unsettled, why: "forgotten"},
		{name: "no such function", answers: []reply{{code: "42883"}}, runs: 1, settlement: retry.Unsettled, why: "42883"},
		{name: "an unheard-of status", answers: []reply{same("frozen")}, runs: 1, settlement: retry.Unsettled, why: "frozen"},
		{name: "nothing to learn on a standby", learned: []any{nil, begun, begun}, runs: 2, settlement: retry.SettledRolledBack},
		{name: "no reset time", learned: []any{"4711", begun, nil}, answers: []reply{{row: []any{false, begun, nil, "committed"}}}, runs: 1, settlement: retry.Unsettled, why: "crashed or was replaced"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			commits := 0
			pool := scriptedFor(t, func(sql string) reply {
				learns, asks := asked(sql)
				switch {
				case learns && tt.learned != nil:
					return reply{row: tt.learned}
				case learns:
					return reply{row: []any{"4711", begun, begun}}
				case asks:
					if !strings.Contains(sql, "4711") {
						t.Errorf("asked about another transaction: %s", sql)
					}
					answer := tt.answers[0]
					tt.answers = tt.answers[1:]
					return answer
				case sql == "commit" && commits == 0:
					commits++
					return reply{cut: true}
				}
				return reply{}
			})
			var first retry.Attempt
			policy := retry.Policy{Attempts: 3, Base: time.Millisecond, OnAttempt: func(_ context.Context, a retry.Attempt) {
				if a.Number == 1 {
					first = a
				}
			}}
			runs := 0
			err := retry.Tx(t.Context(), pool, func(pgx.Tx) error { runs++; return nil }, retry.SettleCommits(), retry.WithPolicy(policy))
			if runs != tt.runs || first.Settlement != tt.settlement || len(tt.answers) > 0 {
				t.Errorf("%d runs, %v, %d answers not asked for: %v", runs, first.Settlement, len(tt.answers), err)
			}
			var doubt *retry.AmbiguousCommitError
			if inDoubt := errors.As(err, &doubt); inDoubt != (tt.why != "") || !inDoubt && err != nil {
				t.Errorf("got %v", err)
			} else if inDoubt && (doubt.XID != 4711 || !strings.Contains(doubt.Error(), tt.why) || !strings.Contains(doubt.Unsettled.Error(), tt.why)) {
				t.Errorf("transaction %d: %v", doubt.XID, doubt)
			}
			if tt.settlement == retry.SettledCommitted && (first.Err != nil || !first.Last) {
				t.Errorf("the hook saw %+v", first)
			}
		})
	}
}

// lostOnce is a server that gets the first COMMIT and keeps the answer.
func lostOnce(asked func(sql string) (reply, bool)) script {
	lost := false
	return func(sql string) reply {
		if !lost && strings.HasSuffix(sql, "commit") {
			lost = true
			return reply{cut: true}
		}
		if r, ok := asked(sql); ok {
			return r
		}
		return reply{}
	}
}

const life = "1000.5"

// says answers both kinds of questions.
func says(status string, committed bool) func(string) (reply, bool) {
	return func(sql string) (reply, bool) {
		learns, asks := asked(sql)
		switch {
		case learns:
			return reply{row: []any{"4711", life, life}}, true
		case asks:
			return reply{row: []any{false, life, life, status}}, true
		case strings.Contains(sql, "on conflict"):
			return reply{row: []any{committed}}, true
		}
		return reply{}, false
	}
}

func newLedger(t *testing.T) *retry.Ledger {
	t.Helper()
	l, err := retry.NewLedger("app.commits")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// The caller's deadline passes with COMMIT under way. Settling keeps the deadline, unless it
// was given a budget of its own.
func TestSettlingKeepsTheCallersDeadline(t *testing.T) {
	t.Parallel()
	for name, evidence := range map[string]retry.TxOption{"by xid": retry.SettleCommits(), "in a ledger": retry.SettleIn(newLedger(t))} {
		for _, committed := range []bool{true, false} {
			for _, budget := range []time.Duration{0, time.Minute} {
				ctx, cancel := context.WithCancel(t.Context())
				status := map[bool]string{true: "committed", false: "aborted"}[committed]
				inner := lostOnce(says(status, committed))
				pool := scriptedFor(t, func(sql string) reply {
					r := inner(sql)
					if r.cut {
						cancel()
					}
					return r
				})
				opts := []retry.TxOption{evidence}
				if budget > 0 {
					opts = append(opts, retry.WithSettleBudget(budget))
				}
				runs := 0
				err := retry.Tx(ctx, pool, func(pgx.Tx) error { runs++; return nil }, opts...)
				doubt := errors.As(err, new(*retry.AmbiguousCommitError))
				if runs != 1 || doubt != (budget == 0) || budget > 0 && (err == nil) != committed || err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("%s, %s, budget %s: %d runs: %v", name, status, budget, runs, err)
				}
			}
		}
	}
}

// A server that never says more than "in progress" ends with the budget.
func TestSettlingEndsWithItsBudget(t *testing.T) {
	t.Parallel()
	pool := scriptedFor(t, lostOnce(says("in progress", false)))
	begun := time.Now()
	err := retry.Tx(t.Context(), pool, func(pgx.Tx) error { return nil }, retry.SettleCommits(), retry.WithSettleBudget(300*time.Millisecond))
	if doubt, ok := errors.AsType[*retry.AmbiguousCommitError](err); !ok || !strings.Contains(doubt.Unsettled.Error(), "in progress") {
		t.Errorf("after %s: %v", time.Since(begun), err)
	}
}

// What the context says of running again holds for settled COMMITs as well.
func TestSettlingAndWhatTheContextPermits(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		mark   func(context.Context) context.Context
		status string
		runs   int
		inErr  bool
	}{
		{"idempotent, committed: settled first", retry.Idempotent, "committed", 1, false},
		{"idempotent, in doubt: run again", retry.Idempotent, "frozen", 2, false},
		{"never, committed", retry.Never, "committed", 1, false},
		{"never, aborted: known, and not run again", retry.Never, "aborted", 1, true},
	} {
		runs := 0
		err := retry.Tx(tt.mark(t.Context()), scriptedFor(t, lostOnce(says(tt.status, false))), func(pgx.Tx) error { runs++; return nil }, retry.SettleCommits())
		if runs != tt.runs || (err != nil) != tt.inErr || errors.As(err, new(*retry.AmbiguousCommitError)) {
			t.Errorf("%s: %d runs: %v", tt.name, runs, err)
		}
	}
}

// A transaction that is declared read-only is not asked about.
func TestAReadOnlyTransactionNeedsNoSettling(t *testing.T) {
	t.Parallel()
	for name, evidence := range map[string]retry.TxOption{"by xid": retry.SettleCommits(), "in a ledger": retry.SettleIn(newLedger(t))} {
		pool := scriptedFor(t, lostOnce(func(sql string) (reply, bool) {
			if strings.Contains(sql, "xact") || strings.Contains(sql, "insert") {
				t.Errorf("%s: %s", name, sql)
			}
			return reply{}, false
		}))
		runs, told := 0, &recorder{}
		err := retry.Tx(t.Context(), pool, func(pgx.Tx) error { runs++; return nil }, evidence, retry.WithObserver(told), retry.WithTxOptions(pgx.TxOptions{AccessMode: pgx.ReadOnly}))
		if err != nil || runs != 2 {
			t.Errorf("%s: %d runs: %v", name, runs, err)
		}
		if seen := strings.Join(told.seen, ", "); strings.Count(seen, "in doubt") != 1 || !strings.Contains(seen, ": rolled back") {
			t.Errorf("%s: a doubt and no end of it: %s", name, seen)
		}
	}
}

// No time to settle is none, and not the default.
func TestNoTimeToSettle(t *testing.T) {
	t.Parallel()
	for _, budget := range []time.Duration{0, -time.Second} {
		pool := scriptedFor(t, lostOnce(says("committed", true)))
		runs := 0
		err := retry.Tx(t.Context(), pool, func(pgx.Tx) error { runs++; return nil }, retry.SettleCommits(), retry.WithSettleBudget(budget))
		var doubt *retry.AmbiguousCommitError
		if !errors.As(err, &doubt) || doubt.Unsettled == nil || runs != 1 {
			t.Errorf("%s: %d runs: %v", budget, runs, err)
		}
	}
}

// On a single connection there is nobody left to ask.
func TestALostSingleConnectionCannotBeSettled(t *testing.T) {
	t.Parallel()
	for name, single := range map[string]func(*pgxpool.Conn) retry.Beginner{
		"pgxpool.Conn": func(c *pgxpool.Conn) retry.Beginner { return c },
		"pgx.Conn":     func(c *pgxpool.Conn) retry.Beginner { return c.Conn() },
	} {
		conn, err := scriptedFor(t, lostOnce(says("committed", true))).Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		err = retry.Tx(t.Context(), single(conn), func(pgx.Tx) error { return nil }, retry.SettleCommits())
		if !errors.As(err, new(*retry.AmbiguousCommitError)) || !strings.Contains(err.Error(), "use a pool") {
			t.Errorf("%s: %v", name, err)
		}
		conn.Release()
	}
}

// An ERROR in answer to the row is not doubt: COMMIT was not reached.
func TestALedgerThatIsNotAsItShouldBe(t *testing.T) {
	t.Parallel()
	for code, advice := range map[string]string{"42501": "rights", "3F000": "Create", "42P10": "Create", "25006": "read-only"} {
		pool := scriptedFor(t, func(sql string) reply {
			if strings.Contains(sql, "insert") {
				return reply{code: code}
			}
			return reply{}
		})
		runs := 0
		err := retry.Tx(t.Context(), pool, func(pgx.Tx) error { runs++; return nil }, retry.SettleIn(newLedger(t)), retry.WithPolicy(retry.Policy{Attempts: 2, Base: time.Millisecond}))
		want := map[bool]int{true: 2, false: 1}[code == "25006"] // the next connection may be to a writer
		if err == nil || runs != want || errors.As(err, new(*retry.AmbiguousCommitError)) || !strings.Contains(strings.ReplaceAll(err.Error(), "ReadOnly", "read-only"), advice) {
			t.Errorf("%s: %d runs: %v", code, runs, err)
		}
	}
}

// A statement failed, and the function ignored it: nothing is committed, nor noted.
func TestAFailedTransactionIsNotNoted(t *testing.T) {
	t.Parallel()
	pool := scriptedFor(t, func(sql string) reply {
		if strings.Contains(sql, "commit") {
			t.Errorf("sent: %s", sql)
		}
		if sql == "select 1/0" {
			return reply{code: "22012"}
		}
		return reply{}
	})
	err := retry.Tx(t.Context(), pool, func(tx pgx.Tx) error { _, _ = tx.Exec(t.Context(), "select 1/0"); return nil }, retry.SettleIn(newLedger(t)))
	if !errors.Is(err, pgx.ErrTxCommitRollback) {
		t.Error(err)
	}
}

func TestNamesOfLedgers(t *testing.T) {
	t.Parallel()
	for name, quoted := range map[string]string{
		"app.commits":                    `"app"."commits"`,
		`"App".commits`:                  `"App"."commits"`,
		`app."co""mm.its; drop table x"`: `"app"."co""mm.its; drop table x"`,
		"commits":                        "",
		"App.commits":                    "",
		"app.commits; drop table x":      "",
		`app."commits`:                   "",
		"a.b.c":                          "",
		"":                               "",
	} {
		l, err := retry.NewLedger(name)
		if (err == nil) != (quoted != "") {
			t.Errorf("%q: %v", name, err)
		}
		if err == nil && !strings.HasPrefix(l.SQL(), "create table if not exists "+quoted+" (") {
			t.Errorf("%q: %s", name, l.SQL())
		}
	}
}
