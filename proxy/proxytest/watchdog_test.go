package proxytest

import (
	"bytes"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Idle is who has no request under way, from when the previous one was completed: for as long as 30
// minutes.
func TestIdleClients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		answer := encode(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 0")}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
		serve := func(conn net.Conn, w *window) {
			for {
				kind, body, err := readFrame(w)
				if err != nil || kind == 'X' {
					return
				}
				if bytes.Contains(body, []byte("slow")) {
					time.Sleep(45 * time.Minute)
				}
				_, _ = conn.Write(answer)
			}
		}
		l := &memoryListener{conns: make(chan net.Conn), done: make(chan struct{})}
		px := startScripted(t, scripted(serve), WithListener(l), WithMaxConnections(1), WithBorrowTimeout(time.Hour))
		connect := func() *pgconn.PgConn {
			conn, err := pgconn.ConnectConfig(t.Context(), clientConfig(t, px, "app", "x", l.dial))
			if err != nil {
				t.Fatal(err)
			}
			return conn
		}
		connect() // and says no more
		start := time.Now()
		slow, waiting := connect(), connect()
		answered := make(chan error, 2)
		for conn, sql := range map[*pgconn.PgConn]string{slow: "select slow", waiting: "select slow too"} {
			go func() {
				_, err := conn.Exec(t.Context(), sql).ReadAll()
				answered <- err
			}()
		}
		clients := func(after time.Duration, want int64) {
			t.Helper()
			time.Sleep(time.Until(start.Add(after)))
			synctest.Wait()
			if got := px.Stats().ClientConnections; got != want {
				t.Errorf("after %s there are %d clients, want %d", after, got, want)
			}
		}
		clients(29*time.Minute, 3)
		clients(31*time.Minute, 2)
		clients(74*time.Minute, 2) // 29 after the first answer
		clients(76*time.Minute, 1)
		clients(119*time.Minute, 1) // 29 after the second answer
		clients(121*time.Minute, 0)
		for range 2 {
			if err := <-answered; err != nil {
				t.Error(err)
			}
		}
		if err := px.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute) // for pgconn to be done with its broken connections
	})
}
