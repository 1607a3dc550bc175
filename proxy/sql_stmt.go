package proxy

// What database/sql gets from a connection: prepared statements, transactions and
// rows, whose errors take the same way as the connection's own.

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

var (
	_ driver.StmtExecContext                = (*sqlStmt)(nil)
	_ driver.StmtQueryContext               = (*sqlStmt)(nil)
	_ driver.Tx                             = (*sqlTx)(nil)
	_ driver.RowsColumnTypeDatabaseTypeName = (*sqlRows)(nil)
	_ driver.RowsColumnTypeLength           = (*sqlRows)(nil)
	_ driver.RowsColumnTypePrecisionScale   = (*sqlRows)(nil)
	_ driver.RowsColumnTypeScanType         = (*sqlRows)(nil)
)

// sqlStmt is a prepared statement. pgx finds it by its text on the connection.
type sqlStmt struct {
	driver.Stmt

	conn  *sqlConn
	query string
}

func (s *sqlStmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	return s.conn.ExecContext(ctx, s.query, args)
}

func (s *sqlStmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return s.conn.QueryContext(ctx, s.query, args)
}

// Close closes the statement on the server, unless it has ended with its connection.
func (s *sqlStmt) Close() error {
	if s.conn.pgx.IsClosed() {
		return nil
	}
	return s.Stmt.Close()
}

// sqlTx is a transaction. database/sql never runs COMMIT or ROLLBACK again.
type sqlTx struct {
	tx   driver.Tx
	conn *sqlConn
	ctx  context.Context // of BeginTx, which COMMIT and ROLLBACK are sent under
}

func (t *sqlTx) Commit() error { return t.end("COMMIT", t.tx.Commit) }

func (t *sqlTx) Rollback() error { return t.end("ROLLBACK", t.tx.Rollback) }

func (t *sqlTx) end(what string, send func() error) error {
	if err := t.conn.ready(what); err != nil {
		return err
	}
	before := t.conn.written()
	return t.conn.outcome(t.ctx, what, before, send())
}

// sqlRows are stdlib's rows, with whatever interfaces those have.
type sqlRows struct {
	*stdlib.Rows

	conn *sqlConn
}

func (r *sqlRows) Next(dest []driver.Value) error { return r.outcome(r.Rows.Next(dest)) }

// NextRow is what database/sql calls instead of Next where stdlib's rows have it, which
// is from Go 1.27 on.
func (r *sqlRows) NextRow() error {
	rows, ok := any(r.Rows).(interface{ NextRow() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return r.outcome(rows.NextRow())
}

func (r *sqlRows) Close() error { return r.outcome(r.Rows.Close()) }

// outcome explains an error that came after the query itself had succeeded.
func (r *sqlRows) outcome(err error) error {
	if err == nil || err == io.EOF { //nolint:errorlint // the end of the rows is io.EOF itself; an error may wrap one
		return err
	}
	if _, answered := errors.AsType[*pgconn.PgError](err); answered || !r.conn.pgx.IsClosed() {
		return err
	}
	return r.conn.lost("the query", err)
}
