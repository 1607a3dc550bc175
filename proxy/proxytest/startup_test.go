package proxytest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// dialTLS connects and negotiates TLS as a client does.
func dialTLS(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	return tls.Client(dialSSL(t, p), clientTLS(p))
}

func clientTLS(p *Proxy) *tls.Config {
	return &tls.Config{RootCAs: p.RootCAs(), ServerName: p.Host(), MinVersion: tls.VersionTLS12}
}

// dialSSL connects, and asks for TLS, which the proxy expects next.
func dialSSL(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	conn := dialRaw(t, p)
	if _, err := conn.Write(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, codeSSLRequest)); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 1)
	if _, err := io.ReadFull(conn, answer); err != nil || answer[0] != 'S' {
		t.Fatalf("SSLRequest: %q, %v", answer, err)
	}
	return conn
}

func dialRaw(t *testing.T, p *Proxy) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	return conn
}

func startupPacket(version uint32, pairs ...string) []byte {
	body := binary.BigEndian.AppendUint32(nil, version)
	for _, s := range pairs {
		body = append(append(body, s...), 0)
	}
	body = append(body, 0)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)
}

func TestStartupRefusals(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, "", WithUser("app", "secret"))
	const no = "Feature not supported: RDS Proxy currently doesn’t support "
	tests := []struct {
		name    string
		packet  []byte
		code    string
		message string
	}{
		{"protocol 2", startupPacket(2<<16, "user", "app"), "0A000", "Feature not supported: RDS Proxy supports only version 3.0 of the PostgreSQL messaging protocol."},
		{"protocol 3.2", startupPacket(3<<16|2, "user", "app"), "0A000", "Feature not supported: RDS Proxy supports only version 3.0 of the PostgreSQL messaging protocol."},
		{"replication", startupPacket(codeProtocol3, "user", "app", "replication", "database"), "0A000", no + "streaming replication mode."},
		{"options", startupPacket(codeProtocol3, "user", "app", "foo", "1", "options", "-c a=b"), "0A000", no + "command-line options."},
		{"unknown parameter", startupPacket(codeProtocol3, "user", "app", "statement_timeout", "5s"), "0A000", no + "the option statement_timeout."},
		{"lower case", startupPacket(codeProtocol3, "user", "app", "timezone", "UTC"), "0A000", no + "the option timezone."},
		{"no user", startupPacket(codeProtocol3, "database", "x"), "28000", "A user name is missing from the connection startup packet. Provide a user name for this connection."},
		{"unknown user", startupPacket(codeProtocol3, "user", "who"), "28000", "This RDS proxy has no credentials for the role who. Check the credentials for this role and try again."},
		{"not terminated", startupPacket(codeProtocol3, "user", "app", "database"), "08P01", "invalid startup packet layout"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			conn := dialTLS(t, p)
			if _, err := conn.Write(tt.packet); err != nil {
				t.Fatal(err)
			}
			wantFatal(t, conn, tt.code, tt.message)
		})
	}
	t.Run("plaintext", func(t *testing.T) {
		t.Parallel()
		conn := dialRaw(t, p)
		_, _ = conn.Write(startupPacket(codeProtocol3, "user", "app"))
		wantFatal(t, conn, "28000", "This RDS Proxy requires TLS connections.")
	})
}

func wantFatal(t *testing.T, conn net.Conn, code, message string) {
	t.Helper()
	f := pgproto3.NewFrontend(conn, conn)
	msg, err := f.Receive()
	e, ok := msg.(*pgproto3.ErrorResponse)
	if !ok {
		t.Fatalf("got %T, %v", msg, err)
	}
	if e.Severity != "FATAL" || e.Code != code || !strings.HasPrefix(e.Message, message) {
		t.Errorf("got %s %s %q", e.Severity, e.Code, e.Message)
	}
	if _, err := f.Receive(); !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		t.Errorf("connection is not closed: %v", err)
	}
}

func TestConnectionsThatAreClosed(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, "")
	for name, b := range map[string][]byte{
		"direct TLS": append([]byte{22, 3, 1, 2, 0}, make([]byte, 100)...),
		"oversized":  binary.BigEndian.AppendUint32(nil, maxStartupPacket+1),
		"too short":  {0, 0, 0, 4, 0, 0, 0, 0},
		"garbage":    []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"cancel":     append(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 16}, codeCancelRequest), make([]byte, 8)...),
	} {
		conn := dialRaw(t, p)
		_, _ = conn.Write(append(b, make([]byte, 8)...))
		if got, _ := io.ReadAll(conn); len(got) > 0 {
			t.Errorf("%s: answered %q", name, got)
		}
	}
	conn := dialRaw(t, p)
	_, _ = conn.Write(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, codeGSSENCRequest))
	answer := make([]byte, 1)
	if _, err := io.ReadFull(conn, answer); err != nil || answer[0] != 'N' {
		t.Errorf("GSSENCRequest: %q, %v", answer, err)
	}
	if st := p.Stats(); st.CancelRequests != 1 || st.ClientConnectionsReceived != 0 {
		t.Errorf("%+v", st)
	}
}

// clientConfig is pgconn's way to the proxy over any kind of network.
func clientConfig(t *testing.T, p *Proxy, user, password string, dial pgconn.DialFunc) *pgconn.Config {
	t.Helper()
	cfg, err := pgconn.ParseConfig("sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Host, cfg.Port, cfg.User, cfg.Password, cfg.Database = p.Host(), p.Port(), user, password, "orders"
	cfg.Fallbacks, cfg.RuntimeParams = nil, map[string]string{"application_name": "test"}
	cfg.TLSConfig = &tls.Config{RootCAs: p.RootCAs(), ServerName: p.Host(), MinVersion: tls.VersionTLS12}
	cfg.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
	if dial != nil {
		cfg.DialFunc = dial
	}
	return cfg
}

func TestSignInWithoutDatabase(t *testing.T) {
	t.Parallel()
	p := NewProxy(t, "", WithUser("scram", "pa,ss=word"), WithIAMUser("iam"))
	endpoint := net.JoinHostPort(p.Host(), strings.TrimPrefix(p.Addr(), "127.0.0.1:"))
	for user, password := range map[string]string{
		"scram": "pa,ss=word", "iam": sign(t, endpoint, p.Region(), "iam", p.Credentials()),
	} {
		conn, err := pgconn.ConnectConfig(t.Context(), clientConfig(t, p, user, password, nil))
		if err != nil {
			t.Fatalf("%s: %v", user, err)
		}
		if conn.PID() != 0 || conn.ParameterStatus("application_name") != "test" || conn.ParameterStatus("standard_conforming_strings") != "on" {
			t.Errorf("%s: pid %d, application_name %q", user, conn.PID(), conn.ParameterStatus("application_name"))
		}
		_ = conn.Close(t.Context())
	}
	for user, want := range map[string]string{
		"scram": "The password that was provided for the role scram is wrong.",
		"iam":   "The IAM authentication failed for the role iam. Check the IAM token for this role and try again.",
	} {
		_, err := pgconn.ConnectConfig(t.Context(), clientConfig(t, p, user, "wrong", nil))
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || pgErr.Code != "28P01" || pgErr.Message != want || pgErr.Severity != "FATAL" {
			t.Errorf("%s with a wrong password: %v", user, err)
		}
	}
	p.SetUser("scram", "rotated")
	conn, err := pgconn.ConnectConfig(t.Context(), clientConfig(t, p, "scram", "rotated", nil))
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(t.Context())
	if st := p.Stats(); st.ClientConnectionsSetupSucceeded != 3 || st.ClientConnectionsSetupFailedAuth != 2 || st.Statements != 0 {
		t.Errorf("%+v", st)
	}
}

// TestVirtualTime lets two minutes of waiting pass in no time.
func TestVirtualTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := &memoryListener{conns: make(chan net.Conn), done: make(chan struct{})}
		p := NewProxy(t, "", WithListener(l), WithUser("app", "secret"))
		if strings.Contains(p.URL("app", "x"), "hostaddr") || p.Port() != 5432 {
			t.Errorf("URL %s, port %d", p.URL("app", "x"), p.Port())
		}
		conn, err := pgconn.ConnectConfig(t.Context(), clientConfig(t, p, "app", "secret", l.dial))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		_, err = conn.Exec(t.Context(), "select 1").ReadAll()
		var pgErr *pgconn.PgError
		if !errors.As(err, &pgErr) || pgErr.Code != "08000" || pgErr.Message != borrowTimeoutText {
			t.Errorf("got %v", err)
		}
		if waited := time.Since(start); waited < 120*time.Second || waited > 121*time.Second {
			t.Errorf("waited %s", waited)
		}

		idle, err := pgconn.ConnectConfig(t.Context(), clientConfig(t, p, "app", "secret", l.dial))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(1801 * time.Second)
		synctest.Wait()
		if err := idle.Ping(t.Context()); err == nil || p.Stats().ClientConnections != 0 {
			t.Errorf("idle client is still there: %v", err)
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute) // for pgconn to be done with its broken connections
	})
}

// memoryListener accepts what its dial is called for.
type memoryListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *memoryListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error {
	close(l.done)
	return nil
}

func (l *memoryListener) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "unix"} }

func TestCloseEndsEverything(t *testing.T) {
	p, err := Start(context.Background(), "", WithUser("app", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgconn.ConnectConfig(t.Context(), clientConfig(t, p, "app", "secret", nil))
	if err != nil {
		t.Fatal(err)
	}
	waiting := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "select 1").ReadAll()
		waiting <- err
	}()
	half := dialRaw(t, p)
	_, _ = half.Write([]byte{0, 0})
	for p.Stats().DatabaseConnectionsBorrowRequests == 0 {
		time.Sleep(time.Millisecond)
	}
	if err := errors.Join(p.Close(), p.Close()); err != nil {
		t.Error(err)
	}
	if <-waiting == nil {
		t.Error("a statement succeeded without a database")
	}
	if _, err := tls.LoadX509KeyPair(p.CAFile(), p.CAFile()); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("CA file is still there: %v", err)
	}
	stacks := make([]byte, 1<<20)
	for range 100 {
		stacks = stacks[:runtime.Stack(stacks[:cap(stacks)], true)]
		if !bytes.Contains(stacks, []byte("proxytest.(*clientSession).run")) && !bytes.Contains(stacks, []byte("proxytest.(*dbConn).run")) {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("goroutines are left:\n%s", stacks)
}

// FuzzClient feeds a signed-in session with garbage: it must end, and not take the proxy with it.
func FuzzClient(f *testing.F) {
	f.Add([]byte("Q\x00\x00\x00\x0dselect 1\x00"))
	f.Add([]byte("P\x00\x00\x00\x08\x00\x00\x00\x00B\x00\x00\x00\x04"))
	f.Add([]byte{'B', 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte("S\x00\x00\x00\x04H\x00\x00\x00\x04d\x00\x00\x00\x04c\x00\x00\x00\x04X\x00\x00\x00\x04"))
	p, err := Start(context.Background(), "", WithUser("app", "secret"), WithoutTLSRequired(), WithBorrowTimeout(0), WithBorrowTimeoutReply(BorrowTimeoutError))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = p.Close() })
	f.Fuzz(func(t *testing.T, b []byte) {
		cfg := clientConfig(t, p, "app", "secret", nil)
		cfg.TLSConfig = nil
		conn, err := pgconn.ConnectConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		hijacked, err := conn.Hijack()
		if err != nil {
			t.Fatal(err)
		}
		defer hijacked.Conn.Close()
		_ = hijacked.Conn.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = hijacked.Conn.Write(b)
		_ = hijacked.Conn.(*net.TCPConn).CloseWrite()
		if _, err := io.Copy(io.Discard, hijacked.Conn); err != nil && errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("session does not end: %v", err)
		}
	})
}
