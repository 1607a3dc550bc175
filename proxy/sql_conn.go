package proxy

// A connection as database/sql sees it: pgx's own driver connection, with errors that
// tell the truth about what was sent. The rule is in two places. ready is the only one
// that ever says driver.ErrBadConn, and it runs before a statement starts. outcome
// explains every error that comes after that.

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/aurorapgx/aurorapgx/retry"
)

var (
	_ driver.Conn               = (*sqlConn)(nil)
	_ driver.ConnBeginTx        = (*sqlConn)(nil)
	_ driver.ConnPrepareContext = (*sqlConn)(nil)
	_ driver.ExecerContext      = (*sqlConn)(nil)
	_ driver.QueryerContext     = (*sqlConn)(nil)
	_ driver.Pinger             = (*sqlConn)(nil)
	_ driver.NamedValueChecker  = (*sqlConn)(nil)
	_ driver.SessionResetter    = (*sqlConn)(nil)
	_ driver.Validator          = (*sqlConn)(nil)
)

// sqlConn is one connection of the pool while database/sql has it. database/sql calls
// it from one goroutine at a time.
type sqlConn struct {
	std      *stdlib.Conn
	pgx      *pgx.Conn
	from     *sqlConnector
	counter  writeCounter // nil if this package has not made the connection
	returned time.Time    // when database/sql last had no use for it
}

// Conn is the connection itself, for (*sql.Conn).Raw: see [OpenDB].
func (c *sqlConn) Conn() *pgx.Conn { return c.pgx }

// Close gives the connection back to the pool, which keeps it if it is in order.
func (c *sqlConn) Close() error { return c.std.Close() }

// CheckNamedValue leaves all arguments to pgx.
func (c *sqlConn) CheckNamedValue(v *driver.NamedValue) error { return c.std.CheckNamedValue(v) }

// IsValid tells database/sql to throw away a connection that pgx has closed.
func (c *sqlConn) IsValid() bool {
	c.returned = time.Now()
	return !c.pgx.IsClosed()
}

// ResetSession checks a connection that database/sql has kept, by the pool's own rule.
// Nothing of the next statement has been sent yet, so that driver.ErrBadConn is safe.
func (c *sqlConn) ResetSession(ctx context.Context) error {
	if c.pgx.IsClosed() || c.pgx.PgConn().TxStatus() != 'I' {
		return driver.ErrBadConn
	}
	ping := c.from.shouldPing(ctx, pgxpool.ShouldPingParams{Conn: c.pgx, IdleDuration: time.Since(c.returned)})
	if below := handedConnOf(c.pgx.PgConn()); below != nil {
		if why := below.unusable(); why != "" {
			below.generation.of.events.evicted(ctx, below, why)
			return driver.ErrBadConn
		}
	}
	if !ping {
		return nil
	}
	if c.from.pingTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.from.pingTimeout)
		defer cancel()
	}
	if c.pgx.Ping(ctx) != nil {
		return driver.ErrBadConn
	}
	return nil
}

// Ping fails without having been tried on another connection, and with a reason.
func (c *sqlConn) Ping(ctx context.Context) error {
	const what = "the ping"
	if err := c.ready(what); err != nil {
		return err
	}
	before := c.written()
	return c.outcome(ctx, what, before, c.pgx.Ping(ctx))
}

// ExecContext calls pgx directly: its error is worth more than what stdlib leaves of it.
func (c *sqlConn) ExecContext(ctx context.Context, query string, named []driver.NamedValue) (driver.Result, error) {
	if err := c.ready(aStatement); err != nil {
		return nil, err
	}
	args := make([]any, len(named))
	for i := range named {
		args[i] = named[i].Value
	}
	before := c.written()
	tag, err := c.pgx.Exec(ctx, query, args...)
	if err != nil {
		return nil, c.outcome(ctx, aStatement, before, err)
	}
	return driver.RowsAffected(tag.RowsAffected()), nil
}

// QueryContext goes through stdlib, whose rows know how database/sql wants its values.
func (c *sqlConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.ready(aStatement); err != nil {
		return nil, err
	}
	before := c.written()
	rows, err := c.std.QueryContext(ctx, query, args)
	if err != nil {
		return nil, c.outcome(ctx, aStatement, before, err)
	}
	std, ok := rows.(*stdlib.Rows)
	if !ok {
		return rows, nil
	}
	return &sqlRows{Rows: std, conn: c}, nil
}

func (c *sqlConn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

// PrepareContext prepares a statement on this connection.
func (c *sqlConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	const what = "PREPARE"
	if err := c.ready(what); err != nil {
		return nil, err
	}
	before := c.written()
	stmt, err := c.std.PrepareContext(ctx, query)
	if err != nil {
		return nil, c.outcome(ctx, what, before, err)
	}
	return &sqlStmt{Stmt: stmt, conn: c, query: query}, nil
}

func (c *sqlConn) Begin() (driver.Tx, error) {
	return c.BeginTx(context.Background(), driver.TxOptions{})
}

// BeginTx starts a transaction, with the isolation levels that PostgreSQL has.
func (c *sqlConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	const what = "BEGIN"
	if err := c.ready(what); err != nil {
		return nil, err
	}
	before := c.written()
	tx, err := c.std.BeginTx(ctx, opts)
	if err != nil {
		return nil, c.outcome(ctx, what, before, err)
	}
	return &sqlTx{tx: tx, conn: c, ctx: ctx}, nil
}

// aStatement is what errors call a statement; its text may hold what must not be logged.
const aStatement = "the statement"

// ready refuses a connection that is closed already. This is the proof that
// driver.ErrBadConn takes: nothing has been handed to pgx yet. database/sql answers
// with another connection, except in a transaction and on a *sql.Conn, where the
// caller gets this error.
func (c *sqlConn) ready(what string) error {
	if !c.pgx.IsClosed() {
		return nil
	}
	return retry.Mark(fmt.Errorf("aurorapgx: %s was not sent: %w (%w)", what, pgconn.ErrConnClosed, driver.ErrBadConn), retry.NotExecuted)
}

// written is the connection's counter before a statement, for outcome.
func (c *sqlConn) written() uint64 {
	if c.counter == nil {
		return 0
	}
	return c.counter.Written()
}

// outcome explains an error of something that started when the counter stood at
// before. It never returns driver.ErrBadConn. Errors of the caller's own making, as an
// argument that cannot be encoded, and the server's answers stay what they are.
func (c *sqlConn) outcome(ctx context.Context, what string, before uint64, err error) error {
	if err == nil {
		return nil
	}
	if _, answered := errors.AsType[*pgconn.PgError](err); answered {
		return err
	}
	swallowed := errors.Is(err, driver.ErrBadConn) // stdlib's, in place of pgx's error
	if !swallowed && !c.pgx.IsClosed() && !pgconn.SafeToRetry(err) {
		return err
	}
	if swallowed {
		err = c.likely(ctx)
	}
	if c.pgx.PgConn().IsBusy() { // with rows that the program has not closed: it would find them again
		return retry.Mark(fmt.Errorf("aurorapgx: %s was not sent, rows of an earlier one are still open: %w", what, err), retry.Permanent)
	}
	if c.counter != nil && c.counter.Written() == before {
		return retry.Mark(fmt.Errorf("aurorapgx: %s was not sent: %w", what, err), retry.NotExecuted)
	}
	return c.lost(what, err)
}

// lost is the error of something that was sent, or may have been.
func (c *sqlConn) lost(what string, err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded): // the caller knows
	case c.pgx.IsClosed():
		err = fmt.Errorf("aurorapgx: %s was sent and may have been executed; the connection was lost before the answer: %w", what, err)
	default:
		err = fmt.Errorf("aurorapgx: %s failed: %w", what, err)
	}
	return retry.Mark(err, retry.Ambiguous)
}

// likely is what pgx's error must have been where stdlib shows driver.ErrBadConn.
func (c *sqlConn) likely(ctx context.Context) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case c.pgx.IsClosed():
		return pgconn.ErrConnClosed
	default:
		return errors.New("conn busy")
	}
}
