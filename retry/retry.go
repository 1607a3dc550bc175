// Package retry says what an error proves about the work that failed, and runs
// work again exactly when that proof allows it.
//
// Every failure gets a [Verdict]. [NotExecuted] and [RolledBack] are proofs that
// the work left no trace, so [Do] runs it again with exponential backoff and full
// jitter until the [Policy] gives up. [Ambiguous] and [Permanent] are never run
// again: the first because the work may have happened, the second because
// another attempt would end the same way.
//
// [Classify] reads a verdict out of an error, and [Mark] attaches one. [Tx] runs a whole
// transaction and knows at each step what a failure means.
//
// # What is not retried
//
//   - A COMMIT whose answer was lost: it may have taken effect. [Tx] returns an
//     [*AmbiguousCommitError], and the caller looks, for instance for a row with an id
//     of its own, or lets it be.
//   - A statement outside of a transaction whose connection was lost or whose context
//     ended: the server may have run it, or may still be running it.
//   - A statement in a transaction that a context of the function's own has cut off, if the
//     function returns its error.
//   - A function for [Tx] that ends its transaction by itself and then fails. Do not
//     use [Do] around a procedure, a text or a batch that commits on the way: a
//     serialization failure after that does not undo it.
//   - Whatever the server undid and would undo again: constraint violations, syntax
//     errors, cancelled statements, lock timeouts.
//   - Errors of the application's own.
//
// What 500 callers that all retry look like from the server, with and without a pool of package proxy, is drawn in
// https://github.com/aurorapgx/aurorapgx/blob/main/proxy/HERD.md.
package retry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/aurorapgx/aurorapgx/observe"
)

// Policy says how often and for how long [Do] tries. The zero value makes a single
// attempt. A Policy is a plain value: copy it, change it, share it.
type Policy struct {
	// Attempts bounds the number of attempts, the first one included.
	// Zero means no bound of its own, if Budget is set; with neither, one attempt.
	Attempts int
	// Budget bounds the time from the start of Do to the start of the last attempt.
	// No pause is begun that would end after it. Zero means no bound, and less than
	// zero that the time is up: one attempt.
	Budget time.Duration
	// Base is the mean pause before the second attempt. It doubles with each further
	// attempt. Zero means 50 ms.
	Base time.Duration
	// Cap bounds a single pause. Zero means 2 s.
	Cap time.Duration
	// OnAttempt, if set, is told about each attempt when it has ended, also about one
	// that succeeded and about the last. It runs on the caller's goroutine, before the
	// pause, with the context that Do was given. It costs nothing when it is not set.
	OnAttempt func(ctx context.Context, a Attempt)
	// Observer, if set, is told the same as an [observe.TransactionAttempt], and besides when
	// it all begins and ends, so that it can put a span around it: the attempts run with the
	// context that its Start returns. It costs nothing when it is not set.
	Observer observe.Observer
}

// Attempt is one attempt that has ended, as [Policy].OnAttempt sees it.
type Attempt struct {
	Number     int           // 1 for the first
	Took       time.Duration // from the start of the attempt, settling included
	Elapsed    time.Duration // from the start of Do
	Err        error         // what the attempt returned; nil if it succeeded
	Verdict    Verdict       // what Err proves; meaningless without one
	Reason     string        // Verdict in words, "" without an error
	Settlement Settlement    // what became of a COMMIT whose answer was lost
	Pause      time.Duration // how long Do is about to wait for the next attempt
	Last       bool          // there is no next one; if false, the context may still end in the pause
}

const (
	defaultBase = 50 * time.Millisecond
	defaultCap  = 2 * time.Second
)

// Do calls fn until it succeeds, until its error forbids another attempt, or until
// the policy or ctx ends.
//
// On success it returns nil. Otherwise it returns an [*Error] that wraps fn's last
// error and, if ctx ended, the context's cause; so errors.Is and errors.As see
// both. fn is called at least once, unless ctx has already ended.
func Do(ctx context.Context, p Policy, fn func(context.Context) error) error {
	if p.Observer != nil {
		return observed(ctx, p, func(err error) error { return err }, fn)
	}
	return do(ctx, p, fn)
}

func do(ctx context.Context, p Policy, fn func(context.Context) error) error {
	start := time.Now()
	var pauses *backoff.ExponentialBackOff
	var last error
	for n := 1; ; n++ {
		if ctx.Err() != nil {
			return giveUp(n-1, start, last, context.Cause(ctx))
		}
		began := start
		if p.told() {
			began = time.Now()
		}
		err := fn(ctx)
		if err == nil || err == errCommitted { //nolint:errorlint // the sentinel itself: see settle
			p.report(ctx, start, began, Attempt{Number: n, Err: err, Last: true})
			return nil
		}
		last = err
		if pauses == nil {
			pauses = p.backOff()
		}
		again, pause := p.next(ctx, n, start, err, pauses)
		p.report(ctx, start, began, Attempt{Number: n, Err: err, Pause: pause, Last: !again})
		switch {
		case ctx.Err() != nil, again && !sleep(ctx, pause):
			return giveUp(n, start, err, context.Cause(ctx))
		case !again:
			return giveUp(n, start, err, nil)
		}
	}
}

// next decides what follows attempt n, which failed with err.
func (p Policy) next(ctx context.Context, n int, start time.Time, err error, pauses *backoff.ExponentialBackOff) (again bool, pause time.Duration) {
	if ctx.Err() != nil || !mayRunAgain(ctx, Classify(err)) || p.lastAttempt(n) {
		return false, 0
	}
	pause = min(pauses.NextBackOff(), p.cap())
	if p.Budget != 0 && time.Since(start)+pause > p.Budget {
		return false, 0
	}
	return true, pause
}

// told reports whether anybody wants to hear of attempts.
func (p Policy) told() bool { return p.OnAttempt != nil || p.Observer != nil }

// report tells about an attempt, of which Do has filled in what it knows.
func (p Policy) report(ctx context.Context, start, began time.Time, a Attempt) {
	if !p.told() {
		return
	}
	now := time.Now()
	a.Took, a.Elapsed = now.Sub(began), now.Sub(start)
	if m, ok := errors.AsType[*marked](a.Err); ok {
		a.Settlement = m.settlement
	}
	if a.Settlement == SettledCommitted {
		a.Err = nil
	}
	if a.Err != nil {
		a.Verdict, a.Reason = classify(a.Err)
	}
	if p.OnAttempt != nil {
		p.OnAttempt(ctx, a)
	}
	if p.Observer != nil {
		p.Observer.Observe(ctx, a.event())
	}
}

// lastAttempt reports whether attempt n exhausts the policy by count.
func (p Policy) lastAttempt(n int) bool {
	if p.Attempts == 0 {
		return p.Budget == 0
	}
	return n >= p.Attempts
}

func (p Policy) base() time.Duration {
	if p.Base > 0 {
		return p.Base
	}
	return defaultBase
}

func (p Policy) cap() time.Duration {
	if p.Cap > 0 {
		return p.Cap
	}
	return defaultCap
}

// backOff is full jitter: with a randomization factor of 1 each pause is drawn
// from [0, 2*interval], whose mean is the interval. The budget is kept by Do, which
// also has to respect it for attempts that take long.
func (p Policy) backOff() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(
		backoff.WithInitialInterval(p.base()),
		backoff.WithRandomizationFactor(1),
		backoff.WithMultiplier(2),
		backoff.WithMaxInterval(max(p.cap()/2, 1)),
		backoff.WithMaxElapsedTime(0),
	)
}

// sleep pauses and reports whether it ran its course.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Error is what [Do] returns when it gives up: how hard it tried, and why it ended.
type Error struct {
	Attempts int           // attempts made; 0 if the context had ended before the first
	Elapsed  time.Duration // from the start of Do
	Last     error         // the last attempt's error; nil if there was no attempt
	Context  error         // the context's cause if that ended the trying, else nil
}

func giveUp(attempts int, start time.Time, last, ctxErr error) *Error {
	return &Error{Attempts: attempts, Elapsed: time.Since(start), Last: last, Context: ctxErr}
}

func (e *Error) Error() string {
	tried := fmt.Sprintf("%d attempts in %s", e.Attempts, e.Elapsed.Round(time.Millisecond))
	if e.Attempts == 1 {
		tried = fmt.Sprintf("1 attempt in %s", e.Elapsed.Round(time.Millisecond))
	}
	switch {
	case e.Last == nil:
		return fmt.Sprintf("not attempted: %v", e.Context)
	case e.Context == nil || errors.Is(e.Last, e.Context):
		return fmt.Sprintf("%s: %v", tried, e.Last)
	default:
		return fmt.Sprintf("%v after %s: %v", e.Context, tried, e.Last)
	}
}

// Unwrap gives errors.Is and errors.As the last error and the context's cause.
func (e *Error) Unwrap() []error {
	var errs []error
	if e.Last != nil {
		errs = append(errs, e.Last)
	}
	if e.Context != nil {
		errs = append(errs, e.Context)
	}
	return errs
}
