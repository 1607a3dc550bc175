package proxy

// The bridge to database/sql: a *sql.DB over a pool, which runs no statement twice.
//
// What makes it necessary: database/sql runs a statement again, up to twice, when the
// driver says driver.ErrBadConn. pgx's own bridge says so when pgconn.SafeToRetry
// holds for the error, and from pgx 5.9.0 on that holds for statements of the simple
// protocol that the server has already received: a connection that ends before the
// answer is reported like one that was closed before the statement. One
// db.Exec("insert ...") then inserts three rows, without an error.

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
)

// OpenDB opens a *sql.DB for libraries that need database/sql. Underneath is a pool
// as [NewPool] makes it, from the same connection strings and options; like NewPool,
// OpenDB fails with a [*ConfigError] and does not wait for the server. Types,
// arguments and columns are those of pgx's package stdlib.
//
// No statement is run twice. A statement whose connection was closed before anything
// of it was sent is left to database/sql, which takes another connection. If the
// connection is lost later than that, the caller gets the error: it says that the
// statement may have been executed, its verdict is [retry.Ambiguous], and it wraps
// pgx's error, or [pgconn.ErrConnClosed] where pgx kept none. The verdict is
// [retry.NotExecuted] where nothing had been sent. What the server itself answers is
// passed on as the *pgconn.PgError it is.
//
// Closing the DB closes the pool; it waits until rows and transactions that are still
// open have been closed. The pool is the only one: the DB keeps no idle connections,
// because they would be taken out of the pool while nobody uses them. So leave
// SetMaxIdleConns alone, and limit connections with [WithMaxConns]. pgx caches
// prepared statements by itself; one made with db.Prepare is prepared anew for each
// use.
//
// What database/sql cannot do, the connection behind it can:
//
//	conn, err := db.Conn(ctx)
//	...
//	defer conn.Close()
//	err = conn.Raw(func(driverConn any) error {
//		pgxConn := driverConn.(interface{ Conn() *pgx.Conn }).Conn()
//		_, err := pgxConn.CopyFrom(ctx, ...)
//		return err
//	})
//
// The type assertion fits pgx's own *stdlib.Conn as well. Do not close the *pgx.Conn.
func OpenDB(ctx context.Context, connString string, opts ...Option) (*sql.DB, error) {
	pool, err := NewPool(ctx, connString, opts...)
	if err != nil {
		return nil, err
	}
	return openDB(owningConnector{newSQLConnector(pool)}), nil
}

// OpenDBFromPool is [OpenDB] over a pool that exists already. Closing the DB leaves
// the pool open, which others may use at the same time.
//
// The pool need not be one of this package's. On connections that this package has
// not made, it cannot tell whether anything of a statement was sent; there the verdict
// is [retry.Ambiguous] unless the connection was closed before the statement began.
func OpenDBFromPool(pool *pgxpool.Pool) *sql.DB {
	return openDB(newSQLConnector(pool))
}

func openDB(c driver.Connector) *sql.DB {
	db := sql.OpenDB(c)
	db.SetMaxIdleConns(0)
	return db
}

// sqlConnector takes connections out of the pool for database/sql.
type sqlConnector struct {
	std         driver.Connector // pgx's, which acquires them
	pool        *pgxpool.Pool
	shouldPing  func(context.Context, pgxpool.ShouldPingParams) bool
	pingTimeout time.Duration // 0: none
}

func newSQLConnector(pool *pgxpool.Pool) *sqlConnector {
	cfg := pool.Config()
	c := &sqlConnector{std: stdlib.GetPoolConnector(pool), pool: pool, shouldPing: cfg.ShouldPing, pingTimeout: cfg.PingTimeout}
	if c.shouldPing == nil { // pgxpool's default, which its Config does not show
		c.shouldPing = func(_ context.Context, p pgxpool.ShouldPingParams) bool { return p.IdleDuration > time.Second }
	}
	return c
}

// Connect acquires a connection. It fails as the pool's Acquire does, never with
// driver.ErrBadConn.
func (c *sqlConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.std.Connect(ctx)
	if err != nil {
		return nil, err
	}
	std, ok := conn.(*stdlib.Conn)
	if !ok {
		_ = conn.Close()
		return nil, fmt.Errorf("aurorapgx: pgx's connector made a %T", conn)
	}
	return &sqlConn{std: std, pgx: std.Conn(), from: c, counter: findCounter(std.Conn().PgConn().Conn())}, nil
}

// Driver is pgx's, by which libraries recognize the SQL dialect.
func (c *sqlConnector) Driver() driver.Driver { return c.std.Driver() }

// owningConnector closes its pool when database/sql closes the DB.
type owningConnector struct{ *sqlConnector }

func (c owningConnector) Close() error {
	c.pool.Close()
	return nil
}

// writeCounter is a net.Conn that knows how much it was given to send: see
// handedConn.Written.
type writeCounter interface{ Written() uint64 }

// findCounter looks for the counter below what a user's AfterNetConnect has put over
// the connection. A wrapper that holds back what it is given to write must not have a
// NetConn method: bytes it holds would count as never sent.
func findCounter(conn net.Conn) writeCounter {
	for {
		if counter, ok := conn.(writeCounter); ok {
			return counter
		}
		outer, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		conn = outer.NetConn()
	}
}
