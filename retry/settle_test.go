package retry_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

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
