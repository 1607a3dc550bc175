package retry_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aurorapgx/aurorapgx/retry"
)

// The hook sees each attempt once, whichever way it ends.
func TestOnAttemptSeesEveryAttempt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		ctx := context.WithValue(t.Context(), key{}, "caller's")
		var seen []retry.Attempt
		p := retry.Policy{Attempts: 4, Base: 50 * time.Millisecond, OnAttempt: func(ctx context.Context, a retry.Attempt) {
			if ctx.Value(key{}) != "caller's" {
				t.Error("another context")
			}
			seen = append(seen, a)
		}}
		for _, results := range [][]error{
			{nil},
			{down(), down(), nil},
			{down(), retry.Mark(errDown, retry.Ambiguous)},
			{down(), down(), down(), down()},
		} {
			seen = nil
			n := 0
			start := time.Now()
			err := retry.Do(ctx, p, func(context.Context) error {
				time.Sleep(time.Second)
				n++
				return results[n-1]
			})
			if len(seen) != len(results) {
				t.Fatalf("%d attempts, %d seen", len(results), len(seen))
			}
			var pauses time.Duration
			for i, a := range seen {
				last := i == len(seen)-1
				if a.Number != i+1 || a.Last != last || a.Took != time.Second || !errors.Is(a.Err, results[i]) || a.Settlement != retry.NotNeeded ||
					a.Elapsed != time.Duration(i+1)*time.Second+pauses || last && a.Pause != 0 || (a.Err == nil) != (a.Reason == "") {
					t.Errorf("attempt %d of %d: %+v", i+1, len(results), a)
				}
				pauses += a.Pause
			}
			if spent := time.Since(start); spent != time.Duration(len(results))*time.Second+pauses {
				t.Errorf("spent %s, with pauses of %s", spent, pauses)
			}
			if (err == nil) != (seen[len(seen)-1].Err == nil) {
				t.Errorf("%v, and the last attempt %v", err, seen[len(seen)-1].Err)
			}
		}
	})
}

func TestOnAttemptSeesTheAttemptThatTheContextEnded(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	var seen []retry.Attempt
	_ = retry.Do(ctx, retry.Policy{Attempts: 3, OnAttempt: func(_ context.Context, a retry.Attempt) { seen = append(seen, a) }}, func(context.Context) error {
		cancel()
		return down()
	})
	if len(seen) != 1 || !seen[0].Last || seen[0].Pause != 0 {
		t.Errorf("%+v", seen)
	}
}

// Work that succeeds at once pays nothing for what it does not use.
func TestDoAllocatesNothingOnTheHappyPath(t *testing.T) {
	ctx := t.Context()
	fn := func(context.Context) error { return nil }
	for name, p := range map[string]retry.Policy{"no hook": retry.Failover(), "hook": {Attempts: 2, OnAttempt: func(context.Context, retry.Attempt) {}}} {
		if n := testing.AllocsPerRun(100, func() { _ = retry.Do(ctx, p, fn) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
