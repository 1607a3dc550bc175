package retry

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// SQLBeginner starts transactions of database/sql: a *sql.DB or a *sql.Conn.
type SQLBeginner interface {
	BeginTx(ctx context.Context, opts *sql.TxOptions) (*sql.Tx, error)
}

// SQLTx is [Tx] for database/sql: it runs fn in a transaction and commits it, and runs
// it again if an attempt failed and is proved to have left nothing behind. The rules
// are those of Tx; of the options, [WithTxOptions] is pgx's, and the isolation level and
// access mode of a *sql.Tx come with opts. [SettleCommits] and [SettleIn] cost a round
// trip before COMMIT. A *sql.Tx does not show its connection, so that a context of fn's own that ends in the
// middle of a statement ends SQLTx also where the server has fallen silent, and so that an
// error marked as [Ambiguous] ends it only while the connection is there.
//
// Use it with a DB that proxy.OpenDB has opened. With others it works, and with pgx's own
// bridge single statements may still run twice beneath it, within a transaction that is
// then lost as a whole.
func SQLTx(ctx context.Context, db SQLBeginner, opts *sql.TxOptions, fn func(tx *sql.Tx) error, options ...TxOption) error {
	cfg := newTxConfig(options)
	if cfg.options != (pgx.TxOptions{}) {
		return errors.New("retry: SQLTx takes *sql.TxOptions: leave WithTxOptions out")
	}
	return cfg.run(ctx, func(ctx context.Context) error { return sqlAttempt(ctx, db, opts, cfg, fn) })
}

func sqlAttempt(ctx context.Context, db SQLBeginner, opts *sql.TxOptions, cfg *txConfig, fn func(*sql.Tx) error) error {
	tx, err := db.BeginTx(ctx, opts)
	if err != nil {
		if Classify(err) == Permanent || !fromDatabase(err) || singleIsLost(db, err) {
			return Mark(err, Permanent)
		}
		return mark(err, NotExecuted, "BEGIN changes nothing, whatever became of it")
	}
	done := false
	defer func() {
		if !done {
			_ = tx.Rollback() // after an error, and after a panic
		}
	}()
	if err := fn(tx); err != nil {
		done = true
		return beforeSQLCommit(ctx, err, tx.Rollback())
	}
	if ctx.Err() != nil { // database/sql rolls back by itself
		return mark(context.Cause(ctx), RolledBack, "COMMIT was not sent")
	}
	settle := &cfg.settle
	c := claim{nothing: opts != nil && opts.ReadOnly}
	if settle.by != nil && !c.nothing {
		if c, err = settle.by.inSQL(ctx, sqlQuery(tx)); err != nil {
			done = true
			return settle.by.explain(learningFailed(ctx, err, tx.Rollback()))
		}
	}
	done = true // Commit ends the transaction, whatever it returns
	if err = tx.Commit(); err != nil {
		err = sqlCommitFailed(err)
		cfg.doubted(ctx, err)
	}
	if settle.by == nil {
		return err
	}
	return settle.settled(ctx, err, c, sqlThrough(db))
}

func sqlCommitFailed(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return Mark(err, Permanent) // fn ended the transaction, or its context did
	}
	verdict, marked := markOf(err)
	return commitFailed(err, marked && verdict.Retryable())
}

// beforeSQLCommit is about an error of fn's, in a transaction whose rollback gave rollback. A *sql.Tx
// does not show its connection: that it was lost is known from both.
func beforeSQLCommit(ctx context.Context, err, rollback error) error {
	state := open
	switch cancelled := ctx.Err() != nil && ofContext(err); {
	case errors.Is(rollback, sql.ErrTxDone) && !cancelled: // database/sql rolls back when ctx ends
		state = ended
	case rollback != nil && (cancelled || fromDatabase(err)):
		state = lost
	}
	return beforeCommit(ctx, err, state)
}

// learningFailed is about an error of the statement that settling sends before COMMIT.
func learningFailed(ctx context.Context, err, rollback error) error {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == "25P02" { // the transaction had failed before
		return Mark(pgx.ErrTxCommitRollback, Permanent)
	}
	return beforeSQLCommit(ctx, err, rollback)
}

// singleIsLost reports whether db is a single connection that does not come back.
func singleIsLost(db SQLBeginner, err error) bool {
	_, single := db.(*sql.Conn)
	return single && (errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone))
}

// sqlQuery runs statements in tx. Those that have no row to scan return none.
func sqlQuery(tx *sql.Tx) querier {
	return func(ctx context.Context, text string, args []any, dst ...any) error {
		if len(dst) == 0 {
			_, err := tx.ExecContext(ctx, text, args...)
			return err
		}
		return tx.QueryRowContext(ctx, text, args...).Scan(dst...)
	}
}

// sqlThrough runs statements in transactions of their own.
func sqlThrough(db SQLBeginner) querier {
	return func(ctx context.Context, text string, args []any, dst ...any) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			if singleIsLost(db, err) {
				return errSingle
			}
			return err
		}
		if err := sqlQuery(tx)(ctx, text, args, dst...); err != nil {
			_ = tx.Rollback()
			return err
		}
		return tx.Commit()
	}
}

// fromDatabase reports whether err is the connection's or the server's, and not the
// application's own. End-of-file and network errors are not enough: a function's HTTP
// request fails with the same.
func fromDatabase(err error) bool {
	if _, ok := markOf(err); ok { // the bridge of proxy.OpenDB marks what it loses
		return true
	}
	if _, ok := errors.AsType[*pgconn.PgError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	for _, lost := range []error{pgconn.ErrConnClosed, driver.ErrBadConn, sql.ErrConnDone} {
		if errors.Is(err, lost) {
			return true
		}
	}
	return false
}
