package proxy_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/aurorapgx/aurorapgx/retry"
)

// A server that answers COMMIT with the end of the session has said nothing about the
// transaction, whatever the code: those that prove something at connect do not here.
func TestFatalAnswersToCommitLeaveItInDoubt(t *testing.T) {
	t.Parallel()
	for code, message := range map[string]string{
		"57P03": "the database system is shutting down",
		"53300": "too many connections",
		"08000": "Timed-out waiting to acquire database connection.",
		"57P01": "terminating connection due to administrator command",
	} {
		commits := 0
		s := newScripted(t, func(d *dialogue) {
			if _, err := d.startup(); err != nil {
				return
			}
			d.Send(&pgproto3.AuthenticationOk{})
			d.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
			_ = d.Flush()
			for {
				msg, err := d.Receive()
				query, ok := msg.(*pgproto3.Query)
				if err != nil || !ok {
					return
				}
				if query.String == "commit" {
					commits++
					d.Send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message})
					_ = d.Flush()
					return
				}
				d.Send(&pgproto3.CommandComplete{CommandTag: []byte("BEGIN")})
				d.Send(&pgproto3.ReadyForQuery{TxStatus: 'T'})
				_ = d.Flush()
			}
		})
		runs := 0
		err := retry.Tx(t.Context(), newPool(t, s.dsn()), func(pgx.Tx) error { runs++; return nil })
		if !errors.As(err, new(*retry.AmbiguousCommitError)) || runs != 1 || commits != 1 {
			t.Errorf("%s: %d runs, %d commits: %v", code, runs, commits, err)
		}
	}
}

func TestTxOnAClosedPoolEndsAtOnce(t *testing.T) {
	t.Parallel()
	pool := newPool(t, newScripted(t, login).dsn())
	pool.Close()
	attempts := 0
	err := retry.Tx(context.Background(), pool, func(pgx.Tx) error { return nil }, retry.WithPolicy(retry.Policy{Attempts: 5, OnAttempt: func(context.Context, retry.Attempt) { attempts++ }}))
	if err == nil || attempts != 1 {
		t.Errorf("%d attempts: %v", attempts, err)
	}
}
