package retry_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aurorapgx/aurorapgx/retry"
)

var errDown = errors.New("connection refused")

func down() error { return retry.Mark(errDown, retry.NotExecuted) }

func TestDoStopsWhereTheVerdictForbidsAnotherAttempt(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		err   error
		calls int
	}{
		{"not executed", retry.Mark(errDown, retry.NotExecuted), 3},
		{"rolled back", retry.Mark(errDown, retry.RolledBack), 3},
		{"ambiguous", retry.Mark(errDown, retry.Ambiguous), 1},
		{"permanent", retry.Mark(errDown, retry.Permanent), 1},
		{"unmarked", errDown, 1},
		{"marked deep inside", fmt.Errorf("connect: %w", retry.Mark(errDown, retry.NotExecuted)), 3},
		{"outermost mark wins", retry.Mark(retry.Mark(errDown, retry.NotExecuted), retry.Permanent), 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				err := retry.Do(t.Context(), retry.Policy{Attempts: 3}, func(context.Context) error {
					calls++
					return tt.err
				})
				if calls != tt.calls {
					t.Errorf("%d calls, want %d", calls, tt.calls)
				}
				if !errors.Is(err, errDown) {
					t.Errorf("%v does not wrap the last error", err)
				}
				var gaveUp *retry.Error
				if !errors.As(err, &gaveUp) || gaveUp.Attempts != tt.calls {
					t.Errorf("%#v does not count %d attempts", err, tt.calls)
				}
			})
		})
	}
}

func TestContextsThatPermitMoreOrLess(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		mark  func(context.Context) context.Context
		err   error
		calls int
	}{
		{"idempotent, in doubt", retry.Idempotent, retry.Mark(errDown, retry.Ambiguous), 3},
		{"idempotent, not executed", retry.Idempotent, retry.Mark(errDown, retry.NotExecuted), 3},
		{"idempotent, permanent", retry.Idempotent, retry.Mark(errDown, retry.Permanent), 1},
		{"never, not executed", retry.Never, retry.Mark(errDown, retry.NotExecuted), 1},
		{"never, then idempotent", func(ctx context.Context) context.Context { return retry.Idempotent(retry.Never(ctx)) }, errDown, 3},
	} {
		calls := 0
		_ = retry.Do(tt.mark(t.Context()), retry.Policy{Attempts: 3, Base: time.Microsecond}, func(context.Context) error {
			calls++
			return tt.err
		})
		if calls != tt.calls {
			t.Errorf("%s: %d calls, want %d", tt.name, calls, tt.calls)
		}
	}
}

func TestDoZeroPolicyTriesOnce(t *testing.T) {
	t.Parallel()
	calls := 0
	_ = retry.Do(t.Context(), retry.Policy{}, func(context.Context) error { calls++; return down() })
	if calls != 1 {
		t.Errorf("%d calls, want 1", calls)
	}
}

// A budget that was computed from a deadline may have passed.
func TestDoWithABudgetInThePastTriesOnce(t *testing.T) {
	t.Parallel()
	for _, attempts := range []int{0, 5} {
		calls := 0
		_ = retry.Do(t.Context(), retry.Policy{Attempts: attempts, Budget: -time.Second}, func(context.Context) error { calls++; return down() })
		if calls != 1 {
			t.Errorf("%d calls of %d, want 1", calls, attempts)
		}
	}
}

func TestDoKeepsBudgetCapAndJitter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var pauses []time.Duration
		start := time.Now()
		policy := retry.Policy{
			Budget: 30 * time.Second, Base: 50 * time.Millisecond, Cap: 400 * time.Millisecond,
			OnAttempt: func(_ context.Context, a retry.Attempt) { pauses = append(pauses, a.Pause) },
		}
		err := retry.Do(t.Context(), policy, func(context.Context) error { return down() })
		if spent := time.Since(start); spent > 30*time.Second || spent < 29*time.Second {
			t.Errorf("spent %s of a budget of 30 s", spent)
		}
		distinct := map[time.Duration]bool{}
		for _, p := range pauses {
			if p > 400*time.Millisecond {
				t.Errorf("a pause of %s exceeds the cap", p)
			}
			distinct[p] = true
		}
		if len(distinct) < len(pauses)/2 {
			t.Errorf("only %d distinct pauses of %d: no jitter", len(distinct), len(pauses))
		}
		if !strings.Contains(err.Error(), fmt.Sprintf("%d attempts in ", len(pauses))) {
			t.Errorf("%q does not tell the attempts", err)
		}
	})
}

func TestDoKeepsTheLastErrorAndTheCauseWhenTheContextEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("the handler's own deadline")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Second, cause)
		defer cancel()
		start := time.Now()
		err := retry.Do(ctx, retry.Policy{Budget: time.Hour}, func(context.Context) error { return down() })
		if spent := time.Since(start); spent != 2*time.Second {
			t.Errorf("returned after %s, want 2 s", spent)
		}
		if !errors.Is(err, errDown) || !errors.Is(err, cause) {
			t.Errorf("%v lost the last error or the cause", err)
		}
	})
}

// The context may end at the very moment a pause does.
func TestDoKeepsTheLastErrorWhenTheContextEndsWithAPause(t *testing.T) {
	t.Parallel()
	ctx := &endsOnceAsked{Context: t.Context(), alive: 2} // for the first attempt and its pause, and no longer
	err := retry.Do(ctx, retry.Policy{Attempts: 3, Base: time.Nanosecond, Cap: 2}, func(context.Context) error { return down() })
	if !errors.Is(err, errDown) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v lost the last error or the cause", err)
	}
}

// endsOnceAsked is a context that ends when it was asked a number of times.
type endsOnceAsked struct {
	context.Context
	alive int
}

func (c *endsOnceAsked) Err() error {
	if c.alive--; c.alive < 0 {
		return context.Canceled
	}
	return nil
}

func TestDoDoesNotStartOnADeadContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := retry.Do(ctx, retry.Policy{Attempts: 3}, func(context.Context) error {
		t.Error("called")
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestMarkNil(t *testing.T) {
	t.Parallel()
	if retry.Mark(nil, retry.Permanent) != nil {
		t.Error("Mark(nil) is not nil")
	}
}
