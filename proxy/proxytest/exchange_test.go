package proxytest

// What the proxy thinks is due, held against a model of the database, in every order in which what a
// client sends and what the database answers can cross.

import (
	"slices"
	"strings"
	"testing"
)

// A client's messages are written as letters:
//
//	P B D C E S Q F H d c f   a message of this type that succeeds
//	p                         a Parse that fails, as any of P B D C E can
//	q h s                     a Query, a FunctionCall, a Sync that fails
//	G K                       an Execute, a Query that is a COPY FROM STDIN
//	g k                       one that fails between its CopyInResponse and the first look at the data
//	x                         copy data that the COPY rejects
//	.                         not a message: the client waits for all the answers it can get
const everyMessage = "PBDCESQFHdcfpqhsGKgkx"

// kindOf is the type of the message that the letter stands for.
func kindOf(letter byte) byte {
	switch letter {
	case 'G', 'g':
		return 'E'
	case 'K', 'k', 'q':
		return 'Q'
	case 'p':
		return 'P'
	case 'h':
		return 'F'
	case 's':
		return 'S'
	case 'x':
		return 'd'
	}
	return letter
}

// dueAnswer is an answer that is on its way.
type dueAnswer struct {
	kind byte
	to   int // the message, by its number
}

// modelDatabase is PostgreSQL's main loop, as far as it matters which message is answered with what
// (PostgresMain, SocketBackend and CopyGetData).
type modelDatabase struct {
	skip    bool // ignore_till_sync
	open    bool // a transaction that Sync commits
	copying byte // 'E' or 'Q', the message that began a COPY
	of      int  // the number of that
	lost    bool // the connection is given up
}

func (m *modelDatabase) read(letter byte, n int) []dueAnswer {
	if m.copying != 0 {
		return m.readCopy(letter)
	}
	if m.skip && kindOf(letter) != 'S' {
		return nil
	}
	fails := letter == 's' && m.open && !m.skip
	m.open = strings.IndexByte("PBDCEG", letter) >= 0 || m.open && strings.IndexByte("Hdcfx", letter) >= 0
	switch letter {
	case 'P':
		return []dueAnswer{{'1', n}}
	case 'B':
		return []dueAnswer{{'2', n}}
	case 'C':
		return []dueAnswer{{'3', n}}
	case 'D':
		return []dueAnswer{{'n', n}}
	case 'E':
		return []dueAnswer{{'C', n}}
	case 'p':
		m.skip = true
		return []dueAnswer{{'E', n}}
	case 'Q':
		return []dueAnswer{{'C', n}, {'Z', n}}
	case 'F':
		return []dueAnswer{{'V', n}, {'Z', n}}
	case 'q', 'h':
		return []dueAnswer{{'E', n}, {'Z', n}}
	case 'S', 's':
		m.skip = false
		if fails {
			return []dueAnswer{{'E', n}, {'Z', n}}
		}
		return []dueAnswer{{'Z', n}}
	case 'G', 'K':
		m.copying, m.of = kindOf(letter), n
		return []dueAnswer{{'G', n}}
	case 'g':
		m.skip = true
		return []dueAnswer{{'G', n}, {'E', n}}
	case 'k':
		return []dueAnswer{{'G', n}, {'E', n}, {'Z', n}}
	}
	return nil
}

func (m *modelDatabase) readCopy(letter byte) (out []dueAnswer) {
	simple := m.copying == 'Q'
	switch letter {
	case 'd', 'H', 'S', 's':
		return nil
	case 'c':
		out = []dueAnswer{{'C', m.of}}
	case 'f', 'x':
		m.skip, m.open = !simple, false
		out = []dueAnswer{{'E', m.of}}
	default:
		m.lost = true
		return nil
	}
	m.copying = 0
	if simple {
		out = append(out, dueAnswer{'Z', m.of})
	}
	return out
}

// crossing is one order of events, up to some point.
type crossing struct {
	t        *testing.T
	sent     []byte
	got      []dueAnswer
	proxy    exchange
	database modelDatabase // what it has read
	coming   []dueAnswer
	log      string
}

func (c *crossing) clone() *crossing {
	other := *c
	other.sent, other.got, other.coming = slices.Clone(c.sent), slices.Clone(c.got), slices.Clone(c.coming)
	other.proxy.items = slices.Clone(c.proxy.items)
	return &other
}

// send sends the next message, as the session does.
func (c *crossing) send(letter byte) {
	n := len(c.sent)
	c.sent = append(c.sent, letter)
	kind := kindOf(letter)
	if c.proxy.skip && kind != 'S' {
		c.log += " (" + string(letter) + ")"
		return
	}
	c.log += " " + string(letter)
	switch kind {
	case 'H', 'd':
	case 'c', 'f':
		c.proxy.expect(pending{kind: 'c'})
	default:
		c.proxy.expect(pending{kind: kind, st: &statement{id: uint64(n)}})
	}
	c.coming = append(c.coming, c.database.read(letter, n)...)
}

// receive takes the next answer.
func (c *crossing) receive() {
	a := c.coming[0]
	c.coming = c.coming[1:]
	c.got = append(c.got, a)
	c.log += " <" + string(a.kind)
	var failed []int
	done, ok := c.proxy.answer(a.kind, func(e pending, skipped bool) {
		if !skipped {
			failed = append(failed, int(e.st.id))
		}
	})
	if c.proxy.doubt {
		return // held against the database by idle alone
	}
	if ok && (done.st == nil || int(done.st.id) != a.to) {
		c.t.Fatalf("%s: taken for the answer to %q, message %d", c.log, done.kind, done.st.id)
	}
	if len(failed) > 1 || len(failed) == 1 && (a.kind != 'E' || failed[0] != a.to) {
		c.t.Fatalf("%s: failed %v", c.log, failed)
	}
}

// check looks at both sides.
func (c *crossing) check() {
	resting := len(c.coming) == 0 && !c.database.skip && c.database.copying == 0 && !c.database.open
	switch idle := c.proxy.quiet(); {
	case idle && !c.proxy.doubt && !resting:
		c.t.Fatalf("%s: the connection could go to another, but the database is not done: %+v, coming %v", c.log, c.database, c.coming)
	case idle && c.proxy.doubt && (c.database.skip || c.database.copying != 0):
		c.t.Fatalf("%s: the connection is given up in the middle of something: %+v", c.log, c.database)
	case resting && !idle:
		c.t.Fatalf("%s: the database is done, but the connection is kept: %+v", c.log, c.proxy)
	}
}

// cross goes on in every way, with up to depth messages more, from letters or in the order given. It
// counts the ways, and those of them that end in doubt.
func (c *crossing) cross(letters string, order bool, depth int) (ways, doubt int) {
	if c.database.lost {
		return 0, 0
	}
	c.check()
	try := func(next *crossing, letters string, depth int) {
		w, d := next.cross(letters, order, depth)
		ways, doubt = ways+w, doubt+d
	}
	if len(c.coming) > 0 {
		next := c.clone()
		next.receive()
		try(next, letters, depth)
	}
	switch {
	case depth > 0 && !order:
		for _, letter := range []byte(letters) {
			next := c.clone()
			next.send(letter)
			try(next, letters, depth-1)
		}
	case depth > 0 && letters[0] != '.':
		next := c.clone()
		next.send(letters[0])
		try(next, letters[1:], depth-1)
	case len(c.coming) > 0:
	case depth > 0:
		try(c, letters[1:], depth-1)
	case c.proxy.doubt:
		return 1, 1
	default:
		c.complete()
		return 1, 0
	}
	return ways, doubt
}

// complete compares what the client got with what the database says if nobody is in between.
func (c *crossing) complete() {
	var m modelDatabase
	var want []dueAnswer
	for n, letter := range c.sent {
		want = append(want, m.read(letter, n)...)
	}
	if !slices.Equal(c.got, want) {
		c.t.Fatalf("%s: got %v, want %v", c.log, c.got, want)
	}
}

// TestExchangeEveryOrder tries all short conversations.
func TestExchangeEveryOrder(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		letters string
		depth   int
	}{{everyMessage, 3}, {"PpEQFS", 5}, {"GKxdcfSQ", 4}} {
		ways, doubt := (&crossing{t: t}).cross(c.letters, false, c.depth)
		t.Logf("%d orders of up to %d of %s, %d of them end in doubt", ways, c.depth, c.letters, doubt)
		if ways == 0 || doubt > ways/20 {
			t.Errorf("%d orders, %d of them end in doubt", ways, doubt)
		}
	}
}

// TestExchangeOrders tries longer ones, each in every order of sending and receiving.
func TestExchangeOrders(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, sent string
		doubt      bool // whether it may end in doubt
	}{
		{"a Query after an error is skipped", "SPpCcQSFS", false},
		{"a FunctionCall after an error is skipped", "pFSFS", false},
		{"a simple query's error skips nothing", "qPQhPSE", false},
		{"a Sync that fails", "PEsPES", false},
		{"an extended COPY with an early Sync, as libpq does it", "PBGS.dcSQ", false},
		{"and one whose data is bad", "PBGS.xcSQ", true},
		{"and one that the client gives up", "PBGS.dfSQ", true},
		{"and one that fails before it reads", "PBgS.QPES", false},
		{"and that before the client knows", "PBgSdcSQ", true},
		{"an extended COPY without an early Sync", "PBGdxcSQ", false},
		{"a pipelined COPY", "PBGdcPESQ", false},
		{"a Sync between copy data", "KdSdcQPES", false},
		{"a Sync between copy data that is bad", "KSxcQQS", true},
		{"COPY after COPY", "KdcKfKxcQ", false},
		{"copy messages outside of a COPY", "cdQfPcESdQ", false},
		{"copy messages of a COPY that failed", "GxdcdcPSQ", false},
		{"a skipped COPY", "pGdcSGdcS", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ways, doubt := (&crossing{t: t}).cross(c.sent, true, len(c.sent))
			t.Logf("%d orders, %d of them end in doubt", ways, doubt)
			if ways == 0 || c.doubt != (doubt > 0) {
				t.Errorf("%d orders, %d of them end in doubt", ways, doubt)
			}
		})
	}
}
