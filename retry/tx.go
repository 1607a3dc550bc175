package retry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aurorapgx/aurorapgx/observe"
)

// Beginner starts transactions: a *pgxpool.Pool, a *pgx.Conn, or a pgx.Tx, whose
// transactions are savepoints.
type Beginner interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// TxOption changes how [Tx] works.
type TxOption func(*txConfig)

type txConfig struct {
	options pgx.TxOptions
	policy  Policy
	settle  settling
	// observer is the one of WithObserver. What is told, is told to the policy's.
	observer observe.Observer
}

func newTxConfig(opts []TxOption) *txConfig {
	cfg := &txConfig{policy: Serialization()}
	for _, opt := range opts {
		opt(cfg)
	}
	if cfg.observer != nil {
		cfg.policy.Observer = cfg.observer
	}
	cfg.settle.observer = cfg.policy.Observer
	return cfg
}

// run makes attempts until one commits or must not be followed by another.
func (c *txConfig) run(ctx context.Context, attempt func(context.Context) error) error {
	if c.policy.Observer != nil {
		return observed(ctx, c.policy, bare, attempt)
	}
	return bare(do(ctx, c.policy, attempt))
}

// WithTxOptions sets isolation level, access mode and whatever else pgx lets a
// transaction begin with. Default: the server's.
func WithTxOptions(o pgx.TxOptions) TxOption { return func(c *txConfig) { c.options = o } }

// WithPolicy sets attempts, budget and pauses, and the function that is told about
// attempts. Default: [Serialization].
func WithPolicy(p Policy) TxOption { return func(c *txConfig) { c.policy = p } }

// Tx runs fn in a transaction and commits it, and runs it again, in a new transaction,
// if an attempt failed and is proved to have left nothing behind:
//
//   - BEGIN failed, or no connection could be had;
//   - the connection was lost, or the server ended the session, before COMMIT was sent;
//   - PostgreSQL undid the transaction in favour of another (40001, 40P01), be it in a
//     statement or at COMMIT;
//   - COMMIT could not be sent. That is known if nothing was written to the connection,
//     which connections of package proxy tell.
//
// fn may therefore run more than once: what it does besides talking to tx must bear
// that. It must not call Commit or Rollback, nor send them as SQL, nor call a procedure
// that does; if it has and then fails, it is not run again. Only a COMMIT that it sends as SQL and
// that is not answered looks like any other lost statement.
//
// An error of fn's that is none of the database's ends Tx: it is returned as it is,
// after a rollback. So does the end of a context of fn's own, as of a timeout for one
// statement, if fn returns it: pgx closes the connection for it, but the server may be at that statement for long, and
// another attempt would put another beside it. Where the server has fallen silent, which connections of
// package proxy tell, there is nothing to spare, and fn runs again. An error that fn
// has marked as [Ambiguous] ends Tx as well. A COMMIT whose answer was lost may have taken effect; Tx returns an
// [*AmbiguousCommitError] and does not run fn again, unless [SettleCommits] or [SettleIn]
// finds out that it took effect, or that it did not. If several attempts were made, or
// ctx ended the trying, the error is an [*Error] that wraps the last attempt's. A panic in fn
// rolls back and goes on.
//
// On a pgx.Tx fn runs once, between SAVEPOINT and RELEASE: what failed is the outer
// transaction's affair. WithTxOptions is an error there.
func Tx(ctx context.Context, db Beginner, fn func(tx pgx.Tx) error, opts ...TxOption) error {
	return transact(ctx, db, work{without: fn}, opts)
}

// TxContext is [Tx] for a function that is given the context of its transaction: that of the
// caller, with what an observer ([WithObserver]) has added to it, as a span. Statements that are sent
// with it are within that span.
func TxContext(ctx context.Context, db Beginner, fn func(ctx context.Context, tx pgx.Tx) error, opts ...TxOption) error {
	return transact(ctx, db, work{with: fn}, opts)
}

// work is the function of a transaction, of either kind.
type work struct {
	without func(pgx.Tx) error
	with    func(context.Context, pgx.Tx) error
}

func (w work) do(ctx context.Context, tx pgx.Tx) error {
	if w.with != nil {
		return w.with(ctx, tx)
	}
	return w.without(tx)
}

func transact(ctx context.Context, db Beginner, fn work, opts []TxOption) error {
	cfg := newTxConfig(opts)
	if outer, ok := db.(pgx.Tx); ok {
		return savepoint(ctx, outer, cfg, fn)
	}
	return cfg.run(ctx, func(ctx context.Context) error { return attempt(ctx, db, cfg, fn) })
}

// bare takes the error of a single attempt out of Do's, so that what the application
// returned comes back as it was.
func bare(err error) error {
	gaveUp, ok := errors.AsType[*Error](err)
	if !ok || gaveUp.Attempts != 1 || gaveUp.Context != nil {
		return err
	}
	if m, ok := gaveUp.Last.(*marked); ok { //nolint:errorlint // the mark that the attempt put on, and no other
		return m.err
	}
	return gaveUp.Last
}

// TxValue is [Tx] for a function that returns a value: that of the attempt that was
// committed.
func TxValue[T any](ctx context.Context, db Beginner, fn func(tx pgx.Tx) (T, error), opts ...TxOption) (T, error) {
	var value, zero T
	err := Tx(ctx, db, func(tx pgx.Tx) (err error) {
		value, err = fn(tx)
		return err
	}, opts...)
	if err != nil {
		return zero, err
	}
	return value, nil
}

// AmbiguousCommitError is a COMMIT that was sent, or may have been, and not answered. The
// transaction may have been committed, may have been rolled back, or may be about to be
// either: the server can still be at it.
type AmbiguousCommitError struct {
	Err error // what came instead of an answer
	// XID is the transaction's id, as of pg_current_xact_id, if [SettleCommits] has learned it; otherwise 0.
	XID uint64
	// Unsettled says why [SettleCommits] or [SettleIn] did not find out more; nil without them.
	Unsettled error
}

func (e *AmbiguousCommitError) Error() string {
	text := "commit in doubt, it may have taken effect: " + e.Err.Error()
	if e.XID != 0 {
		text = fmt.Sprintf("commit of transaction %d in doubt, it may have taken effect: %v", e.XID, e.Err)
	}
	if e.Unsettled != nil {
		text += "; not settled: " + e.Unsettled.Error()
	}
	return text
}

func (e *AmbiguousCommitError) Unwrap() error { return e.Err }

// rollbackTimeout bounds a rollback, which does not use the caller's context, because
// that may be what ended the transaction.
const rollbackTimeout = 5 * time.Second

// attempt is one transaction from BEGIN to COMMIT. Its error is marked with what it
// proves.
func attempt(ctx context.Context, db Beginner, cfg *txConfig, fn work) error {
	tx, claim, err := cfg.begin(ctx, db)
	if err != nil {
		if conn := singleConn(db); Classify(err) == Permanent || conn != nil && conn.IsClosed() {
			return Mark(err, Permanent) // a single connection does not come back
		}
		return mark(err, NotExecuted, "BEGIN changes nothing, whatever became of it")
	}
	conn := tx.Conn()
	if state, err := guarded(ctx, &lent{Tx: tx}, fn); err != nil || state == ended {
		if v, said := markOf(err); said && v == Ambiguous { // pgx's own errors carry no marks
			return mark(err, Permanent, "the function says that it may have done what must not be done twice")
		}
		return beforeCommit(ctx, cmp.Or(err, pgx.ErrTxClosed), state)
	}
	if err := committable(ctx, conn.PgConn()); err != nil {
		rollback(ctx, tx)
		return err
	}
	if cfg.settle.by != nil {
		if claim, err = cfg.settle.by.beforeCommit(ctx, claim, query(tx)); err != nil {
			state := stateOf(conn)
			rollback(ctx, tx)
			return beforeCommit(ctx, err, state)
		}
	}
	sent := writeCounter(conn)
	before := sent()
	if err = tx.Commit(ctx); err != nil {
		err = commitFailed(err, before != unknownCount && sent() == before)
		cfg.doubted(ctx, err)
	}
	if cfg.settle.by == nil {
		return err
	}
	return cfg.settle.settled(ctx, err, claim, through(db))
}

func (c *txConfig) begin(ctx context.Context, db Beginner) (pgx.Tx, claim, error) {
	if c.settle.by != nil {
		return c.settle.by.begin(ctx, db, c.options)
	}
	tx, err := begin(ctx, db, c.options)
	return tx, claim{}, err
}

// committable says why COMMIT cannot be sent, or would not commit.
func committable(ctx context.Context, conn *pgconn.PgConn) error {
	switch {
	case conn.IsClosed() || ctx.Err() != nil:
		return mark(cmp.Or(context.Cause(ctx), errLost), RolledBack, "COMMIT was not sent")
	case conn.IsBusy(): // with rows that fn has not closed
		return Mark(errOpenRows, Permanent)
	case conn.TxStatus() == 'E':
		return Mark(pgx.ErrTxCommitRollback, Permanent)
	default:
		return nil
	}
}

var (
	errLost     = errors.New("the connection was lost before COMMIT was sent")
	errOpenRows = errors.New("retry: the transaction's function returned with rows still open: close them, or read them to the end")
)

func begin(ctx context.Context, db Beginner, options pgx.TxOptions) (pgx.Tx, error) {
	if options == (pgx.TxOptions{}) {
		return db.Begin(ctx)
	}
	withOptions, ok := db.(interface {
		BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error)
	})
	if !ok {
		return nil, Mark(fmt.Errorf("retry: a %T begins no transactions with options", db), Permanent)
	}
	return withOptions.BeginTx(ctx, options)
}

// txState is what fn left of its transaction.
type txState uint8

const (
	open     txState = iota // as it should be
	lost                    // the connection is gone
	vanished                // and so is the server, as far as can be seen
	ended                   // there is no transaction any more
)

// stateOf looks at the connection of a transaction that nobody has ended.
func stateOf(conn *pgx.Conn) txState {
	switch {
	case !conn.IsClosed() && conn.PgConn().TxStatus() == 'I':
		return ended
	case !conn.IsClosed():
		return open
	}
	if peer := layer[interface{ Lost() bool }](conn); peer != nil && peer.Lost() {
		return vanished
	}
	return lost
}

// lent is a transaction while fn has it. It notes that fn has ended it: its connection may then be
// somebody else's already.
type lent struct {
	pgx.Tx

	ended bool
}

func (t *lent) Commit(ctx context.Context) error {
	t.ended = true
	return t.Tx.Commit(ctx)
}

func (t *lent) Rollback(ctx context.Context) error {
	t.ended = true
	return t.Tx.Rollback(ctx)
}

// guarded runs fn and rolls back if it fails or panics. The state is that before the
// rollback; after it the connection may be somebody else's.
func guarded(ctx context.Context, tx *lent, fn work) (state txState, err error) {
	done := false
	defer func() {
		switch {
		case tx.ended:
			state = ended
		case !done || err != nil:
			state = stateOf(tx.Conn())
			rollback(ctx, tx.Tx)
		}
	}()
	err = fn.do(ctx, tx)
	done = true
	return open, err
}

// rollback ends the transaction and gives the connection back to its pool. Its own
// failure closes the connection, which rolls back as well.
func rollback(ctx context.Context, tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
	defer cancel()
	_ = tx.Rollback(ctx)
}

// beforeCommit is about an error of fn's, in a transaction that was left in the given state. COMMIT
// was not sent, so that whatever the session's end leaves open elsewhere is settled here.
func beforeCommit(ctx context.Context, err error, state txState) error {
	if _, inner := errors.AsType[*AmbiguousCommitError](err); inner {
		return mark(err, Permanent, "the COMMIT of another transaction is in doubt, which must not be made again")
	}
	switch v, reason := classify(err); {
	case state == ended:
		return mark(err, Permanent, "the function has ended its transaction by itself")
	case v.Retryable():
		return mark(err, RolledBack, reason)
	case v != Ambiguous:
		return mark(err, Permanent, reason)
	case state == open:
		return mark(err, Permanent, "it is none of the database's errors")
	case state == lost && ctx.Err() == nil && ofContext(err):
		return mark(err, Permanent, "a context of the function's own has ended")
	default:
		return mark(err, RolledBack, "the session ended before COMMIT was sent")
	}
}

// ofContext recognizes the end of a context.
func ofContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// commitFailed is about an error of COMMIT's.
func commitFailed(err error, notSent bool) error {
	pgErr, answered := errors.AsType[*pgconn.PgError](err)
	switch {
	case errors.Is(err, pgx.ErrTxClosed): // fn has committed, or rolled back, by itself
		return Mark(err, Permanent)
	case notSent:
		return mark(err, RolledBack, "COMMIT was not sent")
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return Mark(err, Permanent)
	case answered && isError(pgErr) && (Classify(pgErr) == RolledBack || Classify(pgErr) == Permanent):
		return Mark(err, Classify(pgErr)) // an ERROR in answer to COMMIT is a rollback
	default:
		return mark(&AmbiguousCommitError{Err: err}, Ambiguous, "COMMIT was not answered")
	}
}

// unknownCount is the answer of connections that do not count.
const unknownCount = ^uint64(0)

// writeCounter returns the count of bytes written to conn's network connection, if
// that is one of package proxy's, which count before they write.
func writeCounter(conn *pgx.Conn) func() uint64 {
	if counter := layer[interface{ Written() uint64 }](conn); counter != nil {
		return counter.Written
	}
	return func() uint64 { return unknownCount }
}

// savepoint runs fn once inside an outer transaction.
func savepoint(ctx context.Context, outer pgx.Tx, cfg *txConfig, fn work) error {
	if cfg.options != (pgx.TxOptions{}) {
		return errors.New("retry: a savepoint has no transaction options of its own: leave WithTxOptions out")
	}
	tx, err := outer.Begin(ctx)
	if err != nil {
		return err
	}
	if _, err := guarded(ctx, &lent{Tx: tx}, fn); err != nil {
		return err
	}
	return tx.Commit(ctx)
}
