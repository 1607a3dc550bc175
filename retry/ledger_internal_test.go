package retry

import (
	"context"
	"errors"
	"testing"
	"time"
)

// A process that was frozen for as long as it takes to prune the ledger does not take a row
// that is gone for one that was never there. The wall clock tells, which goes on in a frozen process.
func TestALedgerIsNotAskedAboutWhatMayHaveBeenPruned(t *testing.T) {
	t.Parallel()
	ledger, err := NewLedger("app.commits")
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	run := func(context.Context, string, []any, ...any) error { asked++; return nil }
	for age, want := range map[time.Duration]int{0: 1, maxSettle: 1, minPrune: 0} {
		for name, claim := range map[string]func() (claim, error){
			"Tx":    func() (claim, error) { return byLedger{ledger}.beforeCommit(t.Context(), newToken(), run) },
			"SQLTx": func() (claim, error) { return byLedger{ledger}.inSQL(t.Context(), run) },
		} {
			c, err := claim()
			if err != nil || c.sent.String() != c.sent.Round(0).String() || time.Since(c.sent) > time.Minute {
				t.Fatalf("%s: sent %s: %v", name, c.sent, err)
			}
			c.sent, asked = c.sent.Add(-age), 0
			if _, err := (byLedger{ledger}).ask(t.Context(), run, c); asked != want || errors.Is(err, errPruned) != (want == 0) {
				t.Errorf("%s, %s after COMMIT: asked %d times: %v", name, age, asked, err)
			}
		}
	}
}

// Frozen between the question and the answer: a row that is there proves what it does at any age.
func TestALedgersAnswerThatComesTooLate(t *testing.T) {
	t.Parallel()
	ledger, err := NewLedger("app.commits")
	if err != nil {
		t.Fatal(err)
	}
	for _, there := range []bool{false, true} {
		c := newToken().dated()
		c.sent = c.sent.Add(50*time.Millisecond - maxAge)
		committed, err := byLedger{ledger}.ask(t.Context(), func(_ context.Context, _ string, _ []any, dst ...any) error {
			for time.Since(c.sent) <= maxAge {
				time.Sleep(10 * time.Millisecond)
			}
			*(dst[0].(*bool)) = there
			return nil
		}, c)
		if committed != there || errors.Is(err, errPruned) == there {
			t.Errorf("there %v: %v, %v", there, committed, err)
		}
	}
}
