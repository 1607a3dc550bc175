package integration

// proxytest when the database goes away, is slow to come, or has no connection to lend.

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

func TestProxytestFailover(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, backend(t), proxytest.WithMaxConnections(5))
	ctx := t.Context()
	idle, pinned, inTx, busy := pxConnect(t, px), pxConnect(t, px), pxConnect(t, px), pxConnect(t, px)
	mustExec(t, idle, "select $1::int", 1)
	mustExec(t, pinned, "set work_mem = '8MB'")
	tx, err := inTx.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	busyErr := make(chan error, 1)
	go func() {
		_, err := busy.Exec(ctx, "select pg_sleep(30)")
		busyErr <- err
	}()
	waitFor(t, "statement running", func() bool { return px.Stats().DatabaseConnectionsCurrentlyBorrowed == 3 })
	px.StartFailover()
	const text = "terminating connection due to administrator command"
	wantError(t, <-busyErr, "57P01", text)
	_, err = tx.Exec(ctx, "select 1")
	wantError(t, err, "57P01", text)

	waited := make(chan error, 2)
	before := px.Stats().DatabaseConnectionsBorrowRequests
	go func() {
		_, err := idle.Exec(ctx, "select $1::int", 1)
		waited <- err
	}()
	fresh := pxConnect(t, px) // new clients sign in all the while
	go func() {
		_, err := fresh.Exec(ctx, "select 1")
		waited <- err
	}()
	waitFor(t, "both to ask for a connection", func() bool { return px.Stats().DatabaseConnectionsBorrowRequests == before+2 })
	if len(waited) != 0 {
		t.Errorf("a statement was answered during the failover: %v", <-waited)
	}
	if err := px.FinishFailover(""); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-waited; err != nil {
			t.Error(err)
		}
	}
	_, err = pinned.Exec(ctx, "select 1")
	wantError(t, err, "57P01", text)
	mustExec(t, idle, "select 1")
	if st := px.Stats(); st.DatabaseConnectionsCurrentlyBorrowed != 0 || st.DatabaseConnectionsCurrentlySessionPinned != 0 {
		t.Errorf("%+v", st)
	}
}

func TestProxytestBorrowTimeout(t *testing.T) {
	t.Parallel()
	const text = "Timed-out waiting to acquire database connection."
	for _, reply := range []proxytest.BorrowTimeoutReply{proxytest.BorrowTimeoutFatal, proxytest.BorrowTimeoutError, proxytest.BorrowTimeoutClose} {
		px := proxytest.NewProxy(t, backend(t), proxytest.WithMaxConnections(1),
			proxytest.WithBorrowTimeout(100*time.Millisecond), proxytest.WithBorrowTimeoutReply(reply))
		holder := pxConnect(t, px)
		tx, err := holder.Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, mode := range execModes {
			conn := pxConnect(t, px)
			_, err = conn.Exec(t.Context(), "select $1::int", mode, 1)
			if reply != proxytest.BorrowTimeoutClose {
				wantError(t, err, "08000", text)
			} else {
				t.Logf("ERROR, then close, as pgx shows it in %s: %v", mode, err)
			}
			if conn.IsClosed() == (reply == proxytest.BorrowTimeoutError) {
				t.Errorf("reply %d, %s: closed = %t", reply, mode, conn.IsClosed())
			}
			if reply == proxytest.BorrowTimeoutError {
				_ = tx.Rollback(t.Context())
				mustExec(t, conn, "select $1::int", mode, 1)
				if tx, err = holder.Begin(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		if st := px.Stats(); st.DatabaseConnectionsBorrowTimeouts != 5 {
			t.Errorf("%+v", st)
		}
	}
}

func TestProxytestDatabaseDown(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	_ = l.Close()
	db, _ := pgconn.ParseConfig(backend(t))
	px := proxytest.NewProxy(t, fmt.Sprintf("postgres://%s:%s@%s/x?sslmode=disable", db.User, db.Password, nobody),
		proxytest.WithBorrowTimeout(300*time.Millisecond))
	conn := pxConnect(t, px) // signs in all the same
	_, err = conn.Exec(t.Context(), "select 1")
	wantError(t, err, "08000", "Timed-out waiting to acquire database connection.")
	if err := px.Failover(0, backend(t)); err != nil {
		t.Fatal(err)
	}
	mustExec(t, pxConnect(t, px), "select 1")

	cfg := proxyConfig(t, px)
	cfg.ConnConfig.Database = "no_such_database"
	_ = cfg.BeforeConnect(t.Context(), cfg.ConnConfig)
	conn, err = pgx.ConnectConfig(t.Context(), cfg.ConnConfig)
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(t.Context(), "select 1")
	wantError(t, err, "XX000", `Request returned an error: database "no_such_database" does not exist.`)
}

func TestProxytestClientLoss(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, backend(t), proxytest.WithMaxConnections(1))
	conn := pxConnect(t, px)
	mark := fmt.Sprintf("/* loss %d */", time.Now().UnixNano())
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := conn.Exec(ctx, "select pg_sleep(1.5) "+mark); err == nil {
		t.Fatal("not cancelled")
	}
	waitFor(t, "database connection closed", func() bool { return px.Stats().DatabaseConnections == 0 })
	waitFor(t, "CancelRequest seen", func() bool { return px.Stats().CancelRequests == 1 })
	var n int
	err := direct(t).QueryRow(t.Context(), "select count(*) from pg_stat_activity where state = 'active' and query like $1 and pid <> pg_backend_pid()", "%"+mark).Scan(&n)
	if err != nil || n != 1 {
		t.Errorf("%d such queries run on, %v", n, err)
	}

	// One that waits for a connection and goes away is taken out of the queue.
	tx, err := pxConnect(t, px).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := pxConnect(t, px).Exec(ctx, "select 1"); err == nil {
		t.Fatal("not cancelled")
	}
	waitFor(t, "borrow aborted", func() bool { return px.Stats().DatabaseConnectionsBorrowRequestsAborted == 1 })
	_ = tx.Rollback(t.Context())
}
