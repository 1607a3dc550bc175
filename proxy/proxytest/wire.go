package proxytest

// Bytes on the wire: message types, the window through which both sides read, and the few
// messages the proxy writes itself. Relayed messages are not decoded beyond what the proxy has to
// know; see https://www.postgresql.org/docs/current/protocol-message-formats.html.

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgproto3"
)

// Request codes that stand where a startup packet has its protocol version.
const (
	codeProtocol3     = 3 << 16
	codeCancelRequest = 1234<<16 | 5678
	codeSSLRequest    = 1234<<16 | 5679
	codeGSSENCRequest = 1234<<16 | 5680
)

// Limits on what a client may send, as PostgreSQL has them (src/include/libpq/libpq.h,
// src/include/libpq/pqcomm.h).
const (
	maxStartupPacket = 10_000
	maxSmallMessage  = 10_000
	maxLargeMessage  = 1<<30 - 2
	maxAuthMessage   = 65_535
)

const headerLen = 5 // type byte and length

var errMessageLength = errors.New("invalid message length")

// window reads ahead from a connection and lets its bytes be looked at in place. One that may be
// small has a small buffer of its own, and a large one from a pool while there is much to read: most
// clients are idle most of the time.
type window struct {
	src  io.Reader
	buf  []byte
	r, w int

	small []byte // the buffer of its own; nil if buf never changes
	pool  *bufferPool
	full  bool // the last read filled the buffer
}

func newWindow(src io.Reader, size int) window { return window{src: src, buf: make([]byte, size)} }

// newSmallWindow is small as long as that is enough, and of the pool's size otherwise.
func newSmallWindow(src io.Reader, size int, pool *bufferPool) window {
	small := make([]byte, size)
	return window{src: src, buf: small, small: small, pool: pool}
}

func (b *window) len() int { return b.w - b.r }

// bytes is what has been read and not consumed. It is valid until the next fill.
func (b *window) bytes() []byte { return b.buf[b.r:b.w] }

// fill reads once. It must not be called with the window full, if that is as large as it gets.
func (b *window) fill() error {
	switch {
	case b.r == b.w:
		b.r, b.w = 0, 0
		if !b.full {
			b.shrink()
		}
	case b.r > 0 && len(b.buf)-b.w < len(b.buf)/2:
		copy(b.buf, b.buf[b.r:b.w])
		b.r, b.w = 0, b.w-b.r
	}
	if b.full || b.w == len(b.buf) {
		b.grow()
	}
	n, err := b.src.Read(b.buf[b.w:])
	b.w += n
	b.full = b.w == len(b.buf) || b.full && n > len(b.small)
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// grow takes a large buffer, if there is one to take. What bytes returned stays valid.
func (b *window) grow() {
	if b.small == nil || len(b.buf) > len(b.small) {
		return
	}
	large := b.pool.get()
	copy(large, b.buf[:b.w])
	b.buf = large
}

// shrink gives the large buffer back. The window is empty.
func (b *window) shrink() {
	if b.small == nil || len(b.buf) == len(b.small) {
		return
	}
	b.pool.put(b.buf)
	b.buf = b.small
}

// bufferPool keeps buffers of one size.
type bufferPool struct {
	size int
	pool sync.Pool
}

func (p *bufferPool) get() []byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, p.size)
}

func (p *bufferPool) put(b []byte) {
	b = b[:cap(b)]
	if len(b) == p.size {
		p.pool.Put(&b)
	}
}

// parseHeader reads a message's type and the length of its body. ok is false if the length is
// impossible.
func parseHeader(b []byte) (kind byte, body int, ok bool) {
	n := binary.BigEndian.Uint32(b[1:headerLen])
	return b[0], int(n) - 4, n >= 4 && n <= maxLargeMessage+4
}

func appendHeader(dst []byte, kind byte, body int) []byte {
	dst = append(dst, kind)
	return binary.BigEndian.AppendUint32(dst, uint32(body+4))
}

// cString splits b after its first zero byte.
func cString(b []byte) (s, rest []byte, ok bool) {
	if i := bytes.IndexByte(b, 0); i >= 0 { //nolint:modernize // bytes.Cut has the rest first where there is no zero
		return b[:i], b[i+1:], true
	}
	return nil, b, false
}

// errorResponse is an ErrorResponse of the proxy's own.
func errorResponse(severity, code, message string) []byte {
	msg := pgproto3.ErrorResponse{
		Severity: severity, SeverityUnlocalized: severity, Code: code, Message: message,
	}
	b, err := msg.Encode(nil)
	if err != nil { // only a message of more than a gigabyte
		return nil
	}
	return b
}

// encode is the wire form of messages that cannot be too long.
func encode(msgs ...pgproto3.BackendMessage) []byte {
	var b []byte
	for _, msg := range msgs {
		if next, err := msg.Encode(b); err == nil {
			b = next
		}
	}
	return b
}

// errorCode is the SQLSTATE in an ErrorResponse.
func errorCode(body []byte) string {
	for len(body) > 1 {
		field := body[0]
		value, rest, ok := cString(body[1:])
		if !ok {
			return ""
		}
		if field == 'C' {
			return string(value)
		}
		body = rest
	}
	return ""
}

// renameInError puts the client's name of a statement in the place of the one the database knows
// it by.
func renameInError(frame []byte, from, to string) []byte {
	var msg pgproto3.ErrorResponse
	if err := msg.Decode(frame[headerLen:]); err != nil {
		return frame
	}
	msg.Message = replaceQuoted(msg.Message, from, to)
	b, err := msg.Encode(nil)
	if err != nil {
		return frame
	}
	return b
}

func replaceQuoted(message, from, to string) string {
	return strings.ReplaceAll(message, `"`+from+`"`, `"`+to+`"`)
}

// fillIn puts a name in the place of the % in a text.
func fillIn(text, name string) string { return strings.Replace(text, "%", name, 1) }
