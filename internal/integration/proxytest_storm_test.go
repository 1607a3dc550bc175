package integration

// Ten thousand connects per second, or as many as the machine makes.

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

const stormRate = 10_000 // connects per second that are asked for

// TestHostileConnects storms the proxy for a second in each of several ways, or for the time in
// AURORAPGX_STORM (10s). The log has the rates that were reached.
func TestHostileConnects(t *testing.T) {
	length := time.Second
	if v := os.Getenv("AURORAPGX_STORM"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatalf("AURORAPGX_STORM: %v", err)
		}
		length = d
	}
	for _, storm := range []struct {
		name    string
		opts    []proxytest.Option
		connect func(*testing.T, *hostile, net.Conn) error
	}{
		{"connect", nil, func(*testing.T, *hostile, net.Conn) error { return nil }},
		{"startup refused", nil, refusedStartup},
		{"startup refused for the rate", []proxytest.Option{proxytest.WithClientConnectionRate(100)}, tooFast},
		{"sign in and ask", nil, signInAndAsk},
		{"TLS", nil, handshake},
	} {
		t.Run(storm.name, func(t *testing.T) {
			h := newHostile(t, storm.opts...)
			var made, failed, most atomic.Int64
			start := time.Now()
			rush(t, length, func() {
				conn, err := net.Dial("tcp", h.px.Addr())
				if err == nil {
					err = errors.Join(storm.connect(t, h, conn), abort(conn))
				}
				if err != nil {
					if failed.Add(1) <= 3 {
						t.Logf("failed: %v", err)
					}
					return
				}
				if made.Add(1)%100 == 0 {
					most.Store(max(most.Load(), h.px.Stats().ClientConnections))
				}
			})
			took := time.Since(start).Seconds()
			t.Logf("%.0f per second, of %d asked for; %d failed; at most %d connections at a time; the witness was served %d times",
				float64(made.Load())/took, stormRate, failed.Load(), most.Load(), h.witness.served.Load())
			if made.Load() == 0 || failed.Load() > made.Load()/100 {
				t.Errorf("%d connects, and %d that failed", made.Load(), failed.Load())
			}
			h.settled(t)
			h.memoryBounded(t)
		})
	}
}

// rush calls f at stormRate, from as many goroutines as that takes, up to 64.
func rush(t *testing.T, length time.Duration, f func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	due := make(chan struct{}, stormRate/100)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range due {
				f()
			}
		})
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		<-tick.C
		for range stormRate / 100 {
			select {
			case due <- struct{}{}:
			case <-ctx.Done():
			}
		}
	}
	close(due)
	wg.Wait()
}

// abort closes with a RST: a connection that is closed in the polite way keeps its port for a minute,
// and there are not enough of them.
func abort(conn net.Conn) error {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	return conn.Close()
}

func startup(params ...string) []byte {
	body := binary.BigEndian.AppendUint32(nil, 3<<16)
	for _, p := range params {
		body = append(append(body, p...), 0)
	}
	body = append(body, 0)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)
}

func refusedStartup(_ *testing.T, _ *hostile, conn net.Conn) error {
	return refusedWith(conn, "0A000", startup("user", "x", "options", "-c a=b"))
}

func tooFast(_ *testing.T, _ *hostile, conn net.Conn) error {
	return refusedWith(conn, "", startup("user", "nobody"))
}

func refusedWith(conn net.Conn, code string, packet []byte) error {
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Write(packet); err != nil {
		return err
	}
	msg, err := pgproto3.NewFrontend(conn, conn).Receive()
	if err != nil {
		return err
	}
	if e, ok := msg.(*pgproto3.ErrorResponse); !ok || code != "" && e.Code != code {
		return errors.New("not refused with " + code)
	}
	return nil
}

func signInAndAsk(t *testing.T, h *hostile, conn net.Conn) error {
	cfg := h.config(t)
	cfg.TLSConfig = nil
	cfg.DialFunc = func(context.Context, string, string) (net.Conn, error) { return conn, nil }
	pg, err := pgconn.ConnectConfig(context.WithoutCancel(t.Context()), &cfg.Config)
	if err != nil {
		return err
	}
	_, err = pg.Exec(context.WithoutCancel(t.Context()), "select 1").ReadAll()
	return err
}

func handshake(_ *testing.T, h *hostile, conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Write(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, 1234<<16|5679)); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		return err
	}
	return tls.Client(conn, clientTLS(h.px)).Handshake()
}
