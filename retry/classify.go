package retry

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Classify says what err proves about the statement that returned it, in the worst
// case: a statement that was sent on its own, outside of a transaction. [Tx] knows more
// and says more: before COMMIT is sent a lost connection means that the transaction
// was rolled back.
//
// What it says about an ERROR is said of one statement that leaves it to the server to
// commit. A procedure, a text of several statements or a batch that commits by itself on
// the way may have done so before it failed.
//
// It takes the verdict that [Mark] attached, if there is one; otherwise it goes by this
// table. It never asks pgconn.SafeToRetry, which in pgx 5.9 to 5.12 says yes to
// simple-protocol statements that the server has received.
//
//	error                                            verdict       because
//	pgconn.ConnectError                              not executed  no statement is sent before the login is done
//	  ... 28P01 28000 3D000 42501 0A000, certificate permanent     the same would be refused again
//	08000 Timed-out waiting to acquire ...           not executed  RDS Proxy had no backend to send it to [1]
//	53300 57P03                                      not executed  sent instead of a session
//	40001 40P01                                      rolled back   PostgreSQL undid the transaction [2]
//	25006                                            rolled back   a read-only server wrote nothing
//	26000 42P05                                      rolled back   the statement was not prepared as assumed, so it did not run
//	0A000 cached plan must not change result type    rolled back   it failed before it ran; pgx prepares it anew
//	any other ERROR                                  permanent     the statement was undone, and would fail again
//	FATAL or PANIC, as 57P01 57P02 57P05 25P03       ambiguous     the session ended; what it was doing may have been done
//	40003, class 08, XX000 Unknown error.            ambiguous     they say so, or do not say
//	XX000 Request returned an error: ...             ambiguous     a database connection of RDS Proxy failed; what was sent on it is not told [1]
//	pgx.ErrTxCommitRollback                          permanent     COMMIT found a failed transaction: a statement's error was ignored
//	pgx.ErrNoRows, ErrTxClosed, "conn busy", ...     permanent     mistakes and answers, not failures
//	a lost connection, a timeout, a context's end    ambiguous     the server may have received it, and may still be at it
//	anything else                                    ambiguous     silence proves nothing
//
// [1] https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.troubleshooting.html
// [2] https://www.postgresql.org/docs/current/mvcc-serialization-failure-handling.html
//
// The codes: https://www.postgresql.org/docs/current/errcodes-appendix.html. Classify(nil)
// is [Permanent]: there is nothing to run again.
func Classify(err error) Verdict {
	v, _ := classify(err)
	return v
}

// Reason is the verdict of [Classify] in words, for logs.
func Reason(err error) string {
	_, reason := classify(err)
	return reason
}

func classify(err error) (Verdict, string) {
	if err == nil {
		return Permanent, "there was no error"
	}
	if m, ok := errors.AsType[*marked](err); ok {
		return m.verdict, m.reason
	}
	pgErr, fromServer := errors.AsType[*pgconn.PgError](err)
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return classifyConnect(err, pgErr)
	}
	if fromServer {
		return classifyServer(pgErr)
	}
	return classifyClient(err)
}

// classifyConnect is about a login that failed, where nothing can have been executed.
func classifyConnect(err error, e *pgconn.PgError) (Verdict, string) {
	if e != nil {
		switch e.Code {
		case "28P01", "28000", "3D000", "42501", "0A000":
			return Permanent, "the server would refuse the login again"
		}
	}
	if _, ok := errors.AsType[*net.DNSError](err); !ok && strings.Contains(err.Error(), "x509: ") {
		return Permanent, "the server's certificate does not verify"
	}
	return NotExecuted, "the connect failed, before anything was sent"
}

// classifyServer is about what the server, or RDS Proxy in its place, answered.
func classifyServer(e *pgconn.PgError) (Verdict, string) {
	switch e.Code {
	case "40001", "40P01":
		return RolledBack, "PostgreSQL undid the transaction in favour of another"
	case "25006":
		return RolledBack, "the server is read-only and wrote nothing"
	case "26000", "42P05":
		return RolledBack, "the statement was not prepared as assumed and did not run"
	case "0A000":
		if strings.HasPrefix(e.Message, "cached plan must not change result type") {
			return RolledBack, "the plan was out of date and did not run"
		}
	case "08000":
		if strings.HasPrefix(e.Message, "Timed-out waiting to acquire") {
			return NotExecuted, "RDS Proxy had no database connection to run it on"
		}
	case "53300", "57P03":
		return NotExecuted, "the server takes no session at the moment"
	case "40003":
		return Ambiguous, "the server does not know whether the statement completed"
	case "XX000":
		if e.Message == "Unknown error." {
			return Ambiguous, "RDS Proxy does not say what happened"
		}
		// Most likely it got no connection, least doubtfully if the password was refused. But AWS says no
		// more than that "the database connection established from the proxy returned an error", not that
		// nothing had been sent on another before.
		if strings.HasPrefix(e.Message, "Request returned an error: ") {
			return Ambiguous, "RDS Proxy passes on an error of a database connection, and does not say what was sent before"
		}
	}
	if strings.HasPrefix(e.Code, "08") {
		return Ambiguous, "the connection failed with the statement under way"
	}
	if !isError(e) {
		return Ambiguous, "the session ended with the statement under way"
	}
	return Permanent, "the server undid the statement, and would do so again"
}

// isError tells an ERROR, which ends a statement, from a FATAL or PANIC, which end the session.
func isError(e *pgconn.PgError) bool {
	return cmp.Or(e.SeverityUnlocalized, e.Severity) == "ERROR"
}

// classifyClient is about errors that no server sent.
func classifyClient(err error) (Verdict, string) {
	switch {
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return Permanent, "COMMIT found a failed transaction, so that an earlier error was ignored"
	case errors.Is(err, pgx.ErrNoRows), errors.Is(err, pgx.ErrTooManyRows):
		return Permanent, "the server has answered"
	case errors.Is(err, pgx.ErrTxClosed):
		return Permanent, "the transaction was over before"
	case strings.Contains(err.Error(), "closed pool"):
		return Permanent, "the pool is closed"
	case strings.Contains(err.Error(), "conn busy"):
		return Permanent, "the connection was in use by somebody else, which is a mistake in the program"
	case errors.Is(err, driver.ErrBadConn), errors.Is(err, pgconn.ErrConnClosed):
		return Ambiguous, "the connection is gone, and whether the statement was sent cannot be told"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return Ambiguous, "the wait ended, and the server may still be at it"
	default:
		return Ambiguous, "it is not known whether the server received the statement"
	}
}
