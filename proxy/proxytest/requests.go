package proxytest

// What a session does with each type of message from its client. Every handler finds the message's
// header in the window, borrows a connection if the message needs one, notes in the queue that an
// answer is due, and passes the message on.

import (
	"bytes"
)

var readyForQuery = []byte{'Z', 0, 0, 0, 5, 'I'}

var errMalformed = &refusal{code: "08P01", message: "invalid string in message"}

func (s *clientSession) handleQuery(body int) error {
	s.p.counters.queries.Add(1)
	s.p.counters.statements.Add(1)
	head := min(body, maxStatementText+2)
	if err := s.need(headerLen + head); err != nil {
		return err
	}
	text := bytes.TrimSuffix(s.in.bytes()[headerLen:headerLen+head], []byte{0})
	v := s.judge(text)
	db, err := s.attach()
	if err != nil {
		return s.refuseRequest(err, 'Q', body)
	}
	pin := s.pin(db, v, false)
	e := s.undefine(db)
	e.drops = s.drops(v)
	s.due.expect(e)
	s.group++
	s.mu.Unlock()
	s.report(pin)
	return s.pass(headerLen + body)
}

func (s *clientSession) handleFunctionCall(body int) error {
	if _, err := s.attach(); err != nil {
		return s.refuseRequest(err, 'F', body)
	}
	s.due.expect(pending{kind: 'F'})
	s.group++
	s.mu.Unlock()
	return s.pass(headerLen + body)
}

// handleParse keeps the statement, so that it can be prepared again elsewhere, and sends it under a
// name that no other client uses.
func (s *clientSession) handleParse(body int) error {
	head := min(body, clientWindow-headerLen)
	if err := s.need(headerLen + head); err != nil {
		return err
	}
	name, rest, ok := cString(s.in.bytes()[headerLen : headerLen+head])
	text, _, whole := cString(rest)
	if !ok || (!whole && head == body) {
		return errMalformed
	}
	st := &statement{id: s.p.nextStatement.Add(1), clientName: string(name)}
	if !whole {
		text = rest // over the limit anyway
	}
	st.verdict = s.judge(text)
	s.announce(st.verdict)
	if st.clientName != "" {
		s.p.counters.namedStatements.Add(1)
	}
	db, err := s.attachFor(st.clientName, st.clientName != "") // unnamed, it replaces what was there
	if err != nil {
		return s.refuseRequest(err, 'P', body)
	}
	keep := s.textBytes+body+statementSize <= maxKeptText
	var pin *pinning
	if !keep && !s.pinned {
		// It cannot follow the session to another connection, so the session must stay.
		pin = s.pin(db, s.judgedAs(ruleLongText, string(text)), true)
	}
	s.define(db, st, keep)
	s.due.expect(pending{kind: 'P', st: st})
	s.mu.Unlock()
	s.report(pin)

	s.in.r += headerLen + len(name) + 1
	return s.sendParse(st, body-len(name)-1, keep)
}

// sendParse sends a Parse of which tail bytes, all but the name, are still to come from the client.
func (s *clientSession) sendParse(st *statement, tail int, keep bool) error {
	s.out = appendHeader(s.out, 'P', len(st.backendName)+1+tail)
	s.out = append(append(s.out, st.backendName...), 0)
	if !keep {
		return s.pass(tail)
	}
	kept := make([]byte, 0, min(tail, flushSize)) // what it claims to be long, it has yet to send
	for len(kept) < tail {
		if s.in.len() == 0 {
			if err := s.fill(); err != nil {
				return err
			}
		}
		k := min(tail-len(kept), s.in.len())
		kept = append(kept, s.in.bytes()[:k]...)
		s.in.r += k
	}
	s.out = append(s.out, kept...)
	s.mu.Lock()
	if !st.dead { // an earlier error may have had it skipped
		st.text = kept
		s.textBytes += st.size()
	}
	s.mu.Unlock()
	return nil
}

func (s *clientSession) handleBind(body int) error {
	head := min(body, maxSmallMessage)
	if err := s.need(headerLen + head); err != nil {
		return err
	}
	portal, rest, ok := cString(s.in.bytes()[headerLen : headerLen+head])
	name, _, ok2 := cString(rest)
	if !ok || !ok2 {
		return errMalformed
	}
	db, err := s.attachFor(string(name), true)
	if err != nil {
		return s.refuseRequest(err, 'B', body)
	}
	st := s.named(string(name))
	s.prepare(db, st, string(name))
	backendName := name
	if st != nil {
		backendName = []byte(st.backendName)
	}
	s.bindPortal(string(portal), st)
	s.due.expect(pending{kind: 'B', st: st})
	s.mu.Unlock()

	s.out = appendHeader(s.out, 'B', body-len(name)+len(backendName))
	s.out = append(append(s.out, portal...), 0)
	s.out = append(append(s.out, backendName...), 0)
	done := len(portal) + len(name) + 2
	s.in.r += headerLen + done
	return s.pass(body - done)
}

func (s *clientSession) handleDescribeOrClose(kind byte, body int) error {
	if err := s.need(headerLen + body); err != nil {
		return err
	}
	frame := s.in.bytes()[:headerLen+body]
	if body < 2 {
		return errMalformed
	}
	name, _, ok := cString(frame[headerLen+1:])
	if !ok {
		return errMalformed
	}
	db, err := s.attachFor(string(name), frame[headerLen] == 'S')
	if err != nil {
		return s.refuseRequest(err, kind, body)
	}
	entry := pending{kind: kind}
	backendName := name
	if frame[headerLen] == 'S' {
		entry.st = s.named(string(name))
		if kind == 'D' {
			s.prepare(db, entry.st, string(name))
		}
		if entry.st != nil {
			backendName = []byte(entry.st.backendName)
			if kind == 'C' {
				entry.st.closing, entry.st.group = true, s.group
			}
		}
	}
	s.due.expect(entry)
	s.mu.Unlock()
	s.out = appendHeader(s.out, kind, 2+len(backendName))
	s.out = append(append(append(s.out, frame[headerLen]), backendName...), 0)
	s.in.r += headerLen + body
	return nil
}

// handleExecute is where a prepared statement pins: not before it runs.
func (s *clientSession) handleExecute(body int) error {
	if err := s.need(headerLen + body); err != nil {
		return err
	}
	portal, _, ok := cString(s.in.bytes()[headerLen : headerLen+body])
	if !ok {
		return errMalformed
	}
	s.p.counters.statements.Add(1)
	db, err := s.attach()
	if err != nil {
		return s.refuseRequest(err, 'E', body)
	}
	var pin *pinning
	e := pending{kind: 'E'}
	if len(s.portals) > 0 {
		if st := s.portals[string(portal)]; st != nil {
			pin = s.pin(db, st.verdict, true)
			e.drops = s.drops(st.verdict)
		}
	}
	s.due.expect(e)
	s.mu.Unlock()
	s.report(pin)
	return s.pass(headerLen + body)
}

// handleSync answers a Sync with nothing before it itself; it would be a pity to borrow for that.
func (s *clientSession) handleSync(body int) error {
	s.skipLocal = false
	s.mu.Lock()
	for !s.hungUp && s.due.len() > mostDue {
		if err := s.awaitAnswer(); err != nil {
			return err
		}
		s.mu.Lock()
	}
	switch {
	case s.hungUp:
		s.mu.Unlock()
		return errHungUp
	case s.lostPin:
		s.mu.Unlock()
		return s.lostToFailover()
	case s.db == nil:
		s.mu.Unlock()
		if err := s.discard(headerLen + body); err != nil {
			return err
		}
		return s.reply(readyForQuery)
	}
	s.due.expect(pending{kind: 'S'})
	s.group++
	s.mu.Unlock()
	return s.pass(headerLen + body)
}

// handleUnanswered passes on Flush and the copy messages, which have no answer of their own. Without
// a database connection there is nobody to tell: they are left over from a COPY that failed.
func (s *clientSession) handleUnanswered(kind byte, body int) error {
	s.mu.Lock()
	if s.db == nil || s.due.skip {
		s.mu.Unlock()
		return s.discard(headerLen + body)
	}
	if kind == 'c' || kind == 'f' {
		s.due.expect(pending{kind: 'c'})
	}
	s.holdBack()
	s.mu.Unlock()
	return s.pass(headerLen + body)
}

// holdBack keeps the database connection until what is about to be sent has been. mu is held.
func (s *clientSession) holdBack() { s.unsent, s.heldBack = true, true }
