package integration

// What the verdict matrix lets go wrong, and where.

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

// group is what a client sends before it waits for an answer: a Query, a CopyDone, or
// extended messages up to Sync.
type group struct {
	kinds string // the messages' types
	bytes []byte
}

// executes tells the group that makes the server run an extended statement, or a simple
// one with id in it.
func executes(id string) func(group) bool {
	return func(g group) bool {
		return strings.Contains(g.kinds, "E") || g.kinds == "Q" && bytes.Contains(g.bytes, []byte(id))
	}
}

// query tells a simple query by its beginning.
func query(sql string) func(group) bool {
	return func(g group) bool { return g.kinds == "Q" && bytes.HasPrefix(g.bytes[5:], []byte(sql)) }
}

func copyDone(g group) bool { return g.kinds == "c" }

// prepares tells the round trip that pgx learns parameter types in.
func prepares(g group) bool { return strings.Contains(g.kinds, "P") && !strings.Contains(g.kinds, "E") }

// place says when a connection is cut in relation to a group.
type place int

const (
	nowhere   place = iota
	before          // the server gets nothing of it
	halfway         // the server gets all but the last byte
	unheard         // the server answers, and the client gets nothing of that
	afterward       // the client has the whole answer
	received        // the server gets it, and nobody waits for the answer
)

// ambush cuts one connection, once.
type ambush struct {
	at    func(group) bool
	place place
}

// target is the group of messages at which the cell's connection is cut.
func (c *cell) target() func(group) bool {
	switch {
	case c.fault.prepare:
		return prepares
	case c.op.from == nil:
		return executes(c.id)
	case c.fault.place == before:
		return c.op.from
	default:
		return c.op.to
	}
}

// frameRelay is a [cuttingRelay] that knows the protocol: text in a packet does not tell
// a Parse from an Execute, and the matrix is about that difference.
type frameRelay struct {
	listener net.Listener
	backend  atomic.Pointer[string]
	armed    atomic.Pointer[ambush]
	chance   atomic.Pointer[func(group) place] // called for each group, if set; from several goroutines
	severed  atomic.Bool                       // no CancelRequest gets through either
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]bool
}

func newFrameRelay(tb testing.TB, dsn string) (r *frameRelay, through string) {
	tb.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		tb.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r = &frameRelay{listener: l, conns: map[net.Conn]bool{}}
	backend := u.Host
	r.backend.Store(&backend)
	r.wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { r.serve(client) })
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		r.hangUp()
		r.wg.Wait()
	})
	u.Host = l.Addr().String()
	return r, u.String()
}

// hangUp cuts all connections.
func (r *frameRelay) hangUp() {
	r.severed.Store(true)
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.conns {
		_ = conn.Close()
	}
}

func (r *frameRelay) keep(conn net.Conn) (forget func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.conns[conn] = true
	return func() {
		_ = conn.Close()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.conns, conn)
	}
}

func (r *frameRelay) serve(client net.Conn) {
	defer r.keep(client)()
	server, err := net.Dial("tcp", *r.backend.Load())
	if err != nil {
		return
	}
	defer r.keep(server)()
	var sprung atomic.Int32 // the place of the ambush this connection has run into
	r.wg.Go(func() {
		defer client.Close()
		answers(client, server, &sprung)
	})
	in := bufio.NewReader(client)
	g, err := readGroup(in, true)
	if err == nil && r.severed.Load() && bytes.HasPrefix(g.bytes[4:], cancelRequest) {
		return
	}
	for ; err == nil && place(sprung.Load()) == nowhere; g, err = readGroup(in, false) {
		switch at := r.cutAt(g); at {
		case nowhere:
		case before:
			return
		case halfway:
			_, _ = server.Write(g.bytes[:len(g.bytes)-1])
			return
		case received:
			_, _ = server.Write(g.bytes)
			return
		default:
			sprung.Store(int32(at))
		}
		if _, err := server.Write(g.bytes); err != nil {
			return
		}
	}
}

// cutAt says whether, and where, the connection is cut.
func (r *frameRelay) cutAt(g group) place {
	if a := r.armed.Load(); a != nil && a.at(g) && r.armed.CompareAndSwap(a, nil) {
		return a.place
	}
	if chance := r.chance.Load(); chance != nil {
		return (*chance)(g)
	}
	return nowhere
}

// cancelRequest is the code in place of a protocol version.
var cancelRequest = []byte{0x04, 0xd2, 0x16, 0x2e}

// answers passes the server's bytes on until the connection is to be cut. What the
// server says before ReadyForQuery is no proof that it has finished: COPY answers twice.
func answers(client, server net.Conn, sprung *atomic.Int32) {
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		at := place(sprung.Load())
		if at != unheard {
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
		const readyLen = 6
		if at != nowhere && n >= readyLen && bytes.HasPrefix(buf[n-readyLen:n], []byte{'Z', 0, 0, 0, 5}) {
			return
		}
	}
}

// readGroup reads one group; the first message of a connection has no type.
func readGroup(in *bufio.Reader, first bool) (group, error) {
	var g group
	for {
		header := make([]byte, 5)
		if first {
			header = header[1:]
		}
		if _, err := io.ReadFull(in, header); err != nil {
			return g, err
		}
		body := make([]byte, binary.BigEndian.Uint32(header[len(header)-4:])-4)
		if _, err := io.ReadFull(in, body); err != nil {
			return g, err
		}
		g.bytes = append(append(g.bytes, header...), body...)
		if first {
			return g, nil
		}
		g.kinds += string(header[:1])
		if !strings.Contains("PBDEC", string(header[:1])) {
			return g, nil
		}
	}
}

// fault is a column of the matrix.
type fault struct {
	name     string
	place    place  // where the relay cuts
	prepare  bool   // it does so at the Parse that comes before
	row      string // what the row tells the table's trigger to do
	during   func(b *bench, deadline *lateDeadline)
	leaves   bool // the statement ends its waiting by itself after during
	readOnly bool // the session is read-only
	ends     bool // the caller's context ends, so that nothing is tried again
	borrow   bool // RDS Proxy has no connection to borrow
	want     retry.Verdict
}

var faults = []fault{
	{name: "cut before", place: before},
	{name: "cut halfway", place: halfway},
	{name: "cut while it runs", row: "wait", during: func(b *bench, _ *lateDeadline) { b.relay.hangUp() }},
	{name: "answer lost", place: unheard},
	{name: "cut after answer", place: afterward},
	{name: "Parse cut before", place: before, prepare: true},
	{name: "Parse's answer lost", place: unheard, prepare: true},
	{name: "57P01", row: "wait", during: func(b *bench, _ *lateDeadline) { b.signal("pg_terminate_backend") }},
	{name: "57014", row: "wait", during: func(b *bench, _ *lateDeadline) { b.signal("pg_cancel_backend") }, want: retry.Permanent},
	{name: "23505", row: "raise 23505", want: retry.Permanent},
	{name: "25006", readOnly: true, want: retry.RolledBack},
	{name: "25006 raised", row: "raise 25006", want: retry.RolledBack},
	{name: "40001", row: "raise 40001", want: retry.RolledBack},
	{name: "40001 at the end", row: "raise 40001 late", want: retry.RolledBack},
	{name: "40P01", row: "raise 40P01", want: retry.RolledBack},
	{name: "deadline, cancelled", row: "wait", during: endWait, leaves: true, ends: true},
	{name: "deadline, completed", row: "persist", during: endWait, leaves: true, ends: true},
}

// borrowTimeout is the fault that takes an RDS Proxy to have.
var borrowTimeout = fault{name: "08000", borrow: true, want: retry.NotExecuted}

func endWait(_ *bench, deadline *lateDeadline) { close(deadline.over) }

// lateDeadline is a context whose deadline passes when the statement is known to run,
// and not when a clock says so.
type lateDeadline struct {
	context.Context
	over chan struct{}
}

func (d *lateDeadline) Done() <-chan struct{} { return d.over }

func (d *lateDeadline) Err() error {
	select {
	case <-d.over:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// matrixSchema is a table whose rows bring their own trouble: a trigger runs as part of
// the statement, whichever kind that is, and a deferred one as part of COMMIT. There is
// no unique key, so that a row inserted twice is there twice.
const matrixSchema = `
create table matrix (id text not null, trouble text not null);
create function trouble() returns trigger language plpgsql as $$
begin
	if new.trouble like 'wait%' then
		perform pg_advisory_xact_lock(1);
	elsif new.trouble like 'persist%' then
		begin
			perform pg_advisory_xact_lock(1);
		exception when query_canceled then -- the cancellation came too late
		end;
	elsif new.trouble like 'raise%' then
		raise exception 'as told' using errcode = split_part(new.trouble, ' ', 2);
	end if;
	return null;
end $$;
create trigger in_statement after insert on matrix
	for each row when (new.trouble not like '% late') execute function trouble();
create constraint trigger at_the_end after insert on matrix deferrable initially deferred
	for each row when (new.trouble like '% late') execute function trouble()`

// bench is where the cells of one execution mode are tried, one after the other. Its
// database is its own, so that no session in it is somebody else's.
type bench struct {
	t        *testing.T
	mode     pgx.QueryExecMode
	control  *pgx.Conn
	relay    *frameRelay
	pool     *pgxpool.Pool // through the relay
	readOnly *pgxpool.Pool // the same, for sessions that are read-only
	cells    []*cell
}

func newBench(t *testing.T, mode pgx.QueryExecMode) *bench {
	t.Helper()
	dsn := database(t, shared)
	b := &bench{t: t, mode: mode, control: control(t, dsn)}
	var through string
	b.relay, through = newFrameRelay(t, dsn)
	b.pool = newPool(t, through, proxy.WithExecMode(mode), proxy.WithMaxConns(1))
	b.readOnly = newPool(t, through+"&default_transaction_read_only=on", proxy.WithExecMode(mode), proxy.WithMaxConns(1))
	return b
}

// control is a connection past everything that fails, to a database with the table.
func control(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if _, err := conn.Exec(t.Context(), matrixSchema); err != nil {
		t.Fatal(err)
	}
	return conn
}

// interfere performs a cell whose row waits, and lets the fault happen meanwhile.
func (b *bench) interfere(c *cell) {
	b.t.Helper()
	b.count("from pg_advisory_lock(1)")
	deadline := &lateDeadline{b.t.Context(), make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- c.op.run(deadline, c) }()
	waitFor(b.t, c.String()+": the row to wait", func() bool { return b.count(waiting) == 1 })
	c.fault.during(b, deadline)
	if !c.op.retries { // what is tried again needs the connection, and that may need the statement to end
		c.err = <-done
	}
	if c.fault.leaves {
		waitFor(b.t, c.String()+": the row to wait no longer", func() bool { return b.count(waiting) == 0 })
	}
	b.count("from pg_advisory_unlock(1)")
	if c.op.retries {
		c.err = <-done
	}
}

// waiting are the sessions whose row waits.
const waiting = `from pg_locks where locktype = 'advisory' and not granted
	and database = (select oid from pg_database where datname = current_database())`

// signal signals the session whose row waits.
func (b *bench) signal(function string) {
	b.t.Helper()
	if _, err := b.control.Exec(b.t.Context(), "select "+pgx.Identifier{function}.Sanitize()+"(pid) "+waiting); err != nil {
		b.t.Fatal(err)
	}
}

// count counts what is from a query's FROM on.
func (b *bench) count(from string, args ...any) (n int) {
	b.t.Helper()
	if err := b.control.QueryRow(b.t.Context(), "select count(*) "+from, args...).Scan(&n); err != nil {
		b.t.Fatal(err)
	}
	return n
}
