package retry

import (
	"errors"
	"fmt"
)

// Verdict is what an error proves about the work that failed.
type Verdict uint8

const (
	// Ambiguous work may or may not have taken effect: a COMMIT whose answer was
	// lost, an autocommit statement cut off after it was sent. It is the zero value:
	// without a proof nothing may run twice.
	Ambiguous Verdict = iota
	// NotExecuted work never reached a PostgreSQL backend: a failed connect, a
	// borrow from RDS Proxy that timed out.
	NotExecuted
	// RolledBack work reached a backend, which undid it: a serialization failure,
	// a session ended before COMMIT was sent.
	RolledBack
	// Permanent failures would fail again the same way: a syntax error, a wrong
	// password, a parameter RDS Proxy refuses.
	Permanent
)

// Retryable reports whether the work may run again without being asked.
func (v Verdict) Retryable() bool { return v == NotExecuted || v == RolledBack }

func (v Verdict) String() string {
	switch v {
	case Ambiguous:
		return "ambiguous"
	case NotExecuted:
		return "not executed"
	case RolledBack:
		return "rolled back"
	case Permanent:
		return "permanent"
	default:
		return fmt.Sprintf("Verdict(%d)", uint8(v))
	}
}

// marked carries a verdict next to the error it is about.
type marked struct {
	verdict    Verdict
	reason     string
	settlement Settlement
	err        error
}

func (m *marked) Error() string { return m.err.Error() }
func (m *marked) Unwrap() error { return m.err }

// Mark attaches a verdict to err, for code that knows more than the error tells. The
// text stays as it is, and errors.Is and errors.As see through it. Mark(nil, v) is
// nil. The outermost mark wins.
func Mark(err error, v Verdict) error {
	if err == nil {
		return nil
	}
	return mark(err, v, "the code that failed says so")
}

func mark(err error, v Verdict, reason string) error {
	return &marked{verdict: v, reason: reason, err: err}
}

// markOf returns the verdict that [Mark] attached to err or to an error it wraps.
func markOf(err error) (Verdict, bool) {
	if m, ok := errors.AsType[*marked](err); ok {
		return m.verdict, true
	}
	return Ambiguous, false
}
