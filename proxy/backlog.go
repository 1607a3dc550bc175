package proxy

// A peer that cannot take in what is sent to it, as a server whose next statement waits for a lock
// while the rest of a batch or of a COPY arrives, closes its window and acknowledges every
// probe. It is busy and not gone. Linux's TCP_USER_TIMEOUT gives up on it all the same ("buffered data may
// remain untransmitted (due to zero window size)", https://www.man7.org/linux/man-pages/man7/tcp.7.html),
// so that it is lifted while much is under way, and looked after from here.

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// muchUnderWay is more than was written since the server last said something, and may not fit
// into its window. Windows begin at 64 kB.
const muchUnderWay = 16 << 10

// backlog is what is under way on one connection. Its zero value is ready for use.
type backlog struct {
	unread  atomic.Int64 // bytes written since the server last said something
	writing atomic.Int32 // writes under way, while the limit is lifted

	mu     sync.Mutex
	review *time.Timer   // set while the limit is lifted
	limit  time.Duration // that was lifted
	closed bool
}

// write writes p to conn.
func (b *backlog) write(conn net.Conn, p []byte) (int, error) {
	if b.unread.Add(int64(len(p))) < muchUnderWay {
		return conn.Write(p)
	}
	b.writing.Add(1)
	defer b.writing.Add(-1)
	b.lift(conn)
	return conn.Write(p)
}

// heard notes that the server has said something.
func (b *backlog) heard() {
	if b.unread.Load() != 0 {
		b.unread.Store(0)
	}
}

// lift takes the limit off, if there is one, until what is under way has arrived.
func (b *backlog) lift(conn net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.review != nil || b.closed {
		return
	}
	limit := unacknowledgedLimit(conn)
	if limit == 0 {
		return
	}
	b.limit = limit
	limitUnacknowledged(conn, 0)
	b.review = time.AfterFunc(limit/2, func() { b.look(conn) })
}

// look puts the limit on again when all has arrived and the server has said something since, and
// while the server is silent: then the kernel is right to give up when its time has come. It
// looks at the limit when it tries again, and so has to have it early.
func (b *backlog) look(conn net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	underWay, silent, ok := underWay(conn, b.limit)
	switch {
	case !ok, !underWay && b.unread.Load() < muchUnderWay && b.writing.Load() == 0:
		limitUnacknowledged(conn, b.limit)
		b.review = nil
		return
	case silent:
		limitUnacknowledged(conn, b.limit)
	default:
		limitUnacknowledged(conn, 0)
	}
	b.review.Reset(b.limit / 2)
}

// close ends the reviews.
func (b *backlog) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if b.review != nil {
		b.review.Stop()
	}
}
