package proxy

import (
	"context"
	"encoding/binary"
	"io"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// loginReader is what a connecting pgconn reads messages from. It keeps the server's
// bytes from AuthenticationOk to the first ReadyForQuery, so that they can be replayed
// to another pgconn, and it never lets the reader see more than the message it is in:
// bytes that arrive behind ReadyForQuery stay here and go with the connection.
//
// It reads from pgconn's own reader and not from the network, because pgconn may have
// a background read under way when the connection is taken over: it starts one when a
// write takes longer than 15 ms, and what that read returns belongs to the stream.
type loginReader struct {
	r        io.Reader
	answered func() // called once, when the first byte arrives

	buf      []byte // received, not yet passed on
	left     int    // bytes of the current message not yet passed on
	kind     byte   // type of the current message
	state    recordState
	recorded []byte
}

type recordState uint8

const (
	beforeAuthOK recordState = iota
	recording
	recorded
)

func (l *loginReader) Read(p []byte) (int, error) {
	if l.left == 0 {
		if err := l.nextMessage(); err != nil {
			return 0, err
		}
	}
	if len(l.buf) == 0 {
		if err := l.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, l.buf[:min(len(l.buf), l.left)])
	if l.state == recording {
		l.recorded = append(l.recorded, l.buf[:n]...)
	}
	l.buf, l.left = l.buf[n:], l.left-n
	if l.left == 0 && l.kind == 'Z' && l.state == recording {
		l.state = recorded
	}
	return n, nil
}

// nextMessage reads the header of the next message: a type byte and the length of
// what follows it. For Authentication messages it also needs the code behind it.
func (l *loginReader) nextMessage() error {
	const header, withCode = 5, 9
	for len(l.buf) < header || l.buf[0] == 'R' && len(l.buf) < withCode {
		if err := l.fill(); err != nil {
			return err
		}
	}
	l.kind = l.buf[0]
	l.left = max(header, 1+int(int32(binary.BigEndian.Uint32(l.buf[1:])))) // a nonsensical length is pgconn's to refuse
	if l.kind == 'R' && l.state == beforeAuthOK && binary.BigEndian.Uint32(l.buf[header:]) == 0 {
		l.state = recording
	}
	return nil
}

func (l *loginReader) fill() error {
	chunk := make([]byte, 4096)
	n, err := l.r.Read(chunk)
	if n > 0 {
		if l.answered != nil {
			l.answered()
			l.answered = nil
		}
		l.buf = append(l.buf, chunk[:n]...)
		return nil
	}
	return err
}

// handedConn is an established connection as pgx gets it. It plays the server's part
// of a login that needs no password, from the bytes of the real login, and passes
// everything after that straight through.
type handedConn struct {
	net.Conn
	r       io.Reader         // reads the connection, after what pgconn had read ahead
	pending []byte            // still to be read: the replayed login, then what had already arrived
	started bool              // pgx has written its startup message
	startup map[string]string // what that has to say: the login was made with it
	written atomic.Uint64
	backlog backlog
	tap     tap
	remote  net.Addr
	opening opening // the credentials it was opened with
	opened  time.Time
	asked   time.Time // when it was last handed out, or was about to be: see missed

	notPreferred bool // ValidateConnect would rather have another server

	generation *generation
	deathsSeen uint64        // of the generation's
	seenClosed bool          // by the server, while it idled
	patience   time.Duration // how long the server may take for what takes a healthy one moments
	pinged     atomic.Uint32 // a pinged: why it was, until somebody gets it
}

func handOver(conn net.Conn, l *loginReader) *handedConn {
	now := time.Now()
	return &handedConn{
		Conn: conn, r: l.r, pending: append(l.recorded, l.buf...),
		remote: cancelAddr{conn.RemoteAddr()}, opened: now, asked: now,
	}
}

func (c *handedConn) Read(p []byte) (n int, err error) {
	if len(c.pending) > 0 {
		n = copy(p, c.pending)
		c.pending = c.pending[n:]
		if len(c.pending) == 0 {
			c.pending = nil
		}
	} else {
		n, err = c.r.Read(p)
		c.backlog.heard()
	}
	if c.tap.on.Load() {
		c.tap.keep(p[:n])
	}
	if err != nil {
		err = c.noteRead(err)
	}
	return n, err
}

// tap keeps a copy of what is read while it is on. It is locked because pgconn may
// read from a goroutine of its own.
type tap struct {
	on   atomic.Bool
	mu   sync.Mutex
	kept []byte
	over bool // it was more than tapLimit
}

// tapLimit bounds what is kept: the answer to a BEGIN, with room for notifications.
const tapLimit = 16 << 10

func (t *tap) keep(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over = t.over || len(t.kept)+len(p) > tapLimit; !t.over {
		t.kept = append(t.kept, p...)
	}
}

// Tap begins to keep a copy of what is read. It is for whoever has the connection to
// itself: package retry reads the answer to a statement that pgx discards.
func (c *handedConn) Tap() {
	c.tap.mu.Lock()
	defer c.tap.mu.Unlock()
	c.tap.kept, c.tap.over = c.tap.kept[:0], false
	c.tap.on.Store(true)
}

// Untap ends what [handedConn.Tap] began and returns what was read in between, which
// is valid until the next Tap, or nil if that was too much to keep.
func (c *handedConn) Untap() []byte {
	c.tap.mu.Lock()
	defer c.tap.mu.Unlock()
	c.tap.on.Store(false)
	if c.tap.over {
		return nil
	}
	return c.tap.kept
}

// Terminate, as pgx writes it.
const terminateLen = 5

// farewell bounds what happens after Terminate. When a query is cancelled, pgx sends
// Terminate and then drains the connection for up to 15 s, during which the pool
// counts it as in use. RDS Proxy does not end a query whose client has gone, so
// that would be the rule and not the exception. A server that is known to be lost gets
// nothing.
const farewell = time.Second

func (c *handedConn) Write(p []byte) (int, error) {
	if !c.started {
		if err := c.swallow(p); err != nil {
			return 0, err
		}
		c.started = true
		return len(p), nil
	}
	if len(p) == terminateLen && p[0] == 'X' {
		_ = c.SetDeadline(time.Now().Add(c.farewell()))
	} else {
		c.written.Add(uint64(len(p)))
	}
	return c.backlog.write(c.Conn, p)
}

func (c *handedConn) farewell() time.Duration {
	switch {
	case c.isLost():
		return 0
	case c.patience > 0:
		return min(farewell, c.patience)
	default:
		return farewell
	}
}

// expects notes the startup message that pgx will write for this login.
func (c *handedConn) expects(who login) {
	c.startup = maps.Clone(who.params)
	if c.startup == nil {
		c.startup = map[string]string{}
	}
	c.startup["user"] = who.user
	if who.database != "" {
		c.startup["database"] = who.database
	}
}

const sslRequest = 80877103

// swallow takes pgx's startup message, which comes in one piece: the real one was sent
// and answered. If it says something else than the login did, the configuration was
// changed since, and the connection is not what its owner believes.
func (c *handedConn) swallow(p []byte) error {
	const header = 8 // length and protocol version
	if len(p) < header {
		return changedSince("the startup message", "it is cut short")
	}
	if binary.BigEndian.Uint32(p[4:]) == sslRequest {
		return changedSince("TLSConfig", "TLS is already in place underneath")
	}
	var msg pgproto3.StartupMessage
	if err := msg.Decode(p[4:]); err != nil {
		return err
	}
	for name, value := range msg.Parameters {
		if c.startup[name] != value {
			return changedSince(quote(name), "the login was made with "+quote(c.startup[name])+" and not with "+quote(value))
		}
	}
	if len(msg.Parameters) != len(c.startup) {
		return changedSince("RuntimeParams", "the login was made with more than it has now")
	}
	return nil
}

// Close closes the connection. pgxpool says nothing of one that it closes because of a ping that
// failed, so that it is told here.
func (c *handedConn) Close() error {
	if why := pinged(c.pinged.Swap(0)).String(); why != "" {
		c.generation.of.events.evicted(context.Background(), c, why)
	}
	c.backlog.close()
	return c.Conn.Close()
}

// discard ends a connection that pgx has not got.
func (c *handedConn) discard() {
	_, _ = c.Conn.Write([]byte{'X', 0, 0, 0, terminateLen - 1})
	_ = c.Close()
}

// Written is the number of bytes that pgx has tried to send on this connection since
// the login, but for Terminate. It counts them before it writes them, so that a write that fails, or
// fails halfway, counts in full: if Written is the same before and after a statement
// failed, then nothing of that statement has left the process. It never decreases,
// and may be called at any time from any goroutine.
func (c *handedConn) Written() uint64 { return c.written.Load() }

// Lost reports whether the server has fallen silent: it has left several retransmissions or probes
// in a row unanswered, or an earlier connection to it was given up for that. It may be called at any time.
func (c *handedConn) Lost() bool { return c.isLost() }

// RemoteAddr is the server's address, in a form that makes pgx's CancelRequest
// recognizable: see [cancelAddr].
func (c *handedConn) RemoteAddr() net.Addr { return c.remote }

// NetConn is the connection underneath: a *tls.Conn, or a *net.TCPConn.
func (c *handedConn) NetConn() net.Conn { return c.Conn }

// cancelAddr makes the difference between the two reasons pgx has to dial. For a
// connect it dials "tcp"; for a CancelRequest it dials the network and address that
// the connection itself reports, and this one reports "tcp4" or "tcp6".
type cancelAddr struct{ net.Addr }

const (
	cancelTCP4 = "tcp4"
	cancelTCP6 = "tcp6"
	cancelUnix = "unixpacket"
)

func (a cancelAddr) Network() string {
	tcp, ok := a.Addr.(*net.TCPAddr)
	switch {
	case ok && tcp.IP.To4() == nil:
		return cancelTCP6
	case ok || a.Addr.Network() != "unix":
		return cancelTCP4
	default:
		return cancelUnix
	}
}
