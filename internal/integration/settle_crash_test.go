package integration

// What settling by transaction id has to look out for: a server that hands out an id again.

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aurorapgx/aurorapgx/internal/pgtest"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

// One session is killed with SIGKILL. PostgreSQL starts over under the same start time, has
// lost a transaction whose WAL was not flushed, and gives its id to another, which commits.
// By id Tx does not mistake the one for the other; a ledger knows them apart.
func TestAnIDThatIsHandedOutAgainIsNotMistaken(t *testing.T) {
	t.Parallel()
	server := pgtest.Run(t, pgtest.WithSetting("wal_writer_delay", "10s"), pgtest.WithSetting("autovacuum", "off"))
	if err := createRole(t.Context(), server); err != nil {
		t.Fatal(err)
	}
	dsn := database(t, server)
	r, through := newFrameRelay(t, dsn)
	pool := newPool(t, through, proxy.WithMaxConns(2))
	value := counter(t, pool)
	l := ledger(t, pool)

	for name, option := range map[string]retry.TxOption{"by xid": retry.SettleCommits(), "in a ledger": retry.SettleIn(l)} {
		var reused bool
		for try := 0; try < 5 && !reused; try++ {
			// The server crashes when COMMIT has been sent, and nothing is asked before the id
			// is another's.
			var xid string
			var sameStart bool
			learned, over := make(chan string, 1), make(chan struct{})
			atCommit := func(g group) place {
				if g.kinds == "Q" && bytes.HasSuffix(g.bytes, []byte("commit\x00")) {
					id := <-learned
					sameStart = crashASession(t, server)
					reused = handOutAgain(t, dsn, id)
					r.chance.Store(nil)
					close(over)
					return before
				}
				if bytes.Contains(g.bytes, []byte("pg_xact_status")) || bytes.Contains(g.bytes, []byte("as noted")) {
					<-over
				}
				return nowhere
			}
			start, runs := value(), 0
			err := retry.Tx(t.Context(), pool, func(tx pgx.Tx) error {
				if runs++; runs == 1 {
					r.chance.Store(&atCommit)
				}
				if _, err := tx.Exec(t.Context(), "update counter set n = n + 1"); err != nil {
					return err
				}
				err := tx.QueryRow(t.Context(), "select pg_current_xact_id()::text").Scan(&xid)
				if runs == 1 {
					learned <- xid
				}
				return err
			}, option)
			<-over
			if !sameStart {
				t.Fatalf("%s: the start time changed, so that this is another test", name)
			}
			if !reused {
				continue // somebody has flushed the WAL: the id was not lost
			}
			var doubt *retry.AmbiguousCommitError
			switch {
			case name == "by xid" && errors.As(err, &doubt) && runs == 1 && value() == start &&
				strings.Contains(doubt.Error(), "crashed or was replaced") && doubt.XID != 0:
			case name == "in a ledger" && err == nil && runs == 2 && value() == start+1:
			default:
				t.Errorf("%s: %d runs, counter from %d to %d: %v", name, runs, start, value(), err)
			}
		}
		if !reused {
			t.Errorf("%s: no id was handed out again", name)
		}
	}
}

// life is the server's start time and the time its statistics were reset.
func life(t *testing.T, server *pgtest.Server) (started, reset string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server.DSN())
	if err != nil {
		return "", ""
	}
	defer conn.Close(t.Context())
	_ = conn.QueryRow(t.Context(), "select pg_postmaster_start_time()::text, stats_reset::text from pg_stat_bgwriter").Scan(&started, &reset)
	return started, reset
}

// crashASession kills a session of its own with SIGKILL, waits until the server has
// started over, and reports whether it did so under the same start time.
func crashASession(t *testing.T, server *pgtest.Server) (sameStart bool) {
	t.Helper()
	startedBefore, resetBefore := life(t, server)
	conn, err := pgx.Connect(t.Context(), server.DSN())
	if err != nil {
		t.Error(err)
		return false
	}
	_, err = conn.Exec(t.Context(), "do $$ begin execute format($f$copy (select 1) to program 'kill -9 %s'$f$, pg_backend_pid()); end $$")
	if err == nil {
		_, err = conn.Exec(t.Context(), "select pg_sleep(10)")
	}
	if err == nil {
		t.Error("the session is still alive")
	}
	for begun := time.Now(); time.Since(begun) < 30*time.Second; time.Sleep(20 * time.Millisecond) {
		if started, reset := life(t, server); reset != "" && reset != resetBefore {
			return started == startedBefore
		}
	}
	t.Error("the server has not started over, or its statistics were not reset")
	return false
}

// handOutAgain commits transactions until one of them had the given id.
func handOutAgain(t *testing.T, dsn, xid string) bool {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Error(err)
		return false
	}
	defer conn.Close(t.Context())
	for range 50 {
		var had string
		if err := conn.QueryRow(t.Context(), "select pg_current_xact_id()::text").Scan(&had); err != nil {
			t.Error(err)
			return false
		}
		if had == xid {
			return true
		}
		if len(had) > len(xid) || len(had) == len(xid) && had > xid {
			return false
		}
	}
	return false
}
