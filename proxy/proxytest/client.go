package proxytest

// A client session: one client connection, from accept to close. Its goroutine reads what the
// client sends and passes it to the database connection the session borrows; that connection's
// goroutine brings the answers (relay.go). The two meet under clientSession.mu, over the queue of
// messages that have not been answered.

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"
)

const (
	idleWindow    = 1 << 10  // enough for most messages
	clientWindow  = 24 << 10 // holds any small message, and the text that a pin is decided on
	flushSize     = 32 << 10 // bytes for the database that are written at the latest
	directSize    = 4 << 10  // bytes from which on a copy costs more than a write
	keptOut       = 2 << 10  // a buffer for the database that a session keeps while it is empty
	writeTimeout  = 5 * time.Second
	lingerTimeout = 500 * time.Millisecond
)

var (
	errTerminated   = errors.New("client sent Terminate")
	errHungUp       = errors.New("proxy closes the client connection")
	errClientClosed = errors.New("client went away")
)

type clientSession struct {
	p      *Proxy
	id     uint64
	remote string
	raw    net.Conn
	conn   net.Conn // raw, or TLS over it
	secure bool
	info   startupInfo

	// What follows is the session goroutine's.
	in         window
	out        []byte  // bytes for the database connection, not written yet
	sendingTo  *dbConn // the one they are for
	streaming  bool    // a message is half sent
	heldBack   bool    // unsent is set
	skipLocal  bool    // a request failed before it had a connection: skip to Sync
	rules      pinRules
	rulesKnown bool    // rules are those of the database, too
	turn       *waiter // its place in the queue for a connection, when it had to wait before

	wmu        sync.Mutex // orders writes to conn; taken before mu
	midMessage bool       // under wmu: the client has a part of a message, and the rest is not written

	mu        sync.Mutex
	db        *dbConn  // borrowed, nil if none is
	due       exchange // with db
	tx        byte     // transaction status of the last ReadyForQuery
	group     uint64
	dropping  int           // messages under way that drop all statements
	dropGroup uint64        // of the last of them
	answered  chan struct{} // closed at the next answer, if the session waits for one
	unsent    bool          // out holds messages that will not be answered
	pinned    bool
	ended     bool // the client is gone
	hungUp    bool // the client is told, or about to be, that it is over
	lostPin   bool // a failover took the connection this session was pinned to
	waiting   bool // for a database connection
	idleSince time.Time
	watchdog  *time.Timer

	names     map[string]*statement
	portals   map[string]*statement // of statements that pin
	history   borrowed              // in strict mode
	textBytes int                   // kept in names
}

func newClientSession(p *Proxy, conn net.Conn) *clientSession {
	s := &clientSession{
		p: p, id: p.nextClient.Add(1), remote: conn.RemoteAddr().String(), raw: conn, conn: conn, tx: 'I',
		names: map[string]*statement{},
	}
	return s
}

func (s *clientSession) logf(level slog.Level, format string, args ...any) {
	s.p.log.clientf(level, s.id, format, args...)
}

// run is the session, from the first byte to the last.
func (s *clientSession) run() {
	defer s.p.forget(s)
	defer s.signedOff()
	s.p.counters.clients.Add(1)
	defer s.p.counters.clients.Add(-1)
	err := s.setUp()
	if err == nil {
		s.in = newSmallWindow(s.conn, idleWindow, &s.p.windows)
		s.startWatchdog()
		err = s.serve()
		s.stopWatchdog()
		s.p.counters.closed.Add(1)
	}
	s.finish(err)
}

// finish says the last word, if there is one, and lets go of everything.
func (s *clientSession) finish(err error) {
	var refused *refusal
	if errors.As(err, &refused) {
		s.hangUp(errorResponse("FATAL", refused.code, refused.message))
	}
	if db := s.releaseForGood(errors.Is(err, errTerminated)); db != nil {
		db.reset()
	}
	if refused != nil || errors.Is(err, errHungUp) {
		s.linger()
	}
	_ = s.raw.Close()
	switch {
	case errors.Is(err, errTerminated):
		s.logf(slog.LevelInfo, "The client connection closed. Reason: The client requested that the connection close.")
	case errors.Is(err, errCancelRequest), errors.Is(err, errStartupPacket):
	default:
		s.logf(slog.LevelInfo, "The client connection closed. Reason: The TCP channel was closed by either the client or the proxy.")
	}
}

// releaseForGood closes a database connection that is still borrowed, as it is in the middle of
// something; its goroutine does the rest. One that was only pinned is returned, to be reset.
func (s *clientSession) releaseForGood(politely bool) (reset *dbConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	if s.db == nil {
		return nil
	}
	quiet := s.due.quiet() && !s.due.doubt && !s.unsent && !s.streaming
	if db := s.db; quiet && s.tx == 'I' && s.p.cfg.reset != ResetByClose {
		// Nothing is due to this session. What comes now is the reset's.
		s.detach()
		db.resetting.due.Store(1)
		db.owner.Store(nil)
		return db
	}
	if politely && quiet {
		s.db.terminate()
		return nil
	}
	s.p.log.databasef(slog.LevelInfo, s.db.id, "The database connection closed. Reason: The client connection that "+
		"borrowed this database connection from the connection pool was closed in the middle of a request.")
	_ = s.db.conn.Close() // and no CancelRequest: the query runs on until it notices
	return nil
}

// serve handles messages until something ends the session.
func (s *clientSession) serve() error {
	for {
		if err := s.need(headerLen); err != nil {
			return err
		}
		kind, body, ok := parseHeader(s.in.bytes())
		if !ok || body > maxBody(kind) {
			return &refusal{code: "08P01", message: "invalid message length"}
		}
		if kind == 'X' {
			return errTerminated
		}
		if err := s.handle(kind, body); err != nil {
			return err
		}
	}
}

// maxBody is how long a message of this type may be.
func maxBody(kind byte) int {
	switch kind {
	case 'Q', 'P', 'B', 'F', 'd':
		return maxLargeMessage
	}
	return maxSmallMessage
}

// handle deals with one message, of which the header is in the window.
func (s *clientSession) handle(kind byte, body int) error {
	if s.skipping(kind) {
		return s.discard(headerLen + body)
	}
	switch kind {
	case 'Q':
		return s.handleQuery(body)
	case 'P':
		return s.handleParse(body)
	case 'B':
		return s.handleBind(body)
	case 'D', 'C':
		return s.handleDescribeOrClose(kind, body)
	case 'E':
		return s.handleExecute(body)
	case 'S':
		return s.handleSync(body)
	case 'H', 'd', 'c', 'f':
		return s.handleUnanswered(kind, body)
	case 'F':
		return s.handleFunctionCall(body)
	}
	return &refusal{code: "08P01", message: "invalid frontend message type " + string('0'+rune(kind)/100) +
		string('0'+rune(kind)/10%10) + string('0'+rune(kind)%10)}
}

// skipping says whether an earlier error makes this message one to be skipped. The database would
// skip it just the same; the proxy need not borrow a connection for that, nor understand the message.
// An error that comes later than this is attach's.
func (s *clientSession) skipping(kind byte) bool {
	if kind == 'S' {
		return false
	}
	if s.skipLocal {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.due.skip
}

// need waits until n bytes are in the window. What is for the database goes out before that.
func (s *clientSession) need(n int) error {
	for s.in.len() < n {
		if err := s.fill(); err != nil {
			return err
		}
	}
	return nil
}

func (s *clientSession) fill() error {
	if err := s.flush(); err != nil {
		return err
	}
	err := s.in.fill()
	if err != nil && s.isHungUp() {
		return errHungUp
	}
	return err
}

// flush writes what is for the database. An error is not reported: the connection's own goroutine
// sees it too, and knows better what it means.
func (s *clientSession) flush() error {
	if len(s.out) > 0 {
		_, _ = s.sendingTo.conn.Write(s.out)
		s.out = s.out[:0]
		if cap(s.out) > keptOut {
			s.out = nil
		}
	}
	if !s.heldBack || s.streaming {
		return nil
	}
	s.heldBack = false
	s.mu.Lock()
	s.unsent = false
	db := s.db
	release := db != nil && s.idle()
	if release {
		s.detach()
	}
	s.mu.Unlock()
	if release {
		db.owner.Store(nil)
		db.release(false)
	}
	return nil
}

// send puts bytes behind those that are for the database, or writes both if they are many.
func (s *clientSession) send(b []byte) {
	if len(b) < directSize {
		s.out = append(s.out, b...)
		return
	}
	if len(s.out) > 0 {
		_, _ = s.sendingTo.conn.Write(s.out)
		s.out = s.out[:0]
	}
	_, _ = s.sendingTo.conn.Write(b)
}

// discard reads n bytes and forgets them.
func (s *clientSession) discard(n int) error {
	for {
		k := min(n, s.in.len())
		s.in.r += k
		if n -= k; n == 0 {
			return nil
		}
		if err := s.fill(); err != nil {
			return err
		}
	}
}

// pass sends the next n bytes from the client to the database.
func (s *clientSession) pass(n int) error {
	s.streaming = true
	for {
		k := min(n, s.in.len())
		s.send(s.in.bytes()[:k])
		s.in.r += k
		if n -= k; n == 0 {
			break
		}
		if err := s.fill(); err != nil {
			return err
		}
	}
	s.streaming = false
	if len(s.out) >= flushSize {
		return s.flush()
	}
	return nil
}
