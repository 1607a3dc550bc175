package proxy

// Which connections are still worth using. Those to one address form a generation. A
// generation is retired when its server is found to be no writer any more, or to be gone
// without a word: then its idle connections are dropped at their next use, before a statement
// fails on them, and without a pool of our own around pgxpool's: its hooks ask here.

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/observe"
)

// generation is all connections of a pool to one address that were opened since the last
// one to it was retired.
type generation struct {
	addr    string        // of the server
	retired atomic.Uint32 // an outOfUse
	lost    atomic.Bool   // retired because the server does not answer
	used    atomic.Bool   // a pool has got a connection of it
	of      *generations
	vouched atomic.Bool   // the server was asked and said that it is no reader
	deaths  atomic.Uint64 // connections that ended without our doing
}

// outOfUse is why a generation was retired.
type outOfUse uint32

const (
	inUse     outOfUse = iota
	hasMoved           // the endpoint leads elsewhere
	isReading          // the server is no writer
	isSilent           // the server does not acknowledge what is sent
)

func (o outOfUse) String() string {
	switch o {
	case hasMoved:
		return observe.EvictedMoved
	case isReading:
		return observe.EvictedReadOnly
	case isSilent:
		return observe.EvictedSilent
	default:
		return ""
	}
}

// outOfUse is why the generation was retired, inUse if it was not.
func (g *generation) outOfUse() outOfUse { return outOfUse(g.retired.Load()) }

// retire takes the generation out of use, and tells. The caller holds no lock.
func (g *generation) retire(ctx context.Context, why outOfUse) {
	if g.retired.CompareAndSwap(uint32(inUse), uint32(why)) {
		g.of.events.noticed(ctx, g, why)
	}
}

// lose retires the generation of a server that has become silent. That is found out where there is
// no context at hand.
func (g *generation) lose() {
	g.lost.Store(true)
	g.of.lost.Store(time.Now().UnixNano())
	g.retire(context.Background(), isSilent)
}

// generations are those in use, by address.
type generations struct {
	events *events

	mu      sync.Mutex
	current map[string]*generation
	writer  string // where the last connection to a writer went, if anybody wants to know

	lost atomic.Int64 // when a server was last found to be silent
}

// lately reports whether a server has fallen silent in the last seconds, so that the
// endpoint may lead into the void for as long as DNS stays behind.
func (gs *generations) lately() bool {
	const seconds = 10
	at := gs.lost.Load()
	return at != 0 && time.Since(time.Unix(0, at)) < seconds*time.Second
}

// join returns the generation for a new connection to addr.
func (gs *generations) join(addr string) *generation {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	g := gs.current[addr]
	if g == nil || g.outOfUse() != inUse {
		if gs.current == nil {
			gs.current = map[string]*generation{}
		}
		g = &generation{addr: addr, of: gs}
		gs.current[addr] = g
	}
	return g
}

// retireReader drops the connections to addr, which is a reader's, if there are any.
func (gs *generations) retireReader(ctx context.Context, addr string) {
	gs.mu.Lock()
	g := gs.current[addr]
	delete(gs.current, addr)
	gs.mu.Unlock()
	if g != nil {
		g.retire(ctx, isReading)
	}
}

// keepOnly drops the connections to all addresses but these.
func (gs *generations) keepOnly(ctx context.Context, addrs []string) {
	var others []*generation
	gs.mu.Lock()
	for addr, g := range gs.current {
		if !slices.Contains(addrs, addr) {
			others = append(others, g)
			delete(gs.current, addr)
		}
	}
	gs.mu.Unlock()
	for _, g := range others {
		g.retire(ctx, hasMoved)
	}
}

// foundWriter tells if a connection to the writer, whose name leads to addrs, went to another server
// than the one before.
func (gs *generations) foundWriter(ctx context.Context, addr string, addrs []string) {
	if !gs.events.on() {
		return
	}
	gs.mu.Lock()
	former := gs.writer
	gs.writer = addr
	gs.mu.Unlock()
	if former != "" && !slices.Contains(addrs, former) {
		gs.events.writerChanged(ctx, former, addr)
	}
}

// usable reports whether a statement may be sent on an idle connection. It costs two loads,
// and a look at the socket if another connection to the same server has died since
// the last look: what ended that one may have ended this one.
func (c *handedConn) usable() bool { return c.unusable() == "" }

// unusable is why it is not usable, as package observe calls it.
func (c *handedConn) unusable() string {
	if c.generation == nil {
		return ""
	}
	if c.seenClosed {
		return observe.EvictedClosed
	}
	if why := c.generation.outOfUse(); why != inUse {
		return why.String()
	}
	if deaths := c.generation.deaths.Load(); deaths != c.deathsSeen {
		switch look(c.Conn) {
		case closed, talking:
			return observe.EvictedClosed
		default:
			c.deathsSeen = deaths
		}
	}
	return ""
}

// lookAfter is how long a connection must have idled to be worth a look, which costs a system
// call. In a pool under load few have.
const lookAfter = 25 * time.Millisecond

// noteRead learns from the end of a connection.
func (c *handedConn) noteRead(err error) error {
	if c.generation == nil {
		return err
	}
	switch {
	case errors.Is(err, syscall.ETIMEDOUT):
		c.generation.lose()
		return &silentError{err}
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		c.generation.deaths.Add(1)
	}
	return err
}

// silentError is the kernel giving up on a peer that does not acknowledge what was sent. It
// calls that a timeout, and pgx takes timeouts for those of contexts, after which it reads on.
type silentError struct{ err error }

func (e *silentError) Error() string   { return "server has fallen silent: " + e.err.Error() }
func (e *silentError) Unwrap() error   { return e.err }
func (e *silentError) Timeout() bool   { return false }
func (e *silentError) Temporary() bool { return false }

// isLost reports whether there is anybody left to say goodbye to. Finding that there is not
// retires the generation.
func (c *handedConn) isLost() bool {
	if c.generation == nil {
		return false
	}
	if !c.generation.lost.Load() && unanswered(c.Conn) {
		c.generation.lose()
	}
	return c.generation.lost.Load()
}

// handedConnOf finds the connection that this package made below whatever the user's hooks
// put on top of it.
func handedConnOf(pc *pgconn.PgConn) *handedConn {
	for nc := pc.Conn(); nc != nil; {
		if c, ok := nc.(*handedConn); ok {
			return c
		}
		inner, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		nc = inner.NetConn()
	}
	return nil
}

// prepareHook is the user's hook for connections that are handed out, whichever of the two it is:
// pgxpool ignores BeforeAcquire when PrepareConn is set, as we do.
func prepareHook(cfg *pgxpool.Config) func(context.Context, *pgx.Conn) (bool, error) {
	prepare, before := cfg.PrepareConn, cfg.BeforeAcquire //nolint:staticcheck // deprecated, and in use
	if prepare != nil || before == nil {
		return prepare
	}
	return func(ctx context.Context, conn *pgx.Conn) (bool, error) { return before(ctx, conn), nil }
}

// dropUnusable puts the question in front of the user's own hooks: pgxpool destroys a connection
// that PrepareConn refuses, and takes another.
func dropUnusable(cfg *pgxpool.Config, events *events) {
	prepare, ping := prepareHook(cfg), cfg.ShouldPing
	cfg.PrepareConn = func(ctx context.Context, conn *pgx.Conn) (bool, error) {
		if c := handedConnOf(conn.PgConn()); c != nil {
			c.pinged.Store(0)
			if why := c.unusable(); why != "" {
				events.evicted(ctx, c, why)
				return false, nil
			}
		}
		if prepare == nil {
			return true, nil
		}
		return prepare(ctx, conn)
	}
	cfg.ShouldPing = func(ctx context.Context, p pgxpool.ShouldPingParams) bool {
		c := handedConnOf(p.Conn.PgConn())
		if c == nil {
			return ping(ctx, p)
		}
		// pgxpool counts from when the connect began, which may have been a while ago.
		now := time.Now()
		p.IdleDuration = min(p.IdleDuration, now.Sub(c.opened)) + c.missed(now)
		if !c.usable() {
			return false // PrepareConn, which is next, drops it: a ping would wait for nothing
		}
		if p.IdleDuration > lookAfter {
			switch look(c.Conn) {
			case closed:
				c.seenClosed = true
				return false
			case talking: // last words, mostly
				c.isPinged(forItsWords)
				return true
			}
		}
		if !ping(ctx, p) {
			return false
		}
		c.isPinged(forItsIdling)
		return true
	}
}

// missed is how long the process has been frozen since it was last asked. While a Lambda environment
// is frozen the monotonic clock stands still, by which pgxpool and everybody counts, and so a
// connection seems to have idled for a moment. The wall clock goes on. One that is set by hand looks the
// same, and costs a ping.
func (c *handedConn) missed(now time.Time) time.Duration {
	last := c.asked
	c.asked = now
	return max(0, now.Round(0).Sub(last.Round(0))-now.Sub(last))
}

// pinged is why a connection is pinged before it is handed out.
type pinged uint32

const (
	forItsWords  pinged = iota + 1 // there is something to be read from it
	forItsIdling                   // it has idled
)

// String is the reason for an eviction if the ping fails.
func (p pinged) String() string {
	switch p {
	case forItsWords:
		return observe.EvictedClosed
	case forItsIdling:
		return observe.EvictedUnanswered
	default:
		return ""
	}
}

// isPinged notes that c is about to be pinged, if anybody wants to know what becomes of it.
func (c *handedConn) isPinged(why pinged) {
	if c.generation != nil && c.generation.of.events.on() {
		c.pinged.Store(uint32(why))
	}
}
