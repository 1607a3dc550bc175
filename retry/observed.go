package retry

// What Do, Tx and SQLTx tell an observer.

import (
	"context"
	"errors"
	"time"

	"github.com/aurorapgx/aurorapgx/observe"
)

// WithObserver tells o about the transaction, its attempts, and a COMMIT in doubt: see
// [observe.Observer]. It takes precedence over the Observer of [WithPolicy]. Default: nobody.
//
// The statements of the transaction are within an observer's span if they are sent with the
// context that [TxContext] hands its function.
func WithObserver(o observe.Observer) TxOption { return func(c *txConfig) { c.observer = o } }

// event is the attempt as observers see it.
func (a Attempt) event() observe.TransactionAttempt {
	e := observe.TransactionAttempt{
		Number: a.Number, Took: a.Took, Elapsed: a.Elapsed, Err: a.Err, Reason: a.Reason, Pause: a.Pause, Last: a.Last,
	}
	if a.Err != nil {
		e.Verdict = a.Verdict.String()
	}
	if a.Settlement != NotNeeded {
		e.Settlement = a.Settlement.String()
	}
	return e
}

var errPanicked = errors.New("the function has panicked")

// observed is do between the start and the end of an operation. strip is what becomes of its
// error.
func observed(ctx context.Context, p Policy, strip func(error) error, fn func(context.Context) error) (err error) {
	start, attempts := time.Now(), 0
	ctx = p.Observer.Start(ctx, observe.Operation{Name: observe.Transaction})
	verdict := Permanent
	err = errPanicked
	defer func() {
		e := observe.TransactionEnded{Attempts: attempts, Elapsed: time.Since(start), Err: err}
		if err != nil {
			e.Verdict = verdict.String()
		}
		p.Observer.Observe(ctx, e)
	}()
	gaveUp := do(ctx, p, func(ctx context.Context) error {
		attempts++
		return fn(ctx)
	})
	verdict = Classify(gaveUp) // strip may take off what tells it
	return strip(gaveUp)
}

// doubted tells about a COMMIT in doubt.
func (c *txConfig) doubted(ctx context.Context, err error) {
	if c.policy.Observer == nil {
		return
	}
	if doubt, ok := errors.AsType[*AmbiguousCommitError](err); ok {
		c.policy.Observer.Observe(ctx, observe.CommitInDoubt{Err: doubt.Err})
	}
}

// found tells what settling has found out about a COMMIT in doubt.
func (s settling) found(ctx context.Context, committed bool, why error, took time.Duration) {
	if s.observer == nil {
		return
	}
	e := observe.CommitSettled{How: s.by.called(), Settlement: SettledRolledBack.String(), Took: took, Err: why}
	switch {
	case why != nil:
		e.Settlement = Unsettled.String()
	case committed:
		e.Settlement = SettledCommitted.String()
	}
	s.observer.Observe(ctx, e)
}
