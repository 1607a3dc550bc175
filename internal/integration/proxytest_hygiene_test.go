package integration

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aurorapgx/aurorapgx/internal/pgtest"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

// logBuffer is a log to look into.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func queryText(t testing.TB, conn *pgx.Conn, sql string) string {
	t.Helper()
	var text string
	if err := conn.QueryRow(t.Context(), sql, pgx.QueryExecModeSimpleProtocol).Scan(&text); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return text
}

func TestProxytestSessionReset(t *testing.T) {
	t.Parallel()
	// In the session's own temporary schema: a connection's that was closed is in the catalogue until
	// its server process has ended, which nobody waits for.
	const state = `select current_setting('work_mem') || ' ' || current_setting('statement_timeout') || ' ' ||
		(select count(*) from pg_prepared_statements) || ' ' || (select count(*) from pg_listening_channels()) || ' ' ||
		(select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) || ' ' ||
		(select count(*) from pg_class where relname = 'tmp_of_mine' and relnamespace = pg_my_temp_schema())`
	dirty := []string{
		"set work_mem to '77MB'", "set statement_timeout to '1h'", "prepare p as select 1", "listen c",
		"select pg_advisory_lock(427)", "create temp table tmp_of_mine (i int)",
	}
	for mode, reset := range map[string]proxytest.SessionReset{
		"pinned": proxytest.ResetPinned, "every": proxytest.ResetEvery, "close": proxytest.ResetByClose,
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			var log logBuffer
			px := proxytest.NewProxy(t, backend(t), proxytest.WithMaxConnections(1), proxytest.WithLogger(log.logger()),
				proxytest.WithSessionReset(reset), proxytest.WithInitQuery("set work_mem to '9MB'"))
			first := pxConnect(t, px)
			clean := queryText(t, first, state)
			if !strings.HasPrefix(clean, "9MB 0") {
				t.Fatalf("clean: %s", clean)
			}
			for _, sql := range dirty {
				mustExec(t, first, sql)
			}
			if got := queryText(t, first, state); got != "77MB 1h 1 1 1 1" {
				t.Fatalf("dirty: %s", got)
			}
			if err := first.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := queryText(t, pxConnect(t, px), state); got != clean {
				t.Errorf("the next client found %s", got)
			}
			const line = "The database connection was released to the connection pool upon session reset."
			opened := px.Stats().DatabaseConnectionsSetupSucceeded
			if reset == proxytest.ResetByClose {
				if opened != 2 || strings.Contains(log.String(), line) {
					t.Errorf("%d connections opened, log:\n%s", opened, log.String())
				}
			} else if opened != 1 || !strings.Contains(log.String(), line) {
				t.Errorf("%d connections opened, log:\n%s", opened, log.String())
			}
		})
	}
}

// TestProxytestFunctionStateLeaks is what RDS Proxy does not notice, and a reset after every
// transaction would cure.
func TestProxytestFunctionStateLeaks(t *testing.T) {
	t.Parallel()
	for _, reset := range []proxytest.SessionReset{proxytest.ResetPinned, proxytest.ResetEvery} {
		px := proxytest.NewProxy(t, backend(t), proxytest.WithMaxConnections(1), proxytest.WithSessionReset(reset))
		before := queryText(t, pxConnect(t, px), "show work_mem")
		mustExec(t, pxConnect(t, px), "do $$ begin set work_mem to '55MB'; end $$")
		got := queryText(t, pxConnect(t, px), "show work_mem")
		if leaks := reset == proxytest.ResetPinned; leaks != (got == "55MB") || !leaks && got != before {
			t.Errorf("reset %d: %s", reset, got)
		}
	}
}

// TestProxytestResetKeepsStatements uses prepared statements over connections that forget theirs.
func TestProxytestResetKeepsStatements(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, backend(t), proxytest.WithMaxConnections(2), proxytest.WithSessionReset(proxytest.ResetEvery))
	pool := pxPool(t, px)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 50 {
				var got int
				if err := pool.QueryRow(t.Context(), "select $1::int", i).Scan(&got); err != nil || got != i {
					t.Errorf("%d: %d, %v", i, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestProxytestReaders(t *testing.T) {
	t.Parallel()
	primary := pgtest.Run(t)
	standby, err := primary.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = standby.Close() })
	one, two := primary.DSN(), standby.DSN()
	px := proxytest.NewProxy(t, one, proxytest.WithReaders(one, two), proxytest.WithMaxConnections(6),
		proxytest.WithBorrowTimeout(10*time.Second), proxytest.WithEndpointName("ro"))
	const where = "select pg_is_in_recovery()::text"

	// Connections in use spread over the readers.
	count := map[string]int{}
	var txs []pgx.Tx
	for range 4 {
		conn := pxConnect(t, px)
		tx, err := conn.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		txs = append(txs, tx)
		count[queryText(t, conn, where)]++
	}
	if count["true"] != 2 || count["false"] != 2 {
		t.Errorf("connections: %v", count)
	}
	for _, tx := range txs {
		_ = tx.Rollback(t.Context())
	}

	// A client between transactions moves when its reader goes.
	conn := pxConnect(t, px)
	px.SetReaderDown(one, true)
	if got := queryText(t, conn, where); got != "true" {
		t.Errorf("in recovery: %s, after the other reader went", got)
	}
	// With all of them gone it waits.
	px.SetReaderDown(two, true)
	waited := make(chan string, 1)
	go func() {
		var got string
		_ = conn.QueryRow(t.Context(), where, pgx.QueryExecModeSimpleProtocol).Scan(&got)
		waited <- got
	}()
	waitFor(t, "the statement to wait", func() bool { return px.Stats().DatabaseConnectionsCurrentlyBorrowed == 0 })
	select {
	case got := <-waited:
		t.Fatalf("got %q from no reader", got)
	case <-time.After(100 * time.Millisecond):
	}
	px.SetReaderDown(one, false)
	if got := <-waited; got != "false" {
		t.Errorf("in recovery: %s, with only the primary up", got)
	}
	// Without readers there is an error at once, also for one who waits.
	px.SetReaderDown(one, true)
	go func() {
		_, err := conn.Exec(t.Context(), "select 1")
		waited <- errorText(err)
	}()
	time.Sleep(50 * time.Millisecond)
	if err := px.SetReaders(); err != nil {
		t.Fatal(err)
	}
	if got := <-waited; !strings.Contains(got, "associated read-only instances") {
		t.Errorf("got %q", got)
	}
	_, err = pxConnect(t, px).Exec(t.Context(), "select 1")
	if got := errorText(err); !strings.Contains(got, "associated read-only instances") {
		t.Errorf("got %q", got)
	}
	if err := px.SetReaders(two); err != nil {
		t.Fatal(err)
	}
	if got := queryText(t, pxConnect(t, px), where); got != "true" {
		t.Errorf("in recovery: %s", got)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestProxytestSwitchover(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, backend(t), proxytest.WithFailoverReply(proxytest.FailoverClose))
	idle, busy, waiting := pxConnect(t, px), pxConnect(t, px), pxConnect(t, px)
	mustExec(t, idle, "select 1")
	tx, err := busy.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- px.Switchover(300*time.Millisecond, backend(t)) }()
	waitFor(t, "the cut", func() bool { return px.Stats().DatabaseConnections == 0 })
	_, err = tx.Exec(t.Context(), "select 1")
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Code != "57P01" {
		t.Errorf("in mid-transaction: %v", err)
	}
	if _, err := waiting.Exec(t.Context(), "select 1"); err == nil {
		t.Error("a client that waited was not dropped")
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := idle.Exec(t.Context(), "select 1"); err == nil {
		t.Error("an idle client was not dropped")
	}
	mustExec(t, pxConnect(t, px), "select 1")
}

func TestProxytestEndToEndIAM(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, backend(t), proxytest.WithEndToEndIAM())
	mustExec(t, pxConnect(t, px), "select 1")
}

func TestProxytestDatabaseConnectionLifetime(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, backend(t), proxytest.WithMaxConnections(1), proxytest.WithDatabaseLifetime(time.Nanosecond))
	conn := pxConnect(t, px)
	for range 3 {
		mustExec(t, conn, "select 1")
	}
	if st := px.Stats(); st.DatabaseConnectionsSetupSucceeded < 3 || st.PinnedSessions != 0 {
		t.Errorf("%+v", st)
	}
}
