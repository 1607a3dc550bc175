package integration

// What the tests of hostile clients share: the proxy, the client that must not be harmed, raw
// connections, and what has to be true in the end.

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"go.uber.org/goleak"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

// hostileMemory is how much more the process may hold while a client does its worst: twice the
// statement text that is kept for a session, so that all other buffers have to be small.
const hostileMemory = 32 << 20

type hostile struct {
	px      *proxytest.Proxy
	witness *witness
	before  uint64
}

func newHostile(t *testing.T, opts ...proxytest.Option) *hostile {
	t.Helper()
	ignore := goleak.IgnoreCurrent()
	h := &hostile{}
	db, err := pgconn.ParseConfig(backend(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { goleak.VerifyNone(t, ignore) }) // after the proxy's own
	opts = append([]proxytest.Option{
		proxytest.WithMaxConnections(4), proxytest.WithoutTLSRequired(), proxytest.WithUser(db.User, db.Password),
		proxytest.WithLogger(slog.New(slog.DiscardHandler)),
	}, opts...)
	h.px = proxytest.NewProxy(t, backend(t), opts...)
	h.witness = startWitness(t, h.config(t))
	t.Cleanup(h.witness.stop)
	h.witness.more(t, 20)
	h.mark()
	return h
}

// config is how pgx reaches the proxy, in TLS and with SCRAM.
func (h *hostile) config(t *testing.T) *pgx.ConnConfig {
	t.Helper()
	db, err := pgconn.ParseConfig(backend(t))
	if err != nil {
		t.Fatal(err)
	}
	cfg := proxyConfig(t, h.px).ConnConfig
	cfg.Password = db.Password
	return cfg
}

// mark is where memoryBounded counts from.
func (h *hostile) mark() { h.before = heldMemory() }

// memoryBounded looks at what the process holds now.
func (h *hostile) memoryBounded(t *testing.T) {
	t.Helper()
	more := int64(heldMemory()) - int64(h.before)
	t.Logf("%.1f MiB more than before", float64(more)/(1<<20))
	if more > hostileMemory {
		t.Errorf("%d MiB more than before: something is kept", more>>20)
	}
}

func heldMemory() uint64 {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// settled waits until only the witness is left.
func (h *hostile) settled(t *testing.T) {
	t.Helper()
	h.witness.more(t, 20)
	h.witness.pause()
	defer h.witness.resume()
	waitFor(t, "only the witness to be left", func() bool {
		st := h.px.Stats()
		return st.ClientConnections == 1 && st.DatabaseConnectionsCurrentlyBorrowed == 0 && st.DatabaseConnections <= 4
	})
}

// running counts the sessions whose last statement carries the mark.
func (h *hostile) running(t *testing.T, mark string) (n int) {
	t.Helper()
	err := h.witness.side.QueryRow(t.Context(), "select count(*) from pg_stat_activity where query like $1 and pid <> pg_backend_pid()", "%"+mark+"%").Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// waitsFor is what the session waits for whose last statement carries the mark.
func (h *hostile) waitsFor(t *testing.T, mark string) (event string) {
	t.Helper()
	err := h.witness.side.QueryRow(t.Context(), "select coalesce(max(wait_event), '') from pg_stat_activity where query like $1 and pid <> pg_backend_pid()", "%"+mark+"%").Scan(&event)
	if err != nil {
		t.Fatal(err)
	}
	return event
}

// witness is a client that asks something all the time, and minds when it is not served.
type witness struct {
	side   *pgx.Conn // past the proxy
	served atomic.Int64
	turn   sync.Mutex
	cancel context.CancelFunc
	done   chan struct{}
}

func startWitness(t *testing.T, cfg *pgx.ConnConfig) *witness {
	t.Helper()
	side, err := pgx.Connect(t.Context(), backend(t))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	w := &witness{side: side, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(w.done)
		defer conn.Close(context.WithoutCancel(ctx))
		for n := 0; ctx.Err() == nil; n++ {
			w.turn.Lock()
			var got int
			err := conn.QueryRow(context.WithoutCancel(ctx), "select $1::int", n).Scan(&got)
			w.turn.Unlock()
			if err != nil || got != n {
				t.Errorf("the witness asked for %d and got %d, %v", n, got, err)
				return
			}
			w.served.Add(1)
		}
	}()
	return w
}

// more waits until the witness has been served n times more.
func (w *witness) more(t *testing.T, n int64) {
	t.Helper()
	until := w.served.Load() + n
	waitFor(t, "the witness to be served", func() bool { return w.served.Load() >= until })
}

func (w *witness) pause()  { w.turn.Lock() }
func (w *witness) resume() { w.turn.Unlock() }

func (w *witness) stop() {
	w.cancel()
	<-w.done
	_ = w.side.Close(context.Background())
}

// hostileClient is a connection with no manners.
type hostileClient struct {
	net.Conn

	Frontend *pgproto3.Frontend
	raw      *net.TCPConn
}

// client has signed in, in TLS.
func (h *hostile) client(t *testing.T) *hostileClient { return h.signedIn(t, h.config(t)) }

// plain has signed in without TLS.
func (h *hostile) plain(t *testing.T) *hostileClient {
	t.Helper()
	cfg := h.config(t)
	cfg.TLSConfig = nil
	return h.signedIn(t, cfg)
}

func (h *hostile) signedIn(t *testing.T, cfg *pgx.ConnConfig) *hostileClient {
	t.Helper()
	var raw *net.TCPConn
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		raw, _ = conn.(*net.TCPConn)
		return conn, err
	}
	conn, err := pgconn.ConnectConfig(t.Context(), &cfg.Config)
	if err != nil {
		t.Fatal(err)
	}
	hijacked, err := conn.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	return &hostileClient{Conn: hijacked.Conn, Frontend: hijacked.Frontend, raw: raw}
}

// dial only connects.
func (h *hostile) dial(t *testing.T) *hostileClient {
	t.Helper()
	conn, err := net.Dial("tcp", h.px.Addr())
	if err != nil {
		t.Fatal(err)
	}
	raw, ok := conn.(*net.TCPConn)
	if !ok {
		t.Fatal(errors.New("not TCP"))
	}
	t.Cleanup(func() { _ = raw.Close() })
	return &hostileClient{Conn: conn, Frontend: pgproto3.NewFrontend(conn, conn), raw: raw}
}

func (c *hostileClient) send(t *testing.T, b []byte) {
	t.Helper()
	_ = c.SetWriteDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	_ = c.SetWriteDeadline(time.Time{})
}

// reset closes the connection with a RST, as the kernel does for a process that was killed with
// answers unread.
func (c *hostileClient) reset() {
	_ = c.raw.SetLinger(0)
	_ = c.raw.Close()
}

// frameOf appends a message.
func frameOf(b []byte, kind byte, body string) []byte {
	b = binary.BigEndian.AppendUint32(append(b, kind), uint32(len(body)+4))
	return append(b, body...)
}
