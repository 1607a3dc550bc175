package retry_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aurorapgx/aurorapgx/observe"
	"github.com/aurorapgx/aurorapgx/retry"
)

// recorder notes what it is told, and whether it came in the context that it gave.
type recorder struct {
	starts int
	seen   []string
	events []observe.Event
}

type inside struct{}

func (r *recorder) Start(ctx context.Context, op observe.Operation) context.Context {
	r.starts++
	r.seen = append(r.seen, "start "+op.Name)
	return context.WithValue(ctx, inside{}, true)
}

func (r *recorder) Observe(ctx context.Context, e observe.Event) {
	line := ""
	switch e := e.(type) {
	case observe.TransactionAttempt:
		line = fmt.Sprintf("attempt %d %s%s last=%v", e.Number, e.Verdict, e.Settlement, e.Last)
	case observe.TransactionEnded:
		line = fmt.Sprintf("ended after %d %s", e.Attempts, e.Verdict)
	case observe.CommitInDoubt:
		line = "in doubt"
	case observe.CommitSettled:
		line = "settled by " + e.How + ": " + e.Settlement
	}
	if ctx.Value(inside{}) == nil {
		line += " outside"
	}
	r.seen, r.events = append(r.seen, line), append(r.events, e)
}

func TestObserverOfATransaction(t *testing.T) {
	t.Parallel()
	mine := errors.New("no such customer")
	for name, tt := range map[string]struct {
		script script
		fn     func(n int) error
		opts   []retry.TxOption
		want   []string
	}{
		"committed": {
			script: func(string) reply { return reply{} },
			want:   []string{"start transaction", "attempt 1  last=true", "ended after 1 "},
		},
		"again": {
			script: func(string) reply { return reply{} },
			fn: func(n int) error {
				if n == 1 {
					return server("ERROR", "40001", "could not serialize access")
				}
				return nil
			},
			want: []string{"start transaction", "attempt 1 rolled back last=false", "attempt 2  last=true", "ended after 2 "},
		},
		"the application's error": {
			script: func(string) reply { return reply{} },
			fn:     func(int) error { return mine },
			want:   []string{"start transaction", "attempt 1 permanent last=true", "ended after 1 permanent"},
		},
		"in doubt": {
			script: lostOnce(says("committed", true)),
			want:   []string{"start transaction", "in doubt", "attempt 1 ambiguous last=true", "ended after 1 ambiguous"},
		},
		"in doubt, and committed": {
			script: lostOnce(says("committed", true)), opts: []retry.TxOption{retry.SettleCommits()},
			want: []string{"start transaction", "in doubt", "settled by xid: committed", "attempt 1 committed last=true", "ended after 1 "},
		},
		"in doubt, and rolled back": {
			script: lostOnce(says("aborted", false)), opts: []retry.TxOption{retry.SettleCommits()},
			want: []string{
				"start transaction", "in doubt", "settled by xid: rolled back",
				"attempt 1 rolled backrolled back last=false", "attempt 2  last=true", "ended after 2 ",
			},
		},
		"in doubt, and settled by a ledger": {
			script: lostOnce(says("", true)), opts: []retry.TxOption{retry.SettleIn(newLedger(t))},
			want: []string{"start transaction", "in doubt", "settled by ledger: committed", "attempt 1 committed last=true", "ended after 1 "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, n := &recorder{}, 0
			policy := retry.Policy{Attempts: 3, Base: time.Millisecond}
			err := retry.TxContext(t.Context(), scriptedFor(t, tt.script), func(ctx context.Context, _ pgx.Tx) error {
				if ctx.Value(inside{}) == nil {
					t.Error("the function is outside")
				}
				if n++; tt.fn != nil {
					return tt.fn(n)
				}
				return nil
			}, append(tt.opts, retry.WithObserver(r), retry.WithPolicy(policy))...)
			if !slices.Equal(r.seen, tt.want) {
				t.Errorf("saw\n%s\nwant\n%s", strings.Join(r.seen, "\n"), strings.Join(tt.want, "\n"))
			}
			ended, _ := r.events[len(r.events)-1].(observe.TransactionEnded)
			if !errors.Is(ended.Err, err) || (ended.Err == nil) != (err == nil) {
				t.Errorf("returned %v, told %v", err, ended.Err)
			}
		})
	}
}

// What begins, ends, also in a panic.
func TestObserverOfAPanic(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	func() {
		defer func() { _ = recover() }()
		_ = retry.Do(t.Context(), retry.Policy{Observer: r}, func(context.Context) error { panic("mine") })
	}()
	if got := strings.Join(r.seen, "; "); got != "start transaction; ended after 1 permanent" {
		t.Error(got)
	}
}

// Nobody who listens costs nothing: Do without one allocates nothing, and Tx what it does anyway.
func TestNobodyListensForNothing(t *testing.T) {
	ctx := t.Context()
	fn := func(context.Context) error { return nil }
	var nobody observe.Observer
	if n := testing.AllocsPerRun(200, func() { _ = retry.Do(ctx, retry.Policy{Attempts: 2, Observer: nobody}, fn) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
