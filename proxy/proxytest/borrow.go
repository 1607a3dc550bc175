package proxytest

// The moment a session needs a database connection: it borrows one, or its request is refused.

import (
	"context"
	"errors"
	"net"
	"time"
)

// errSkipped is for a message that the database skips, as it has come upon an error before it.
var errSkipped = errors.New("skipped up to the next Sync")

// attach makes sure that a database connection is borrowed, and returns it with mu held.
func (s *clientSession) attach() (*dbConn, error) {
	for {
		s.mu.Lock()
		switch {
		case s.hungUp:
			s.mu.Unlock()
			return nil, errHungUp
		case s.lostPin:
			s.mu.Unlock()
			return nil, s.lostToFailover()
		case s.due.skip:
			s.mu.Unlock()
			return nil, errSkipped
		case s.db != nil && s.due.len() < mostDue:
			return s.db, nil
		case s.db != nil:
			if err := s.awaitAnswer(); err != nil {
				return nil, err
			}
			continue
		}
		s.mu.Unlock()
		db, err := s.borrow()
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		if !s.hungUp && db.own(s) {
			s.db, s.sendingTo, s.tx = db, db, 'I'
			return db, nil
		}
		s.mu.Unlock() // it died in the pool: nothing was sent, take another
		s.p.counters.borrowed.Add(-1)
		s.p.pool.put(db)
	}
}

// attachFor is attach for a message that names a prepared statement. It waits until it is known what
// the name stands for, if that matters. It does not notice that the client goes away before an answer
// comes, or the connection to the database ends.
func (s *clientSession) attachFor(name string, matters bool) (*dbConn, error) {
	for {
		db, err := s.attach()
		if err != nil || !matters || !s.unsettled(name) {
			return db, err
		}
		if err := s.awaitAnswer(); err != nil {
			return nil, err
		}
	}
}

// mostDue is how many messages may wait for their answers. A client that sends more and reads nothing
// has to wait, as it would when the database's buffers are full. It is far more than PostgreSQL, which
// sends 8 kB at a time if it is not told to flush, ever owes a client that reads. A Sync may be one more:
// what was sent before it may be waiting for it.
const mostDue = 1 << 15

// awaitAnswer sends what there is to send and waits for the next answer. mu is held, and is not
// afterwards.
func (s *clientSession) awaitAnswer() error {
	answered := make(chan struct{})
	s.answered = answered
	s.mu.Unlock()
	if err := s.flush(); err != nil {
		return err
	}
	select {
	case <-answered:
		return nil
	case <-s.p.ctx.Done():
		return errHungUp
	}
}

// wake ends awaitAnswer. mu is held.
func (s *clientSession) wake() {
	if s.answered != nil {
		close(s.answered)
		s.answered = nil
	}
}

func (s *clientSession) borrow() (*dbConn, error) {
	pool, c := s.p.pool, &s.p.counters
	c.borrowRequests.Add(1)
	start := time.Now()
	db := pool.take(s.info.key)
	took := time.Since(start)
	if db == nil {
		var err error
		s.setWaiting(true, start)
		db, err = s.wait(start)
		took = time.Since(start)
		s.setWaiting(false, start.Add(took))
		if err != nil {
			return nil, s.borrowError(err)
		}
	}
	c.borrowed.Add(1)
	c.borrowTook(took)
	return db, nil
}

// setWaiting notes that the session begins to wait for a database connection, or has waited. It is idle
// for no longer when it is about to use what it got.
func (s *clientSession) setWaiting(waiting bool, now time.Time) {
	s.mu.Lock()
	s.waiting, s.idleSince = waiting, now
	s.mu.Unlock()
	if waiting {
		s.p.counters.borrowWaiting.Add(1)
	} else {
		s.p.counters.borrowWaiting.Add(-1)
	}
}

// wait queues for a database connection until the borrow timeout, or until the client goes away.
func (s *clientSession) wait(start time.Time) (*dbConn, error) {
	timeout := s.p.cfg.borrowTimeout
	if timeout <= 0 {
		return nil, errBorrowTimeout
	}
	if s.turn == nil {
		s.turn = &waiter{key: s.info.key, offers: make(chan offer, 2)}
	}
	s.turn.since, s.turn.looked = start, false
	if err := s.p.pool.enqueue(s.turn, false); err != nil {
		return nil, err
	}
	o := <-s.turn.offers
	if o.db != nil || o.err != nil {
		return o.db, o.err
	}
	ctx, stop := s.watchClient()
	defer stop()
	ctx, cancel := context.WithDeadlineCause(ctx, start.Add(timeout), errBorrowTimeout)
	defer cancel()
	return s.p.pool.wait(ctx, s.turn, !o.look, s.info)
}

// borrowError turns what ended the wait into what ends the request.
func (s *clientSession) borrowError(err error) error {
	var refused *databaseError
	switch {
	case errors.As(err, &refused):
		return &refusal{code: "XX000", message: "Request returned an error: " + refused.Error() + ".", cause: refused}
	case errors.Is(err, errNoReaders):
		return &refusal{code: "XX000", message: noReadersText, cause: err}
	case errors.Is(err, errBorrowTimeout):
		s.p.counters.borrowTimeouts.Add(1)
	case errors.Is(err, errClientClosed):
		s.p.counters.borrowAborted.Add(1)
	case errors.Is(err, context.Canceled), errors.Is(err, errPoolClosed):
		return errHungUp
	}
	return err
}

// watchClient makes the session notice that its client goes away while it waits for a database
// connection: the context it returns ends then. It reads ahead to do so, into what is free of the
// window, and must be stopped before anyone else reads.
func (s *clientSession) watchClient() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(s.p.ctx)
	done := make(chan struct{})
	s.p.wg.Go(func() {
		defer close(done)
		for {
			if s.in.w == len(s.in.buf) {
				s.in.grow()
			}
			if s.in.w == len(s.in.buf) {
				return
			}
			n, err := s.conn.Read(s.in.buf[s.in.w:])
			s.in.w += n
			var netErr net.Error
			switch {
			case errors.As(err, &netErr) && netErr.Timeout():
				if s.isHungUp() {
					cancel(errHungUp)
				}
				return
			case err != nil, s.terminateAhead():
				cancel(errClientClosed)
				return
			}
		}
	})
	return ctx, func() {
		_ = s.raw.SetReadDeadline(time.Unix(1, 0))
		<-done
		_ = s.raw.SetReadDeadline(time.Time{})
		cancel(nil)
	}
}

// terminateAhead says whether the client has said goodbye behind what it asked for.
func (s *clientSession) terminateAhead() bool {
	for b := s.in.bytes(); len(b) >= headerLen; {
		kind, body, ok := parseHeader(b)
		if kind == 'X' || !ok {
			return true
		}
		b = b[min(headerLen+body, len(b)):]
	}
	return false
}

const borrowTimeoutText = "Timed-out waiting to acquire database connection."

// refuseRequest answers a request that got no database connection. The message is still unread.
func (s *clientSession) refuseRequest(err error, kind byte, body int) error {
	switch {
	case errors.Is(err, errSkipped):
		return s.discard(headerLen + body)
	case !errors.Is(err, errBorrowTimeout):
		return err
	}
	switch s.p.cfg.borrowReply {
	case BorrowTimeoutClose:
		s.hangUp(errorResponse("ERROR", "08000", borrowTimeoutText))
		return errHungUp
	case BorrowTimeoutError:
		reply := errorResponse("ERROR", "08000", borrowTimeoutText)
		if kind == 'Q' || kind == 'F' {
			reply = append(reply, readyForQuery...)
		} else {
			s.skipLocal = true
		}
		if err := s.reply(reply); err != nil {
			return err
		}
		return s.discard(headerLen + body)
	case BorrowTimeoutFatal:
	}
	return &refusal{code: "08000", message: borrowTimeoutText, cause: err}
}
