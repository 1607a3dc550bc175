package proxytest

// The exact ways to a statement's caller: a pgx tracer and a dialer, both of which run on the caller's
// goroutine before the statement is sent.

import (
	"context"
	"errors"
	"net"
	"runtime"
	"slices"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
)

// Trace makes connections of cfg tell the proxy which file and line each statement comes from, for
// [Pin] and [RequireNoPins]. A tracer that is set stays, and is called first. Call it before the pool
// is opened:
//
//	cfg, err := pgxpool.ParseConfig(px.URL("app", "orders"))
//	px.Trace(cfg.ConnConfig)
//	err = proxy.Configure(cfg)
//
// The same goes for a configuration given to stdlib.OpenDB. Where there is no pgx configuration at
// hand, [Proxy.DialContext] does the same one layer down. Without either the proxy looks for the
// caller among the goroutines of its process, which finds it if nothing else runs a query at the time.
func (p *Proxy) Trace(cfg *pgx.ConnConfig) {
	if cfg.Tracer == nil {
		cfg.Tracer = &callTracer{&p.calls}
		return
	}
	cfg.Tracer = multitracer.New(cfg.Tracer, &callTracer{&p.calls})
}

// DialContext connects to the proxy, whatever the address. Its connections tell the proxy which file and
// line each statement comes from, as those of [Proxy.Trace] do, and as exactly, but for statements sent
// ahead of others' answers:
//
//	pool, err := proxy.NewPool(ctx, px.URL("app", "orders"), proxy.WithDialer(px.DialContext))
//
// It works with any driver that takes a function to dial with and writes on its caller's goroutine, such
// as pgx (ConnConfig.DialFunc) and lib/pq (pq.Dialer). The proxy must listen on TCP.
func (p *Proxy) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	addr, ok := p.listener.Addr().(*net.TCPAddr)
	if !ok {
		return nil, errors.New("dial RDS Proxy: its listener is not a TCP one; dial the listener instead")
	}
	target := *addr
	if target.IP.IsUnspecified() {
		target.IP = net.IPv4(127, 0, 0, 1)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", target.String())
	if err != nil {
		return nil, err
	}
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn, nil
	}
	return &watchedConn{TCPConn: tcp, calls: &p.calls, addr: conn.LocalAddr().String()}, nil
}

// watchedConn notes who writes.
type watchedConn struct {
	*net.TCPConn

	calls *callLog
	addr  string
}

func (c *watchedConn) Write(b []byte) (int, error) {
	c.calls.wrote(c.addr)
	return c.TCPConn.Write(b)
}

// callTracer notes callers for as long as their connections live.
type callTracer struct{ calls *callLog }

var (
	_ pgx.QueryTracer    = (*callTracer)(nil)
	_ pgx.BatchTracer    = (*callTracer)(nil)
	_ pgx.CopyFromTracer = (*callTracer)(nil)
	_ pgx.PrepareTracer  = (*callTracer)(nil)
)

func (t *callTracer) TraceQueryStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	t.calls.begin(conn, data.SQL)
	return ctx
}

func (t *callTracer) TraceQueryEnd(_ context.Context, conn *pgx.Conn, _ pgx.TraceQueryEndData) {
	t.calls.end(conn)
}

func (t *callTracer) TraceBatchStart(ctx context.Context, conn *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	statements := make([]string, len(data.Batch.QueuedQueries))
	for i, q := range data.Batch.QueuedQueries {
		statements[i] = q.SQL
	}
	t.calls.begin(conn, statements...)
	return ctx
}

func (t *callTracer) TraceBatchQuery(context.Context, *pgx.Conn, pgx.TraceBatchQueryData) {}

func (t *callTracer) TraceBatchEnd(_ context.Context, conn *pgx.Conn, _ pgx.TraceBatchEndData) {
	t.calls.end(conn)
}

func (t *callTracer) TraceCopyFromStart(ctx context.Context, conn *pgx.Conn, _ pgx.TraceCopyFromStartData) context.Context {
	t.calls.begin(conn)
	return ctx
}

func (t *callTracer) TraceCopyFromEnd(_ context.Context, conn *pgx.Conn, _ pgx.TraceCopyFromEndData) {
	t.calls.end(conn)
}

// A Prepare within a Query, for pgx's statement cache, is traced within it and has the same caller.
func (t *callTracer) TracePrepareStart(ctx context.Context, conn *pgx.Conn, data pgx.TracePrepareStartData) context.Context {
	t.calls.nest(conn, data.SQL)
	return ctx
}

func (t *callTracer) TracePrepareEnd(_ context.Context, conn *pgx.Conn, _ pgx.TracePrepareEndData) {
	t.calls.unnest(conn)
}

// callLog knows the latest calls on each connection, by the client's address, which is all that
// the two ends of a connection have in common.
type callLog struct {
	mu    sync.Mutex
	conns map[string]*connCalls
}

const (
	callsKept = 8  // for a statement that is cancelled before the proxy has read it
	callDepth = 64 // frames: an ORM over database/sql takes some
)

// connCalls is the latest calls on a connection, in a ring.
type connCalls struct {
	calls   [callsKept]call
	latest  int
	running int       // calls that have not ended: a Prepare may be within a Query
	writer  []uintptr // who wrote last
}

type call struct {
	statements []string
	pcs        []uintptr
}

func (l *callLog) begin(conn *pgx.Conn, statements ...string) {
	var pcs [callDepth]uintptr
	n := runtime.Callers(3, pcs[:]) // without Callers, begin and the tracer
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.conn(conn)
	c.latest = (c.latest + 1) % callsKept
	c.calls[c.latest] = call{statements: statements, pcs: slices.Clone(pcs[:n])}
	c.running = 1
}

// wrote notes the caller of a Write.
func (l *callLog) wrote(addr string) {
	var pcs [callDepth]uintptr
	n := runtime.Callers(3, pcs[:])
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at(addr).writer = slices.Clone(pcs[:n])
}

func (l *callLog) end(conn *pgx.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn(conn).running = 0
}

// nest is begin for a call that may be part of one.
func (l *callLog) nest(conn *pgx.Conn, statement string) {
	l.mu.Lock()
	c := l.conn(conn)
	if c.running > 0 {
		c.running++
		l.mu.Unlock()
		return
	}
	l.mu.Unlock()
	l.begin(conn, statement)
}

func (l *callLog) unnest(conn *pgx.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.conn(conn); c.running > 0 {
		c.running--
	}
}

// conn is the calls of a connection. mu is held.
func (l *callLog) conn(conn *pgx.Conn) *connCalls {
	addr := ""
	if nc := conn.PgConn().Conn(); nc != nil {
		addr = nc.LocalAddr().String()
	}
	return l.at(addr)
}

func (l *callLog) at(addr string) *connCalls {
	c := l.conns[addr]
	if c == nil {
		if l.conns == nil {
			l.conns = map[string]*connCalls{}
		}
		c = &connCalls{}
		l.conns[addr] = c
	}
	return c
}

// find is who sent the statement: the call that runs, whatever its text, since a prepared statement is
// called by its name and the simple protocol has arguments in the text; or else the latest call with
// that text, or who wrote last.
func (l *callLog) find(addr, statement string) []uintptr {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.conns[addr]
	if c == nil {
		return nil
	}
	if c.running > 0 {
		return c.calls[c.latest].pcs
	}
	for i := range callsKept {
		if call := c.calls[(c.latest-i+callsKept)%callsKept]; slices.Contains(call.statements, statement) {
			return call.pcs
		}
	}
	return c.writer
}

// forget drops what is known of a connection that has ended.
func (l *callLog) forget(addr string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, addr)
}
