package proxytest

// The way back: answers from a database connection to the client who borrows it. Messages are
// passed on as bytes; the few that say what was answered, and when the transaction is over, are
// looked at on the way.

import (
	"bytes"
	"log/slog"
	"time"
)

// relay passes on what is in the connection's window, in one write, and gives the connection back
// if that completes a transaction. It runs on the connection's goroutine.
func (s *clientSession) relay(db *dbConn) error {
	s.wmu.Lock()
	s.mu.Lock()
	asked := s.due.len() > 0
	out, release, err := s.scan(db)
	if asked && s.due.len() == 0 {
		s.idleSince = time.Now()
	}
	s.wake()
	s.mu.Unlock()
	var writeErr error
	if len(out) > 0 {
		_, writeErr = s.conn.Write(out)
	}
	s.midMessage = db.rest > 0 || writeErr != nil
	s.wmu.Unlock()
	if release {
		db.owner.Store(nil)
		db.release(false)
		return err
	}
	if err == nil && writeErr != nil {
		_ = s.raw.Close() // the client is gone: so is the request, and the connection with it
		return errClientClosed
	}
	return err
}

// scan goes through the messages in the window and returns the bytes to pass on, which are valid
// until the window is filled again. mu is held.
func (s *clientSession) scan(db *dbConn) (out []byte, release bool, err error) {
	w := &db.win
	kept := w.buf[w.r:w.r] // grows over the window in place while nothing is made longer
	for w.len() > 0 {
		if db.rest > 0 {
			n := min(db.rest, w.len())
			kept = append(kept, w.buf[w.r:w.r+n]...)
			w.r += n
			db.rest -= n
			continue
		}
		if w.len() < headerLen {
			break
		}
		kind, body, ok := parseHeader(w.bytes())
		if !ok {
			return kept, release, errMessageLength
		}
		total := headerLen + body
		whole := w.len() >= total
		if !whole && total <= len(w.buf) && (release || kind == 'E' || kind == 'C' || kind == 'Z') {
			break // read on: it has to be looked at, or is the next borrower's
		}
		frame := w.buf[w.r:min(w.r+total, w.w)]
		w.r += len(frame)
		forward, rewritten := s.takeAnswer(db, kind, frame, whole)
		if kind == 'Z' && s.db == db && s.idle() {
			s.detach()
			release = true
		}
		switch {
		case rewritten != nil:
			// The window has no room for a longer message.
			kept = append(bytes.Clone(kept), rewritten...)
		case forward:
			kept = append(kept, frame...)
			db.rest = total - len(frame)
		}
	}
	return kept, release, nil
}

// takeAnswer notes what a message from the database means for the queue. forward is false for
// answers to what the proxy injected; rewritten is what to send in the message's place, if
// anything. mu is held.
func (s *clientSession) takeAnswer(db *dbConn, kind byte, frame []byte, whole bool) (forward bool, rewritten []byte) {
	switch kind {
	case 'D', 'd', 'N', 'A', 'S', 't', 'H':
		return true, nil
	}
	if kind == 'C' && whole && s.due.len() > 0 {
		s.commandComplete(db, frame[headerLen:])
	}
	done, ok := s.due.answer(kind, func(e pending, skipped bool) {
		if whole && !skipped {
			rewritten = s.clientsNames(e.st, frame)
		}
		s.failed(db, e, skipped)
	})
	if ok && done.drops {
		s.dropping--
	}
	if kind == 'Z' && len(frame) > headerLen {
		s.setTx(frame[headerLen])
	}
	switch {
	case ok && done.kind == 'Q':
		s.undefined(db, done)
	case ok && kind == '1':
		s.parsed(db, done)
	case ok && kind == '3':
		s.closed(db, done)
	}
	return !done.swallow, rewritten
}

func (s *clientSession) setTx(status byte) {
	switch was, is := s.tx != 'I', status != 'I'; {
	case is && !was:
		s.p.counters.inTransaction.Add(1)
	case was && !is:
		s.p.counters.inTransaction.Add(-1)
	}
	s.tx = status
}

// commandComplete looks for the two commands that take the prepared statements away.
func (s *clientSession) commandComplete(db *dbConn, body []byte) {
	if tag, _, _ := cString(body); string(tag) == "DEALLOCATE ALL" || string(tag) == "DISCARD ALL" {
		s.forgetAll(db)
	}
}

// clientsNames gives a statement its client's name in an error about it; nil if there is nothing to
// change.
func (s *clientSession) clientsNames(st *statement, frame []byte) []byte {
	if st == nil || st.clientName == "" {
		return nil
	}
	if code := errorCode(frame[headerLen:]); code != "26000" && code != "42P05" {
		return nil
	}
	return renameInError(frame, st.backendName, st.clientName)
}

// idle says whether the database connection is needed no more. mu is held.
func (s *clientSession) idle() bool {
	return s.due.quiet() && s.tx == 'I' && !s.pinned && !s.unsent && !s.ended
}

// detach ends the borrow. mu is held.
func (s *clientSession) detach() {
	s.leave(s.db)
	s.db.giveUp = s.due.doubt
	s.db = nil
	s.portals, s.dropping = nil, 0
	s.due = exchange{pendingQueue: s.due.pendingQueue} // that is empty, or the session is over
	s.setTx('I')
	s.p.counters.borrowed.Add(-1)
	if s.pinned {
		s.p.counters.pinned.Add(-1)
	}
}

// databaseLost is called when the borrowed connection has ended. cut says that a failover did it. A
// session that ends with it is marked before anybody can see that it has no connection: it would
// borrow another for the rest of what it was sent.
func (s *clientSession) databaseLost(db *dbConn, cut bool) {
	s.mu.Lock()
	if s.db != db {
		s.mu.Unlock()
		return
	}
	between := s.due.quiet() && s.tx == 'I' && !s.unsent
	s.detach()
	s.lostPin = cut && between
	over := !s.ended && !s.lostPin && s.end()
	s.wake()
	s.mu.Unlock()
	if !over {
		return
	}
	s.logf(slog.LevelInfo, "The database connection [dbConnection=%d] was lost.", db.id)
	if cut && (s.p.cfg.failoverReply == FailoverFatal || db.switchover) {
		s.sayGoodbye(failoverError())
		return
	}
	s.sayGoodbye(nil)
}

func failoverError() []byte { return errorResponse("FATAL", failoverCode, failoverText) }

const (
	failoverCode = "57P01"
	failoverText = "terminating connection due to administrator command"
)

// lostToFailover is what a pinned session hears about a failover, when it speaks.
func (s *clientSession) lostToFailover() error {
	if s.p.cfg.failoverReply == FailoverClose {
		s.hangUp(nil)
		return errHungUp
	}
	return &refusal{code: failoverCode, message: failoverText}
}
