package proxytest

// How the proxy ends client connections, against databases that are written for it.

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// scripted dials a database that lets anybody in, and goes on with serve.
func scripted(serve func(conn net.Conn, w *window)) pgconn.DialFunc {
	return func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() {
			defer ours.Close()
			if fakeLogin(ours) {
				w := newWindow(ours, 1<<16)
				serve(ours, &w)
				_, _ = io.Copy(io.Discard, ours)
			}
		}()
		return theirs, nil
	}
}

// startScripted starts a proxy in front of such a database, for the user app with the password x.
func startScripted(t *testing.T, dial pgconn.DialFunc, opts ...Option) *Proxy {
	t.Helper()
	return NewProxy(t, "postgres://app:x@127.0.0.1/db?sslmode=disable", append([]Option{
		WithUser("app", "x"), WithClientAuth(AuthMD5), WithoutTLSRequired(), WithBackendDialFunc(dial),
	}, opts...)...)
}

// A client that has the first half of a message gets nothing of the proxy's own behind it.
func TestNoLastWordInMidMessage(t *testing.T) {
	t.Parallel()
	row := encode(&pgproto3.DataRow{Values: [][]byte{bytes.Repeat([]byte("row "), 1000)}})
	notification := encode(&pgproto3.NotificationResponse{Channel: "c", Payload: "some payload"})
	listening := encode(&pgproto3.CommandComplete{CommandTag: []byte("LISTEN")}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
	for _, c := range []struct {
		name, ask string
		answer    []byte
		end       func(*Proxy)
		then      []byte // what the client sends
	}{
		{"failover", "Q select 1", row[:len(row)/2], (*Proxy).StartFailover, nil},
		{"no user", "Q select 1", row[:len(row)/2], func(px *Proxy) { px.endSessionsOf("app") }, nil},
		{"refusal", "Q select 1", row[:len(row)/2], func(*Proxy) {}, []byte("nonsense")},
		{"pinned, with the next request", "Q listen c", append(listening, notification[:9]...), (*Proxy).StartFailover, pipeline("Q select 1")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			px := startScripted(t, scripted(func(conn net.Conn, w *window) {
				if _, _, err := readFrame(w); err == nil {
					_, _ = conn.Write(c.answer)
				}
			}))
			client := dialPipeline(t, px).conn
			if _, err := client.Write(pipeline(c.ask)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(client, make([]byte, len(c.answer))); err != nil {
				t.Fatal(err)
			}
			c.end(px)
			if _, err := client.Write(c.then); err != nil {
				t.Fatal(err)
			}
			if rest, err := io.ReadAll(client); err != nil || len(rest) > 0 {
				t.Errorf("%q, %v in the middle of a message", rest, err)
			}
		})
	}
}

// What a database says behind the end of a transaction is for one client as a whole: the next one.
func TestHalfAMessageIsNotSplitBetweenClients(t *testing.T) {
	t.Parallel()
	notice := encode(&pgproto3.NoticeResponse{Message: "that is all"})
	done := encode(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 0")}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
	px := startScripted(t, scripted(func(conn net.Conn, w *window) {
		_, _, _ = readFrame(w)
		_, _ = conn.Write(append(bytes.Clone(done), notice[:9]...))
		_, _, _ = readFrame(w)
		_, _ = conn.Write(append(bytes.Clone(notice[9:]), done...))
	}), WithMaxConnections(1))
	for _, want := range [][]byte{done, append(notice, done...)} {
		client := dialPipeline(t, px).conn
		if _, err := client.Write(pipeline("Q select 1")); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if n, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v, got %q, want %q", err, got[:n], want)
		}
	}
}

// A session whose database connection is lost in a transaction runs nothing of what is left of it on
// another connection, and answers nothing of it.
func TestNothingRunsAfterTheLoss(t *testing.T) {
	t.Parallel()
	for _, rest := range []string{"Q insert", "S"} {
		t.Run(rest, func(t *testing.T) {
			t.Parallel()
			lost, goOn := make(chan struct{}, 2), make(chan struct{})
			log := logHook(func(message string) { // holds the loss up before the client is told
				if strings.HasSuffix(message, "was lost.") {
					lost <- struct{}{}
					<-goOn
				}
			})
			begun := encode(&pgproto3.CommandComplete{CommandTag: []byte("BEGIN")}, &pgproto3.ReadyForQuery{TxStatus: 'T'})
			px := startScripted(t, scripted(func(conn net.Conn, w *window) {
				if _, _, err := readFrame(w); err == nil {
					_, _ = conn.Write(begun)
					_ = conn.Close()
				}
			}), WithLogger(slog.New(log)))
			client := dialPipeline(t, px).conn
			if _, err := client.Write(pipeline("Q begin")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(client, make([]byte, len(begun))); err != nil {
				t.Fatal(err)
			}
			<-lost
			if _, err := client.Write(pipeline(rest)); err != nil {
				t.Error(err)
			}
			if answer, err := io.ReadAll(client); err != nil || len(answer) > 0 {
				t.Errorf("%q, %v", answer, err)
			}
			if st := px.Stats(); st.DatabaseConnectionsBorrowRequests != 1 {
				t.Errorf("%d borrowed, want 1", st.DatabaseConnectionsBorrowRequests)
			}
			close(goOn)
		})
	}
}

// A switchover ends clients at any moment, also while they go over to TLS. The race detector looks on.
func TestHangUpInTheHandshake(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	px := NewProxy(t, "", WithUser("app", "x"), WithListener(loneListener{l}))
	conn := &lastFlightConn{Conn: dialSSL(t, px), before: func() {
		px.mu.Lock()
		defer px.mu.Unlock()
		for s := range px.sessions {
			go s.hangUp(nil) // who waited for it would order the two
		}
	}}
	if err := tls.Client(conn, clientTLS(px)).Handshake(); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	for deadline := time.Now().Add(5 * time.Second); px.Stats().ClientConnections > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the session goes on")
		}
	}
}

// loneListener accepts connections on which a hang-up does nothing: each call would be one more thing
// that orders it and the handshake.
type loneListener struct{ net.Listener }

func (l loneListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return loneConn{conn}, err
}

type loneConn struct{ net.Conn }

func (loneConn) CloseWrite() error                { return nil }
func (loneConn) SetReadDeadline(time.Time) error  { return nil }
func (loneConn) SetWriteDeadline(time.Time) error { return nil }

// lastFlightConn calls a function before the client's last part of a TLS handshake is sent.
type lastFlightConn struct {
	net.Conn

	writes int
	before func()
}

func (c *lastFlightConn) Write(b []byte) (int, error) {
	if c.writes++; c.writes == 2 {
		c.before()
	}
	return c.Conn.Write(b)
}

// logHook is called with each line of a log, and keeps none.
type logHook func(message string)

func (h logHook) Enabled(context.Context, slog.Level) bool { return true }
func (h logHook) Handle(_ context.Context, r slog.Record) error {
	h(r.Message)
	return nil
}
func (h logHook) WithAttrs([]slog.Attr) slog.Handler { return h }
func (h logHook) WithGroup(string) slog.Handler      { return h }
