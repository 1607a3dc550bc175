package proxytest

// What the database was sent and has not answered. An answer does not say to which message, so the
// proxy follows what the database does with each, in the order in which it does it
// (src/backend/tcop/postgres.c; src/backend/commands/copyfromparse.c for COPY):
//
//   - After an error in the extended protocol it skips everything up to the next Sync, a Query or a
//     FunctionCall too (ignore_till_sync).
//   - After an error in a Query, a FunctionCall or a Sync it skips nothing, and says ReadyForQuery.
//   - While it reads copy data it ignores Sync and Flush. CopyDone and CopyFail end that, and anything
//     but copy data ends the connection.
//   - Outside a COPY it ignores copy data, CopyDone and CopyFail.
//
// Messages are noted in the order in which they are sent, answers in the order in which they come.
// How the two interleave depends on who is faster, and must not matter.

// pending is a message that was sent to the database and is not answered yet.
type pending struct {
	kind     byte       // type of the message; 'c' marks the end of copy data
	swallow  bool       // the answer is not for the client
	ignored  bool       // a Sync in the middle of a COPY, which ignores it unless it has failed by then
	answered bool       // ReadyForQuery is all that can still come
	drops    bool       // DEALLOCATE ALL or DISCARD ALL
	st       *statement // the statement that is parsed, bound, described or closed
	prep     *prepared  // with an injected Parse, and what goes with a query or an injected Close
}

// exchange is the messages that a session sent to the database connection it borrows, and what the
// database makes of them.
type exchange struct {
	pendingQueue

	open    bool // extended-protocol messages were sent since the last Sync
	skip    bool // the database skips to a Sync that was not sent yet
	copying bool // the first message in the queue is a COPY FROM STDIN that runs
	copyIn  bool // the end of its data was not sent yet

	// doubt is that a ReadyForQuery more than is expected may come. A COPY failed that had a Sync
	// before its data: nobody can tell whether it was read by the COPY, which ignores it, or after it.
	// The connection must not go back to the pool then.
	doubt bool
}

// expect notes a message that is about to be sent. While skip is set, that can only be a Sync.
func (x *exchange) expect(e pending) {
	switch e.kind {
	case 'S':
		e.ignored = x.copyIn
		x.open, x.skip = x.open && e.ignored, false
	case 'c':
		if x.copyIn || x.len() == 0 { // the end of this COPY, or of none
			x.copyIn = false
			return
		}
	case 'Q', 'F':
		x.open, x.copyIn = false, false
	default:
		x.open, x.copyIn = true, false // in a COPY it would end the connection: so that has failed
	}
	x.push(e)
}

// answer notes an answer, and returns the message that is done with it, if one is. failed is called for
// a message that ended in an error, and for those that are skipped.
func (x *exchange) answer(kind byte, failed func(e pending, skipped bool)) (done pending, ok bool) {
	x.dropMarkers()
	head := x.first()
	if head == nil {
		return done, false
	}
	switch kind {
	case '1', '2', '3':
		ok = head.kind == "PBC"[kind-'1']
	case 'T', 'n':
		ok = head.kind == 'D'
	case 'C', 'I', 's', 'V':
		x.copyEnded()
		ok = head.kind == 'E'
		head.answered = true
	case 'G':
		x.copyStarted()
	case 'E':
		head.answered = true
		x.errorCame(failed)
	case 'Z':
		return x.readyCame(failed)
	}
	if ok {
		done = x.pop()
	}
	return done, ok
}

// dropMarkers removes marks of copy data that ended without having been asked for.
func (x *exchange) dropMarkers() {
	for head := x.first(); head != nil && head.kind == 'c'; head = x.first() {
		x.pop()
	}
}

// copyStarted follows a CopyInResponse: the database now reads copy data, up to an end that was sent
// already or not.
func (x *exchange) copyStarted() {
	x.copying, x.copyIn = true, true
	for i := x.head + 1; i < len(x.items) && x.copyIn; i++ {
		switch x.items[i].kind {
		case 'S':
			x.items[i].ignored = true
		case 'c':
			x.items = append(x.items[:i], x.items[i+1:]...)
			x.copyIn = false
		default:
			x.copyIn = false // see expect
		}
	}
	x.reopen()
}

// copyEnded follows the CommandComplete of a COPY: whatever was sent in the middle of it was ignored.
func (x *exchange) copyEnded() {
	if !x.copying {
		return
	}
	x.copying, x.copyIn = false, false
	x.dropIgnored(x.head + 1)
}

// dropIgnored removes the Syncs that may have been ignored, which are at i and behind.
func (x *exchange) dropIgnored(i int) (n int) {
	for i+n < len(x.items) && x.items[i+n].ignored {
		n++
	}
	x.items = append(x.items[:i], x.items[i+n:]...)
	return n
}

// reopen finds out anew whether there are messages behind the last Sync.
func (x *exchange) reopen() {
	x.open = false
	for _, e := range x.items[x.head:] {
		switch e.kind {
		case 'S':
			x.open = x.open && e.ignored
		case 'Q', 'F':
			x.open = false
		case 'c':
		default:
			x.open = true
		}
	}
}

// errorCame follows an ErrorResponse.
func (x *exchange) errorCame(failed func(e pending, skipped bool)) {
	x.copying, x.copyIn = false, false
	switch x.first().kind {
	case 'Q', 'F', 'S':
		return // ReadyForQuery is next
	}
	failed(x.pop(), false)
	if next := x.first(); next != nil && next.ignored {
		return // or not ignored: see readyCame
	}
	x.skipToSync(failed)
}

// skipToSync removes what the database skips.
func (x *exchange) skipToSync(failed func(e pending, skipped bool)) {
	for next := x.first(); next != nil; next = x.first() {
		if next.kind == 'S' {
			return
		}
		failed(x.pop(), true)
	}
	x.skip, x.open = true, true
}

// readyCame follows a ReadyForQuery.
func (x *exchange) readyCame(failed func(e pending, skipped bool)) (done pending, ok bool) {
	defer x.dropMarkers()
	switch head := x.first(); {
	case head.kind != 'S' && head.kind != 'Q' && head.kind != 'F', x.doubt && head.kind != 'S' && !head.answered:
		return done, false // one more than was expected
	case head.ignored:
		return x.readyAfterCopy(failed)
	}
	done = x.pop()
	if done.answered && x.dropIgnored(x.head) > 0 {
		x.doubt = true
	}
	return done, true
}

// readyAfterCopy follows the first ReadyForQuery after the error of a COPY that may or may not have
// read the Syncs at the head of the queue. If another Sync was sent behind the COPY it most likely
// answers that: COPY reads before it fails, as a rule.
func (x *exchange) readyAfterCopy(failed func(e pending, skipped bool)) (done pending, ok bool) {
	n := x.dropIgnored(x.head)
	x.doubt = x.doubt || n > 1
	for _, e := range x.items[x.head:] {
		if e.kind == 'S' {
			x.doubt = true
			x.skipToSync(failed)
			return x.pop(), true
		}
	}
	x.reopen()
	return done, false
}

// quiet says whether everything is answered, and the database waits for whatever may come.
func (x *exchange) quiet() bool { return x.len() == 0 && !x.open && !x.skip && !x.copyIn }

// pendingQueue is a queue that keeps its memory, unless that is much.
type pendingQueue struct {
	items []pending
	head  int
}

func (q *pendingQueue) len() int { return len(q.items) - q.head }

func (q *pendingQueue) push(e pending) { q.items = append(q.items, e) }

func (q *pendingQueue) first() *pending {
	if q.head == len(q.items) {
		return nil
	}
	return &q.items[q.head]
}

func (q *pendingQueue) pop() pending {
	e := q.items[q.head]
	q.items[q.head] = pending{}
	q.head++
	switch {
	case q.head == len(q.items):
		q.items, q.head = q.items[:0], 0
		if cap(q.items) > 64 {
			q.items = nil
		}
	case q.head > 64 && q.head > len(q.items)/2:
		n := copy(q.items, q.items[q.head:])
		clear(q.items[n:])
		q.items, q.head = q.items[:n], 0
	}
	return e
}
