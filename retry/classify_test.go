package retry_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aurorapgx/aurorapgx/retry"
)

func server(severity, code, message string) error {
	return &pgconn.PgError{Severity: severity, SeverityUnlocalized: severity, Code: code, Message: message}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	_, connectErr := pgconn.Connect(t.Context(), "postgres://app@127.0.0.1:1/orders?sslmode=disable")
	tests := []struct {
		name string
		err  error
		want retry.Verdict
	}{
		{"nil", nil, retry.Permanent},
		{"mark", retry.Mark(io.EOF, retry.NotExecuted), retry.NotExecuted},
		{"connect", connectErr, retry.NotExecuted},
		{"serialization failure", server("ERROR", "40001", "could not serialize access"), retry.RolledBack},
		{"conflict with recovery", server("ERROR", "40001", "canceling statement due to conflict with recovery"), retry.RolledBack},
		{"deadlock", server("ERROR", "40P01", "deadlock detected"), retry.RolledBack},
		{"completion unknown", server("ERROR", "40003", ""), retry.Ambiguous},
		{"read-only", server("ERROR", "25006", "cannot execute INSERT in a read-only transaction"), retry.RolledBack},
		{"stale statement", server("ERROR", "26000", "prepared statement \"x\" does not exist"), retry.RolledBack},
		{"duplicate statement", server("ERROR", "42P05", "prepared statement \"x\" already exists"), retry.RolledBack},
		{"stale plan", server("ERROR", "0A000", "cached plan must not change result type"), retry.RolledBack},
		{"not supported", server("ERROR", "0A000", "something else"), retry.Permanent},
		{"borrow timeout", server("FATAL", "08000", "Timed-out waiting to acquire database connection."), retry.NotExecuted},
		{"connection exception", server("FATAL", "08000", "something else"), retry.Ambiguous},
		{"connection failure", server("ERROR", "08006", ""), retry.Ambiguous},
		{"too many connections", server("FATAL", "53300", "sorry, too many clients already"), retry.NotExecuted},
		{"starting up", server("FATAL", "57P03", "the database system is starting up"), retry.NotExecuted},
		{"admin shutdown", server("FATAL", "57P01", "terminating connection due to administrator command"), retry.Ambiguous},
		{"crash shutdown", server("FATAL", "57P02", ""), retry.Ambiguous},
		{"idle in transaction", server("FATAL", "25P03", ""), retry.Ambiguous},
		{"cancelled", server("ERROR", "57014", "canceling statement due to statement timeout"), retry.Permanent},
		{"lock timeout", server("ERROR", "55P03", ""), retry.Permanent},
		{"unique violation", server("ERROR", "23505", ""), retry.Permanent},
		{"syntax", server("ERROR", "42601", ""), retry.Permanent},
		{"proxy, unknown", server("ERROR", "XX000", "Unknown error."), retry.Ambiguous},
		{"proxy, no login", server("FATAL", "XX000", `Request returned an error: password authentication failed for user "app".`), retry.Ambiguous},
		{"proxy, some error", server("ERROR", "XX000", "Request returned an error: something."), retry.Ambiguous},
		{"internal error", server("ERROR", "XX000", "cache lookup failed for relation 1"), retry.Permanent},
		{"severity in another language", &pgconn.PgError{Severity: "ФАТАЛЬНО", SeverityUnlocalized: "FATAL", Code: "57P01"}, retry.Ambiguous},
		{"commit rolled back", pgx.ErrTxCommitRollback, retry.Permanent},
		{"no rows", pgx.ErrNoRows, retry.Permanent},
		{"transaction over", pgx.ErrTxClosed, retry.Permanent},
		{"end of file", io.ErrUnexpectedEOF, retry.Ambiguous},
		{"connection closed", pgconn.ErrConnClosed, retry.Ambiguous},
		{"bad connection", driver.ErrBadConn, retry.Ambiguous},
		{"deadline", context.DeadlineExceeded, retry.Ambiguous},
		{"application", errors.New("insufficient funds"), retry.Ambiguous},
	}
	for _, tt := range tests {
		for _, err := range []error{tt.err, wrap(tt.err)} {
			if got := retry.Classify(err); got != tt.want {
				t.Errorf("%s: %s (%s), want %s", tt.name, got, retry.Reason(err), tt.want)
			}
		}
	}
}

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("save order: %w", err)
}

func BenchmarkClassify(b *testing.B) {
	for name, err := range map[string]error{
		"40001": server("ERROR", "40001", "could not serialize access"),
		"57P01": server("FATAL", "57P01", "terminating connection due to administrator command"),
		"EOF":   io.ErrUnexpectedEOF,
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = retry.Classify(err)
			}
		})
	}
}
