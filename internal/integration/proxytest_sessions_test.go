package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

func TestProxytestLogin(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var logins []proxytest.Login
	db, _ := pgconn.ParseConfig(backend(t))
	px := proxytest.NewProxy(t, backend(t), proxytest.WithOnLogin(func(l proxytest.Login) {
		mu.Lock()
		defer mu.Unlock()
		logins = append(logins, l)
	}))
	conn := pxConnect(t, px)
	pg := conn.PgConn()
	if pg.PID() != 0 || len(pg.SecretKey()) != 0 {
		t.Errorf("BackendKeyData: %d, %x", pg.PID(), pg.SecretKey())
	}
	for _, name := range []string{"server_version", "client_encoding", "standard_conforming_strings", "TimeZone", "DateStyle", "integer_datetimes"} {
		if want := direct(t).PgConn().ParameterStatus(name); pg.ParameterStatus(name) != want {
			t.Errorf("%s = %q, directly %q", name, pg.ParameterStatus(name), want)
		}
	}
	if st := px.Stats(); st.Statements != 0 || st.DatabaseConnectionsBorrowRequests != 0 || st.ClientConnections != 1 {
		t.Errorf("connecting is not free: %+v", st)
	}
	if len(logins) != 1 || logins[0].Method != "IAM" || logins[0].User != db.User || time.Since(logins[0].SignedAt) > time.Minute || logins[0].Err != nil {
		t.Errorf("logins: %+v", logins)
	}

	// The same user by password; and a wrong one.
	px = proxytest.NewProxy(t, backend(t), proxytest.WithUser(db.User, db.Password))
	cfg := proxyConfig(t, px).ConnConfig
	cfg.Password = db.Password
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	mustExec(t, conn, "select 1")
	_ = conn.Close(t.Context())
	cfg.Password = "wrong"
	_, err = pgx.ConnectConfig(t.Context(), cfg)
	wantError(t, err, "28P01", "The password that was provided for the role "+db.User+" is wrong.")
	cfg.User = "nobody"
	_, err = pgx.ConnectConfig(t.Context(), cfg)
	wantError(t, err, "28000", "This RDS proxy has no credentials for the role nobody. Check the credentials for this role and try again.")
}

func wantError(t testing.TB, err error, code, message string) {
	t.Helper()
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) {
		t.Errorf("got %v, want SQLSTATE %s", err, code)
		return
	}
	if pgErr.Code != code || !strings.HasPrefix(pgErr.Message, message) {
		t.Errorf("got %s %q, want %s %q", pgErr.Code, pgErr.Message, code, message)
	}
}

func TestProxytestStartupState(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, backend(t), proxytest.WithMaxConnections(1))
	plain := pxPool(t, px)
	other := pxPool(t, px, func(c *pgxpool.Config) {
		c.ConnConfig.RuntimeParams = map[string]string{"search_path": "pg_catalog", "TimeZone": "Asia/Tokyo", "application_name": "other"}
	})
	show := func(pool *pgxpool.Pool, name string) (value string) {
		if err := pool.QueryRow(t.Context(), "select current_setting($1)", name).Scan(&value); err != nil {
			t.Fatal(err)
		}
		return value
	}
	for range 3 { // with one database connection: each turn evicts the other's
		if got := show(plain, "search_path") + "|" + show(other, "search_path") + "|" + show(other, "TimeZone"); got != `"$user", public|pg_catalog|Asia/Tokyo` {
			t.Errorf("got %s", got)
		}
	}
	conn, err := other.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	if pg := conn.Conn().PgConn(); pg.ParameterStatus("TimeZone") != "Asia/Tokyo" || pg.ParameterStatus("application_name") != "other" {
		t.Error("startup parameters are not reported back")
	}
	if st := px.Stats(); st.DatabaseConnections != 1 || st.PinnedSessions != 0 {
		t.Errorf("%+v", st)
	}
	bad := proxyConfig(t, px).ConnConfig
	bad.RuntimeParams["statement_timeout"] = "5s"
	_, err = pgx.ConnectConfig(t.Context(), bad)
	wantError(t, err, "0A000", "Feature not supported: RDS Proxy currently doesn’t support the option statement_timeout.")
}

func TestProxytestStatementsMove(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, backend(t), proxytest.WithMaxConnections(4))
	ctx := t.Context()
	a, b := pxConnect(t, px), pxConnect(t, px)
	prepare := func(conn *pgx.Conn, sql string) {
		if _, err := conn.Prepare(ctx, "same_name", sql); err != nil {
			t.Fatal(err)
		}
	}
	prepare(a, "select 'a' || pg_backend_pid()::text")
	prepare(b, "select 'b' || pg_backend_pid()::text")
	pids := map[string]bool{}
	for i := range 4 {
		// i others hold connections, so a and b are served by others each time.
		var holders []pgx.Tx
		for range i {
			tx, err := pxConnect(t, px).Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			holders = append(holders, tx)
		}
		var fromA, fromB string
		if err := a.QueryRow(ctx, "same_name").Scan(&fromA); err != nil {
			t.Fatal(err)
		}
		if err := b.QueryRow(ctx, "same_name").Scan(&fromB); err != nil {
			t.Fatal(err)
		}
		if fromA[0] != 'a' || fromB[0] != 'b' {
			t.Fatalf("statements mixed up: %s, %s", fromA, fromB)
		}
		pids[fromA[1:]] = true
		for _, tx := range holders {
			_ = tx.Rollback(ctx)
		}
	}
	if len(pids) < 3 {
		t.Errorf("only %d database connections used", len(pids))
	}
	if st := px.Stats(); st.Reparsed == 0 || st.PinnedSessions != 0 {
		t.Errorf("%+v", st)
	}
	if err := a.Deallocate(ctx, "same_name"); err != nil {
		t.Fatal(err)
	}
	_, err := a.PgConn().ExecPrepared(ctx, "same_name", nil, nil, nil).Close()
	wantError(t, err, "26000", `prepared statement "same_name" does not exist`)
	prepare(a, "select 'again'")
}

// TestProxytestUnnamedStatement parses in one Sync group and binds in the next, with another client's
// unnamed statement in between on the only database connection.
func TestProxytestUnnamedStatement(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, backend(t), proxytest.WithMaxConnections(1))
	ctx := t.Context()
	a, b := pxConnect(t, px).PgConn(), pxConnect(t, px).PgConn()
	if _, err := a.Prepare(ctx, "", "select 'a'", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Prepare(ctx, "", "select 'b'", nil); err != nil {
		t.Fatal(err)
	}
	c := pxConnect(t, px).PgConn()
	_, err := c.ExecPrepared(ctx, "", nil, nil, nil).Close()
	wantError(t, err, "26000", "unnamed prepared statement does not exist")
	for range 2 {
		for conn, want := range map[*pgconn.PgConn]string{a: "a", b: "b"} {
			res := conn.ExecPrepared(ctx, "", nil, nil, nil).Read()
			if res.Err != nil || string(res.Rows[0][0]) != want {
				t.Errorf("%v, %v", res.Rows, res.Err)
			}
		}
	}
	if _, err := a.Exec(ctx, "select 1").ReadAll(); err != nil {
		t.Fatal(err)
	}
	_, err = a.ExecPrepared(ctx, "", nil, nil, nil).Close()
	wantError(t, err, "26000", "unnamed prepared statement does not exist")
}

func TestProxytestManyStatements(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, backend(t), proxytest.WithMaxConnections(1))
	conn := pxConnect(t, px)
	for i := range 2500 {
		if _, err := conn.Prepare(t.Context(), fmt.Sprint("s", i), fmt.Sprint("select ", i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := 0; i < 2500; i += 7 {
		var got int
		if err := conn.QueryRow(t.Context(), fmt.Sprint("s", i)).Scan(&got); err != nil || got != i {
			t.Fatalf("%d, %v", got, err)
		}
	}
	var n int
	if err := conn.QueryRow(t.Context(), "select count(*) from pg_prepared_statements", pgx.QueryExecModeExec).Scan(&n); err != nil || n > 1100 {
		t.Errorf("%d statements on the database connection, %v", n, err)
	}
}

func TestProxytestTransactions(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, backend(t), proxytest.WithMaxConnections(2))
	ctx := t.Context()
	table := fmt.Sprintf("tx_%d", time.Now().UnixNano())
	mustExec(t, direct(t), "create table "+table+" (id int primary key deferrable initially deferred)")
	t.Cleanup(func() { _, _ = direct(t).Exec(context.Background(), "drop table "+table) })
	a, b := pxConnect(t, px), pxConnect(t, px)
	tx, err := a.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(ctx, "insert into "+table+" values (1)"); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := b.QueryRow(ctx, "select count(*) from "+table).Scan(&n); err != nil || n != 0 {
		t.Errorf("b sees %d rows of a's transaction, %v", n, err)
	}
	if st := px.Stats(); st.DatabaseConnectionsCurrentlyInTransaction != 1 || st.DatabaseConnectionsCurrentlyBorrowed != 1 {
		t.Errorf("in a transaction: %+v", st)
	}
	if _, err := tx.Exec(ctx, "select 1/0"); err == nil {
		t.Error("division by zero")
	}
	_, err = tx.Exec(ctx, "select 1")
	wantError(t, err, "25P02", "current transaction is aborted")
	if err := tx.Rollback(ctx); err != nil {
		t.Fatal(err)
	}
	mustExec(t, a, "insert into "+table+" values (1)")
	_, err = a.Exec(ctx, "insert into "+table+" values ($1)", 1) // fails at Sync: the constraint is deferred
	wantError(t, err, "23505", "duplicate key")
	mustExec(t, a, "select 1; select 2", pgx.QueryExecModeSimpleProtocol)
	mustExec(t, a, "-- ping", pgx.QueryExecModeSimpleProtocol)
	mustExec(t, a, "", pgx.QueryExecModeExec)
	if st := px.Stats(); st.DatabaseConnectionsCurrentlyInTransaction != 0 || st.DatabaseConnectionsCurrentlyBorrowed != 0 {
		t.Errorf("after it: %+v", st)
	}
	rows, err := a.Query(ctx, "select n from generate_series(1, 10) n", pgx.QueryExecModeExec)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := pgx.CollectRows(rows, pgx.RowTo[int]); err != nil || !slices.Equal(got[:2], []int{1, 2}) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestProxytestPins(t *testing.T) {
	t.Parallel()
	setup := direct(t)
	seq := fmt.Sprintf("seq_%d", time.Now().UnixNano())
	mustExec(t, setup, "create sequence "+seq)
	t.Cleanup(func() { _, _ = direct(t).Exec(context.Background(), "drop sequence "+seq) })
	px := proxytest.NewProxy(t, backend(t), proxytest.WithMaxConnections(3))
	pinning := []string{
		"set search_path to public", "reset all", "select set_config('work_mem', '8MB', true)",
		"prepare p as select 1", "deallocate all", "discard all", "listen l", "create temp table t (i int)",
		"begin; declare c cursor for select 1; commit", "select 1 as x into temp u", "select nextval('" + seq + "')",
		"select pg_advisory_lock(1)", "select pg_try_advisory_lock_shared(2)", "select '" + strings.Repeat("x", 16384) + "'",
	}
	for _, sql := range pinning {
		modes := []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol}
		if !strings.HasPrefix(sql, "begin") {
			modes = append(modes, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec)
		}
		for _, mode := range modes {
			before := px.Stats().PinnedSessions
			conn := pxConnect(t, px)
			mustExec(t, conn, sql, mode)
			st := px.Stats()
			if st.PinnedSessions != before+1 || st.DatabaseConnectionsCurrentlySessionPinned != 1 || st.DatabaseConnectionsCurrentlyBorrowed != 1 {
				t.Errorf("%.60s (%s) did not pin: %+v", sql, mode, st)
			}
			mustExec(t, conn, "select 1", mode)
			_ = conn.Close(t.Context())
			waitFor(t, "pin ended with the client", func() bool { return px.Stats().DatabaseConnectionsCurrentlySessionPinned == 0 })
		}
	}
	before := px.Stats().PinnedSessions
	conn := pxConnect(t, px)
	for _, sql := range []string{
		"begin; set local work_mem = '8MB'; commit", "begin; set transaction read only; commit", "select pg_advisory_xact_lock(1)",
		"select 'set search_path to x' /* set x = 1 */ -- nextval('x')", "unlisten *", "savepoint s",
	} {
		_, _ = conn.Exec(t.Context(), sql, pgx.QueryExecModeSimpleProtocol)
	}
	if st := px.Stats(); st.PinnedSessions != before || st.DatabaseConnectionsCurrentlyBorrowed != 0 {
		t.Errorf("pinned without a reason: %+v", px.Pins()[before:])
	}
	for _, pin := range px.Pins() {
		if pin.Reason == "" || pin.Digest == "" || pin.ClientConnection == 0 || pin.User == "" {
			t.Errorf("%+v", pin)
		}
	}
}

// TestProxytestPreparedPinsAtExecute parses a SET, which does not pin, and runs it, which does.
func TestProxytestPreparedPinsAtExecute(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, backend(t))
	conn := pxConnect(t, px)
	if _, err := conn.Prepare(t.Context(), "s", "set work_mem = '8MB'"); err != nil {
		t.Fatal(err)
	}
	if n := px.Stats().PinnedSessions; n != 0 {
		t.Error("pinned at Parse")
	}
	mustExec(t, conn, "s")
	if pins := px.Pins(); len(pins) != 1 || !pins[0].Prepared || pins[0].Digest != "set work_mem = $1" {
		t.Errorf("%+v", pins)
	}
}

func TestProxytestIdleClientTimeout(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, backend(t), proxytest.WithIdleClientTimeout(2*time.Second))
	conn := pxConnect(t, px)
	mustExec(t, conn, "select pg_sleep(2.5)") // busy is not idle
	mustExec(t, conn, "select 1")
	waitFor(t, "idle client closed", func() bool { return px.Stats().ClientConnections == 0 })
}

func TestProxytestInitQuery(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, backend(t), proxytest.WithInitQuery("set work_mem = '7MB'"))
	var got string
	if err := pxPool(t, px).QueryRow(t.Context(), "show work_mem").Scan(&got); err != nil || got != "7MB" {
		t.Errorf("%s, %v", got, err)
	}
}

// TestProxytestNoPipelineDeadlock sends far more than any socket buffer holds before it reads.
func TestProxytestNoPipelineDeadlock(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, backend(t), proxytest.WithMaxConnections(1))
	hijacked, err := pxConnect(t, px).PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	_ = hijacked.Conn.SetDeadline(time.Now().Add(60 * time.Second))
	const n = 20_000
	sent := make(chan error, 1)
	go func() {
		var b []byte
		for range n {
			b, _ = (&pgproto3.Query{String: "select repeat('z', 1000)"}).Encode(b)
		}
		_, err := hijacked.Conn.Write(b)
		sent <- err
	}()
	for range n {
		receive[*pgproto3.ReadyForQuery](t, hijacked.Frontend)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	_ = hijacked.Conn.Close()
}

func TestProxytestMixedLoad(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, backend(t), proxytest.WithMaxConnections(7))
	table := fmt.Sprintf("mixed_%d", time.Now().UnixNano())
	mustExec(t, direct(t), "create table "+table+" (worker int, n int)")
	t.Cleanup(func() { _, _ = direct(t).Exec(context.Background(), "drop table "+table) })
	var pools []*pgxpool.Pool
	for _, mode := range execModes {
		pools = append(pools, pxPool(t, px, func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = mode; c.MaxConns = 8 }))
	}
	rounds := 15
	if os.Getenv("PROXYTEST_LONG") != "" {
		rounds = 300
	}
	var wg sync.WaitGroup
	for g := range 64 {
		wg.Go(func() {
			if err := mixedWork(t.Context(), pools[g%len(pools)], table, g, rounds); err != nil {
				t.Errorf("worker %d: %v", g, err)
			}
		})
	}
	wg.Wait()
	var n int
	if err := direct(t).QueryRow(t.Context(), "select count(*) from "+table).Scan(&n); err != nil || n != 64*rounds*3 {
		t.Errorf("%d rows, want %d, %v", n, 64*rounds*3, err)
	}
	st := px.Stats()
	t.Logf("%+v", st)
	if st.DatabaseConnectionsCurrentlyBorrowed != 0 || st.DatabaseConnectionsCurrentlyInTransaction != 0 || st.PinnedSessions != 0 {
		t.Errorf("%+v", st)
	}
}

func mixedWork(ctx context.Context, pool *pgxpool.Pool, table string, g, rounds int) error {
	for i := range rounds {
		err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(ctx, "insert into "+table+" values ($1, $2)", g, i); err != nil {
				return err
			}
			var n int
			if err := tx.QueryRow(ctx, "select count(*) from "+table+" where worker = $1", g).Scan(&n); err != nil {
				return err
			}
			if n != 3*i+1 {
				return fmt.Errorf("%d rows, want %d", n, 3*i+1)
			}
			_, err := tx.CopyFrom(ctx, pgx.Identifier{table}, []string{"worker", "n"}, pgx.CopyFromRows([][]any{{g, i}}))
			return err
		})
		if err != nil {
			return fmt.Errorf("transaction: %w", err)
		}
		b := &pgx.Batch{}
		b.Queue("insert into "+table+" values ($1, $2)", g, i)
		b.Queue("select $1::int", i)
		if err := pool.SendBatch(ctx, b).Close(); err != nil {
			return fmt.Errorf("batch: %w", err)
		}
		var pgErr *pgconn.PgError
		if _, err := pool.Exec(ctx, "select 1/$1::int", 0); !errors.As(err, &pgErr) || pgErr.Code != "22012" {
			return fmt.Errorf("division by zero: %w", err)
		}
		rows, err := pool.Query(ctx, "select n, repeat('x', n) from generate_series(1, $1::int) n", g*10)
		if err != nil {
			return err
		}
		if _, err := pgx.CollectRows(rows, pgx.RowToStructByPos[struct {
			N int
			X string
		}]); err != nil {
			return fmt.Errorf("rows: %w", err)
		}
	}
	return nil
}
