package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

func startCluster(t *testing.T) *Cluster {
	t.Helper()
	c, err := Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// connect is pgx as it is, with the cluster's names and network.
func connect(ctx context.Context, c *Cluster, host string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(c.URL(host) + "?sslmode=verify-full&sslrootcert=" + c.CAFile())
	if err != nil {
		return nil, err
	}
	cfg.LookupFunc, cfg.DialFunc = c.Lookup, c.Dial
	return pgx.ConnectConfig(ctx, cfg)
}

// whoIs asks the server at a host for its identifier, whether it is in recovery, and for the writer.
func whoIs(t *testing.T, c *Cluster, host string) (id string, recovering bool, writer string) {
	t.Helper()
	conn, err := connect(t.Context(), c, host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	err = conn.QueryRow(t.Context(), `select aurora_db_instance_identifier(), pg_is_in_recovery(),
		(select server_id from aurora_replica_status() where session_id = 'MASTER_SESSION_ID')`).Scan(&id, &recovering, &writer)
	if err != nil {
		t.Fatal(err)
	}
	return id, recovering, writer
}

func TestCluster(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	expect := func(host, id string, recovering bool, writer string) {
		t.Helper()
		gotID, gotRecovering, gotWriter := whoIs(t, c, host)
		if gotID != id || gotRecovering != recovering || gotWriter != writer {
			t.Errorf("%s leads to %s (recovering %v, writer %s), want %s (%v, %s)", host, gotID, gotRecovering, gotWriter, id, recovering, writer)
		}
	}
	expect(c.WriterHost(), "orders-1", false, "orders-1")
	expect(c.ReaderHost(), "orders-2", true, "orders-1")
	expect(c.Instances()[1].Host(), "orders-2", true, "orders-1")

	c.SetDNSLag(700 * time.Millisecond)
	if err := c.Writer().Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := connect(t.Context(), c, c.WriterHost()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connect to a killed writer: %v", err)
	}
	if _, err := c.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := connect(t.Context(), c, c.WriterHost()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("the name followed at once: %v", err)
	}
	expect(c.Instances()[1].Host(), "orders-2", false, "orders-2")
	c.SetDNSLag(0)
	if err := c.Return(t.Context()); err != nil {
		t.Fatal(err)
	}
	for { // until the lag is over
		if id, _, _ := whoIs(t, c, c.WriterHost()); id == "orders-2" {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	expect(c.ReaderHost(), "orders-1", true, "orders-2")

	if _, err := c.Switchover(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(c.WriterHost(), "orders-1", false, "orders-1")
	expect(c.ReaderHost(), "orders-2", true, "orders-1")
}

func TestFaults(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	w := c.Writer()
	open := func() *pgx.Conn {
		t.Helper()
		conn, err := connect(t.Context(), c, c.WriterHost())
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	within := func(d time.Duration, do func(ctx context.Context) error) error {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		defer cancel()
		return do(ctx)
	}

	conn := open()
	w.BlackHole()
	err := within(300*time.Millisecond, func(ctx context.Context) error { return conn.Ping(ctx) })
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ping into a black hole: %v", err)
	}
	err = within(300*time.Millisecond, func(ctx context.Context) error { _, err := c.Dial(ctx, "tcp", w.Addr()+":5432"); return err })
	if ne := net.Error(nil); !errors.As(err, &ne) || !ne.Timeout() {
		t.Errorf("dial into a black hole: %v", err)
	}
	w.Heal()

	conn = open()
	w.Reset()
	if err := conn.Ping(t.Context()); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, pgconn.ErrConnClosed) {
		t.Errorf("ping after a reset: %v", err)
	}

	conn = open()
	if err := w.HalfOpen(); errors.Is(err, os.ErrPermission) {
		t.Logf("half-open connections not tested: %v", err)
	} else if err != nil {
		t.Error(err)
	} else if err := within(5*time.Second, func(ctx context.Context) error { return conn.Ping(ctx) }); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ping on a half-open connection: %v", err)
	}

	w.StartingUp(time.Hour)
	wantCode(t, "57P03", func() error { _, err := connect(t.Context(), c, c.WriterHost()); return err })
	w.Heal()

	w.Pause(400*time.Millisecond, 2)
	start := time.Now()
	held := make(chan error, 1)
	go func() {
		conn, err := connect(t.Context(), c, c.WriterHost())
		if err == nil {
			err = conn.Close(t.Context())
		}
		held <- err
	}()
	for w.Logins() == 0 || w.front.how.resume.held.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	wantCode(t, "28000", func() error { _, err := connect(t.Context(), c, c.WriterHost()); return err })
	if err := <-held; err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took < 400*time.Millisecond {
		t.Errorf("held for %s only", took)
	}
	w.Heal()

	conn = open()
	if err := w.Terminate(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "57P01", func() error { return conn.Ping(t.Context()) })

	w.SetLatency(30 * time.Millisecond)
	start = time.Now()
	if err := open().Ping(t.Context()); err != nil || time.Since(start) < 60*time.Millisecond {
		t.Errorf("with latency a ping took %s: %v", time.Since(start), err)
	}
	w.SetLatency(0)

	w.HangUpAbove(1)
	idle, err := c.Dial(t.Context(), "tcp", w.Addr()+":5432") // a login under way
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	for w.front.under.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if _, err := connect(t.Context(), c, c.WriterHost()); err == nil {
		t.Error("one login too many succeeded")
	}

	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(c.CA())
	_ = idle.Close()
	w.Heal()
	raw, err := c.Dial(t.Context(), "tcp", w.Addr()+":5432")
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_, _ = raw.Write([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f})
	_, _ = io.ReadFull(raw, make([]byte, 1))
	if err := tls.Client(raw, &tls.Config{RootCAs: pool, ServerName: "other.example.com", MinVersion: tls.VersionTLS12}).HandshakeContext(t.Context()); err == nil {
		t.Error("the certificate is good for any name")
	}
}

func wantCode(t *testing.T, code string, do func() error) {
	t.Helper()
	var pgErr *pgconn.PgError
	if err := do(); !errors.As(err, &pgErr) || pgErr.Code != code {
		t.Errorf("got %v, want %s", err, code)
	}
}
