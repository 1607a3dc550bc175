package retry

// Finding out what became of a COMMIT whose answer was lost. There are two kinds of
// evidence, each in a file of its own: the transaction's id, which PostgreSQL keeps by
// itself, and a row of the application's, which outlasts a failover.

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aurorapgx/aurorapgx/observe"
)

// Settlement is what settling found out about a COMMIT whose answer was lost.
type Settlement uint8

const (
	// NotNeeded means that COMMIT was answered, or was never sent, or settling was not asked for.
	NotNeeded Settlement = iota
	// SettledCommitted means that COMMIT took effect.
	SettledCommitted
	// SettledRolledBack means that COMMIT did not take effect, and can no longer do so.
	SettledRolledBack
	// Unsettled means that it was not found out; see [AmbiguousCommitError].
	Unsettled
)

func (s Settlement) String() string {
	switch s {
	case NotNeeded:
		return "not needed"
	case SettledCommitted:
		return "committed"
	case SettledRolledBack:
		return "rolled back"
	case Unsettled:
		return "unsettled"
	default:
		return fmt.Sprintf("Settlement(%d)", uint8(s))
	}
}

// SettleCommits makes [Tx] and [SQLTx] find out what became of a COMMIT whose answer was
// lost, by the transaction's id: they ask the server for pg_xact_status. If the
// transaction was committed, Tx returns nil; if not, Tx runs it again as the policy
// allows; if that cannot be told, the error is an [*AmbiguousCommitError] that says why.
//
// It needs no table and no rights. It is exact as long as the server lives: a lost
// connection, a terminated session, a proxy that hangs up. It is not enough for every
// failover, because PostgreSQL hands out again the ids of transactions that a crash has
// lost: after a crash or a promotion "committed" may be said of somebody else's
// transaction, and then Tx does not claim it. "Not committed" is a proof after a crash
// as well. To settle those too, use [SettleIn].
//
// Whether the server is still the same is told by its start time and by the time its
// statistics were reset, because after the crash of a single session PostgreSQL starts
// over without a new start time. That is how PostgreSQL 13 to 18 behave; of Aurora it is
// not documented.
//
// What it costs: on connections of package proxy no round trip; the id comes in answer
// to BEGIN, to which a SELECT is appended. On other connections, and in SQLTx, one round
// trip before COMMIT. Every transaction gets an id, also one that turns out to write
// nothing; transactions that are declared read-only ([pgx.ReadOnly]) get none, are not asked
// about, and are run again when their COMMIT is lost. Because of the SELECT, the
// snapshot of a REPEATABLE READ or SERIALIZABLE transaction is taken at BEGIN, and SET
// TRANSACTION comes too late: use [WithTxOptions].
//
// On a reader, or any other server in recovery, there is nothing to settle. PostgreSQL
// 13 or later is required. In a savepoint the option does nothing: the outer
// transaction's COMMIT is what counts.
//
// Sources: https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-PG-SNAPSHOT and
// https://www.postgresql.org/docs/current/monitoring-stats.html.
func SettleCommits() TxOption { return func(c *txConfig) { c.settle.by = byXID{} } }

// WithSettleBudget bounds how long settling may take, and lets it take that long even
// if ctx has ended. Default: 90 s, and not beyond ctx, so that a COMMIT that is cut off
// by the caller's own deadline stays in doubt: at that moment the time is up. If d is given,
// Tx may return as much as d after ctx has ended, and only if a COMMIT was lost. At most
// 30 minutes, because a [Ledger] may be pruned after an hour. With 0 or less nothing is settled, and
// such a COMMIT stays in doubt.
func WithSettleBudget(d time.Duration) TxOption {
	return func(c *txConfig) { c.settle.budget, c.settle.detached = max(min(d, maxSettle), 1), true }
}

const (
	defaultSettle = 90 * time.Second // as Failover
	maxSettle     = 30 * time.Minute
)

// settling is how a Tx settles; the zero value does not.
type settling struct {
	by       evidence
	budget   time.Duration
	detached bool // goes on without the caller's context
	observer observe.Observer
}

// evidence is a way to settle.
type evidence interface {
	// called is what observers call it.
	called() string
	// begin begins a transaction on db.
	begin(ctx context.Context, db Beginner, o pgx.TxOptions) (pgx.Tx, claim, error)
	// beforeCommit learns in the transaction what begin could not.
	beforeCommit(ctx context.Context, c claim, run querier) (claim, error)
	// inSQL does for a transaction of database/sql, right before COMMIT, what begin and
	// COMMIT do for pgx's.
	inSQL(ctx context.Context, run querier) (claim, error)
	// ask asks once what became of a transaction. An error means that there is no
	// answer yet, a permanent one that there will be none.
	ask(ctx context.Context, run querier, c claim) (committed bool, err error)
	// answered is told about transactions that are known to be committed.
	answered(ctx context.Context, run querier, c claim)
	// explain adds to an error of COMMIT's what the evidence has to do with it.
	explain(err error) error
}

// querier runs a statement and scans its only row. As far as it is about a transaction
// of its own, that is committed when it returns nil.
type querier func(ctx context.Context, sql string, args []any, dst ...any) error

// claim is what identifies one transaction to its evidence.
type claim struct {
	nothing     bool // the transaction can have written nothing
	xid         uint64
	incarnation string
	token       token
	sent        time.Time // when COMMIT was, without a monotonic reading
}

// settled is what is left of the error of a COMMIT, which may be nil: of one that was
// lost and took effect, errCommitted; of one that did not, a RolledBack one.
func (s settling) settled(ctx context.Context, err error, c claim, run querier) error {
	if err == nil {
		s.by.answered(ctx, run, c)
		return nil
	}
	doubt, ok := errors.AsType[*AmbiguousCommitError](err)
	if !ok {
		return s.by.explain(err)
	}
	if c.nothing {
		s.found(ctx, false, nil, 0)
		return &marked{RolledBack, "the transaction was read-only", SettledRolledBack, fmt.Errorf("retry: the answer to COMMIT was lost: %w", doubt.Err)}
	}
	begun := time.Now()
	committed, why := s.find(ctx, c, run)
	s.found(ctx, committed, why, time.Since(begun))
	switch {
	case why != nil:
		doubt.XID, doubt.Unsettled = c.xid, why
		return &marked{Ambiguous, "COMMIT may have taken effect, and settling did not find out", Unsettled, doubt}
	case committed:
		s.by.answered(ctx, run, c)
		return errCommitted
	default:
		return &marked{RolledBack, "COMMIT did not take effect", SettledRolledBack, fmt.Errorf("retry: the answer to COMMIT was lost, and it did not take effect: %w", doubt.Err)}
	}
}

// errCommitted is success, found out later.
var errCommitted error = &marked{settlement: SettledCommitted, err: errors.New("committed")}

var (
	errSettleBudget = errors.New("the time for settling is used up")
	errInProgress   = errors.New("the transaction is still in progress")
	errRecovery     = errors.New("the server is in recovery")
)

// find asks until there is an answer.
func (s settling) find(ctx context.Context, c claim, run querier) (committed bool, why error) {
	budget := s.budget
	if budget == 0 {
		budget = defaultSettle
	}
	if s.detached {
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, budget, errSettleBudget)
	defer cancel()
	pauses := Policy{Budget: budget, Base: 20 * time.Millisecond, Cap: time.Second}
	why = Do(Idempotent(ctx), pauses, func(ctx context.Context) (err error) {
		switch committed, err = s.by.ask(ctx, run, c); {
		case err == nil:
			return nil
		case isHopeless(err):
			return Mark(err, Permanent)
		default:
			return Mark(err, NotExecuted)
		}
	})
	return committed, bare(why)
}

// unprovable is the end of settling: no further question would help.
type unprovable string

func (u unprovable) Error() string { return string(u) }

const errSingle = unprovable("the connection is lost, and there is no other to ask on: use a pool")

// isHopeless reports whether asking again would fail again. The same in any state of the
// server are missing tables and functions, rights, logins and constraints.
func isHopeless(err error) bool {
	if errors.As(err, new(unprovable)) {
		return true
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && isError(e) {
		for _, class := range []string{"0A", "22", "23", "42"} {
			if strings.HasPrefix(e.Code, class) {
				return true
			}
		}
		return false
	}
	return errors.As(err, new(*pgconn.ConnectError)) && Classify(err) == Permanent
}

// through runs statements in transactions of their own.
func through(db Beginner) querier {
	return func(ctx context.Context, sql string, args []any, dst ...any) error {
		if conn := singleConn(db); conn != nil && conn.IsClosed() {
			return errSingle
		}
		tx, err := db.Begin(ctx)
		if err != nil {
			return err
		}
		if err := query(tx)(ctx, sql, args, dst...); err != nil {
			rollback(ctx, tx)
			return err
		}
		return tx.Commit(ctx)
	}
}

// query runs statements in tx. Those that have no row to scan return none.
func query(tx pgx.Tx) querier {
	return func(ctx context.Context, sql string, args []any, dst ...any) error {
		if len(dst) == 0 {
			_, err := tx.Exec(ctx, sql, args...)
			return err
		}
		return tx.QueryRow(ctx, sql, args...).Scan(dst...)
	}
}

// singleConn is the connection behind a Beginner that has only one.
func singleConn(db Beginner) *pgx.Conn {
	switch db := db.(type) {
	case *pgx.Conn:
		return db
	case interface{ Conn() *pgx.Conn }:
		return db.Conn()
	default:
		return nil
	}
}
