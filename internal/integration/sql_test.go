package integration

// The bridge to database/sql on a real PostgreSQL: one row per insert, whatever happens
// to the connection, and otherwise all that database/sql and pgx's types can do.

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

func openDB(tb testing.TB, url string, opts ...proxy.Option) *sql.DB {
	tb.Helper()
	db, err := proxy.OpenDB(tb.Context(), url, opts...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	return db
}

func TestSQLAnInsertWhoseAnswerIsLostInsertsOneRow(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		open func(dsn string) *sql.DB
		rows int
	}{
		{"OpenDB", func(dsn string) *sql.DB { return openDB(t, dsn) }, 1},
		{"OpenDBFromPool", func(dsn string) *sql.DB { return proxy.OpenDBFromPool(newPool(t, dsn)) }, 1},
		{"OpenDBFromPool, plain pool", func(dsn string) *sql.DB { return proxy.OpenDBFromPool(plainSQLPool(t, dsn)) }, 1},
		{"pgx's own", func(dsn string) *sql.DB {
			db := stdlib.OpenDBFromPool(plainSQLPool(t, dsn))
			t.Cleanup(func() { _ = db.Close() })
			return db
		}, 3},
	} {
		dsn := database(t, shared)
		direct := newPool(t, dsn)
		exec(t, direct, "create table t (n int)")
		r, through := newCuttingRelay(t, dsn)
		db := tt.open(through)
		if err := db.PingContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		r.cutAt("insert", true, 10)
		_, err := db.ExecContext(t.Context(), "insert into t values (1)")
		r.cutNoMore()
		var rows int
		if err := direct.QueryRow(t.Context(), "select count(*) from t").Scan(&rows); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d rows, %d connections cut: %v", tt.name, rows, r.cuts.Load(), err)
		if rows != tt.rows {
			t.Errorf("%s: one insert inserted %d rows, want %d", tt.name, rows, tt.rows)
		}
		if tt.rows == 1 && (err == nil || retry.Classify(err) != retry.Ambiguous || errors.Is(err, driver.ErrBadConn)) {
			t.Errorf("%s: got %v", tt.name, err)
		}
		if err := db.PingContext(t.Context()); err != nil {
			t.Errorf("%s: afterwards: %v", tt.name, err)
		}
	}
}

func plainSQLPool(tb testing.TB, dsn string) *pgxpool.Pool {
	tb.Helper()
	pool, err := pgxpool.New(tb.Context(), dsn)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(pool.Close)
	return pool
}

func TestSQLTypesAndColumns(t *testing.T) {
	t.Parallel()
	dsn := database(t, shared)
	m := pgtype.NewMap()
	for mode := pgx.QueryExecModeCacheStatement; mode <= pgx.QueryExecModeSimpleProtocol; mode++ {
		db := openDB(t, dsn, proxy.WithExecMode(mode))
		var (
			i    int64
			f    float64
			s    string
			b    []byte
			at   time.Time
			none sql.NullString
			list []int32
			r    pgtype.Range[pgtype.Int4]
		)
		when := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
		err := db.QueryRowContext(t.Context(), "select $1::int8, $2::float8, $3::text, $4::bytea, $5::timestamptz, $6::text, $7::int4[], int4range(1, 5)",
			int64(7), 1.5, "seven", []byte{0, 255}, when, nil, []int32{1, 2, 3}).
			Scan(&i, &f, &s, &b, &at, &none, m.SQLScanner(&list), m.SQLScanner(&r))
		if err != nil {
			t.Fatalf("%s: %v", mode, err)
		}
		if i != 7 || f != 1.5 || s != "seven" || !slices.Equal(b, []byte{0, 255}) || !at.Equal(when) || none.Valid || !slices.Equal(list, []int32{1, 2, 3}) || r.Upper.Int32 != 5 {
			t.Errorf("%s: %v %v %v %v %v %v %v %v", mode, i, f, s, b, at, none, list, r)
		}
	}
	rows, err := openDB(t, dsn).QueryContext(t.Context(), "select 1::int4 as n, 'a'::varchar(10) as s, 1.25::numeric(6,2) as d")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	if err != nil {
		t.Fatal(err)
	}
	length, _ := types[1].Length()
	precision, scale, _ := types[2].DecimalSize()
	if types[0].Name() != "n" || types[0].DatabaseTypeName() != "INT4" || types[0].ScanType() != reflect.TypeFor[int32]() || length != 10 || precision != 6 || scale != 2 {
		t.Errorf("%+v", types)
	}
	if err := rows.Err(); err != nil {
		t.Error(err)
	}
}

func TestSQLPreparedStatementsAndTransactions(t *testing.T) {
	t.Parallel()
	db := openDB(t, database(t, shared))
	ctx := t.Context()
	if _, err := db.ExecContext(ctx, "create table t (n int primary key)"); err != nil {
		t.Fatal(err)
	}
	stmt, err := db.PrepareContext(ctx, "insert into t values ($1)")
	if err != nil {
		t.Fatal(err)
	}
	defer stmt.Close()
	for i := range 3 {
		result, err := stmt.ExecContext(ctx, i)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := result.RowsAffected(); n != 1 || err != nil {
			t.Errorf("%d rows, %v", n, err)
		}
	}
	var pgErr *pgconn.PgError
	if _, err := stmt.ExecContext(ctx, 1); !errors.As(err, &pgErr) || pgErr.Code != "23505" {
		t.Errorf("a duplicate: %v", err)
	}
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable, ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	var isolation, readOnly string
	err = tx.QueryRowContext(ctx, "select current_setting('transaction_isolation'), current_setting('transaction_read_only')").Scan(&isolation, &readOnly)
	if err != nil || isolation != "serializable" || readOnly != "on" {
		t.Errorf("%v: %s, read only %s", err, isolation, readOnly)
	}
	if err := execIn(ctx, tx, stmt, 9); !errors.As(err, &pgErr) || pgErr.Code != "25006" {
		t.Errorf("an insert in a read-only transaction: %v", err)
	}
	if err := tx.Commit(); !errors.Is(err, pgx.ErrTxCommitRollback) {
		t.Errorf("COMMIT of a failed transaction: %v", err)
	}
	if tx, err = db.BeginTx(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if err := execIn(ctx, tx, stmt, 9); err != nil {
		t.Error(err)
	}
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	var n int
	if err := db.QueryRowContext(ctx, "select count(*) from t").Scan(&n); err != nil || n != 4 {
		t.Errorf("%d rows, %v", n, err)
	}
}

// execIn executes a statement of the DB in a transaction.
func execIn(ctx context.Context, tx *sql.Tx, stmt *sql.Stmt, args ...any) error {
	stmt = tx.StmtContext(ctx, stmt)
	defer stmt.Close()
	_, err := stmt.ExecContext(ctx, args...)
	return err
}

func TestSQLBusyConnectionsAndCancellation(t *testing.T) {
	t.Parallel()
	db := openDB(t, database(t, shared))
	ctx := t.Context()
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := tx.QueryContext(ctx, "select generate_series(1, 10)")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	_, execErr := tx.ExecContext(ctx, "create table t (n int)")
	queryErr := tx.QueryRowContext(ctx, "select 1").Err()
	for _, err := range []error{execErr, queryErr} {
		t.Log(err)
		if err == nil || errors.Is(err, driver.ErrBadConn) || retry.Classify(err) != retry.Permanent {
			t.Errorf("while rows are open: %v", err)
		}
	}
	sum, n := 0, 0
	for rows.Next() {
		if err := rows.Scan(&n); err != nil {
			t.Error(err)
		}
		sum += n
	}
	if err := rows.Err(); err != nil || sum != 55 {
		t.Errorf("the open rows: %v, sum %d", err, sum)
	}
	if err := tx.Rollback(); err != nil {
		t.Error(err)
	}
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := db.ExecContext(short, "select pg_sleep(600)"); !errors.Is(err, context.DeadlineExceeded) || retry.Classify(err) != retry.Ambiguous {
		t.Errorf("a statement that took too long: %v", err)
	}
	if err := db.QueryRowContext(ctx, "select 1").Scan(&n); err != nil || n != 1 {
		t.Errorf("afterwards: %d, %v", n, err)
	}
}

func TestSQLRawReachesPgx(t *testing.T) {
	t.Parallel()
	db := openDB(t, database(t, shared))
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(t.Context(), "create temp table t (n int)"); err != nil {
		t.Fatal(err)
	}
	err = conn.Raw(func(driverConn any) error {
		pgxConn := driverConn.(interface{ Conn() *pgx.Conn }).Conn()
		n, err := pgxConn.CopyFrom(t.Context(), pgx.Identifier{"t"}, []string{"n"}, pgx.CopyFromRows([][]any{{1}, {2}}))
		if n != 2 {
			t.Errorf("copied %d rows", n)
		}
		return err
	})
	var sum int
	if scanErr := conn.QueryRowContext(t.Context(), "select sum(n) from t").Scan(&sum); err != nil || scanErr != nil || sum != 3 {
		t.Errorf("%v, %v, sum %d", err, scanErr, sum)
	}
}

// All goroutines at once, through an RDS Proxy; then Close leaves nothing behind. It
// looks at all goroutines of the process, so it does not run in parallel.
func TestSQLHundredGoroutinesAndClose(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	px, url, _ := startProxy(t)
	db := openDB(t, url, signedBy(px), proxy.WithMaxConns(5))
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			tx, err := db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Error(err)
				return
			}
			var got int
			if err := tx.QueryRowContext(t.Context(), "select $1::int", i).Scan(&got); err != nil || got != i {
				t.Errorf("%d for %d, %v", got, i, err)
			}
			if err := tx.Commit(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := px.Stats().ClientConnections; n > 5 || db.Stats().OpenConnections != 0 {
		t.Errorf("%d client connections, %d of them kept by database/sql", n, db.Stats().OpenConnections)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	if err := px.Close(); err != nil {
		t.Error(err)
	}
	goleak.VerifyNone(t, ignore)
}

// BenchmarkSQL: the cost of one query beside pgx's own bridge over a plain pool.
func BenchmarkSQL(b *testing.B) {
	dsn := database(b, shared)
	pool := plainSQLPool(b, dsn)
	plain := stdlib.OpenDBFromPool(pool)
	b.Cleanup(func() { _ = plain.Close() })
	query := func(db *sql.DB) func() error {
		return func() error {
			var n int
			return db.QueryRowContext(context.Background(), "select $1::int", 42).Scan(&n)
		}
	}
	comparePairs(b, 200, query(openDB(b, dsn, proxy.WithMaxConns(4))), query(plain))
}
