package proxy

import (
	"encoding/binary"
	"net"
	"time"
)

// handshakeConn sits between a connecting pgconn and the network. It keeps the
// server's bytes from AuthenticationOk to the first ReadyForQuery, so that they can
// be replayed to another pgconn, and it never lets the reader see more than the
// message it is in: bytes that arrive behind ReadyForQuery stay here and go with the
// connection.
type handshakeConn struct {
	net.Conn
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

func (c *handshakeConn) Read(p []byte) (int, error) {
	if c.left == 0 {
		if err := c.nextMessage(); err != nil {
			return 0, err
		}
	}
	if len(c.buf) == 0 {
		if err := c.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.buf[:min(len(c.buf), c.left)])
	if c.state == recording {
		c.recorded = append(c.recorded, c.buf[:n]...)
	}
	c.buf, c.left = c.buf[n:], c.left-n
	if c.left == 0 && c.kind == 'Z' && c.state == recording {
		c.state = recorded
	}
	return n, nil
}

// nextMessage reads the header of the next message: a type byte and the length of
// what follows it. For Authentication messages it also needs the code behind it.
func (c *handshakeConn) nextMessage() error {
	const header, withCode = 5, 9
	need := header
	for len(c.buf) < need {
		if err := c.fill(); err != nil {
			return err
		}
		if c.buf[0] == 'R' {
			need = withCode
		}
	}
	c.kind = c.buf[0]
	c.left = max(header, 1+int(int32(binary.BigEndian.Uint32(c.buf[1:])))) // a nonsensical length is pgconn's to refuse
	if c.kind == 'R' && c.state == beforeAuthOK && binary.BigEndian.Uint32(c.buf[header:]) == 0 {
		c.state = recording
	}
	return nil
}

func (c *handshakeConn) fill() error {
	chunk := make([]byte, 4096)
	n, err := c.Conn.Read(chunk)
	if n > 0 {
		if c.answered != nil {
			c.answered()
			c.answered = nil
		}
		c.buf = append(c.buf, chunk[:n]...)
		return nil
	}
	return err
}

// handedConn is an established connection as pgx gets it. It plays the server's part
// of a login that needs no password, from the bytes of the real login, and passes
// everything after that straight through.
type handedConn struct {
	net.Conn
	pending []byte // still to be read: the replayed login, then what had already arrived
	started bool   // pgx has written its startup message
	remote  net.Addr
}

func handOver(c *handshakeConn) *handedConn {
	return &handedConn{
		Conn: c.Conn, pending: append(c.recorded, c.buf...),
		remote: cancelAddr{c.RemoteAddr()},
	}
}

func (c *handedConn) Read(p []byte) (int, error) {
	if len(c.pending) > 0 {
		n := copy(p, c.pending)
		c.pending = c.pending[n:]
		if len(c.pending) == 0 {
			c.pending = nil
		}
		return n, nil
	}
	return c.Conn.Read(p)
}

// Terminate, as pgx writes it.
const terminateLen = 5

// farewell bounds what happens after Terminate. When a query is cancelled, pgx sends
// Terminate and then drains the connection for up to 15 s, during which the pool
// counts it as in use. RDS Proxy does not end a query whose client has gone, so
// that would be the rule and not the exception.
const farewell = time.Second

func (c *handedConn) Write(p []byte) (int, error) {
	if !c.started { // pgx's startup message, in one piece: the real one was sent and answered
		c.started = true
		return len(p), nil
	}
	if len(p) == terminateLen && p[0] == 'X' {
		_ = c.SetDeadline(time.Now().Add(farewell))
	}
	return c.Conn.Write(p)
}

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
