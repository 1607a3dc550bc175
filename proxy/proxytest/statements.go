package proxytest

// Prepared statements that follow their client. Each statement has a name on the database that is
// its own, so that clients who use the same names do not meet; a database connection that does not
// have a statement when it is needed is sent the Parse again. This is what lets the extended
// protocol be multiplexed
// (https://aws.amazon.com/blogs/database/amazon-rds-proxy-multiplexing-support-for-postgresql-extended-query-protocol/).

import (
	"slices"
	"strconv"
	"strings"
)

const (
	maxKeptText           = 16 << 20 // bytes kept of a session's statements
	statementSize         = 512      // what a statement costs beside its text, generously
	maxPreparedStatements = 1024     // kept on a database connection
)

// statement is one Parse of a client.
type statement struct {
	id          uint64
	clientName  string
	backendName string
	text        []byte     // what follows the name in a Parse message; nil if it is not kept
	verdict     verdict    // whether it pins when it runs
	confirmed   bool       // ParseComplete has come
	closing     bool       // a Close is under way
	dead        bool       // its Parse failed, or it is closed
	passedOn    bool       // the database alone knows it
	none        bool       // a simple query is under way, which takes the unnamed statement away
	group       uint64     // the Sync group of the Parse, Close or query that is under way
	prev        *statement // what the name stood for before, until the Parse is confirmed
}

// size is what the statement takes of maxKeptText.
func (st *statement) size() int {
	if st.text == nil {
		return 0
	}
	return len(st.text) + statementSize
}

// prepared is a statement as a database connection has it, or is about to.
type prepared struct {
	id        uint64
	group     uint64 // the Sync group of the Parse, or of an injected Close
	confirmed bool
	closing   bool
	used      uint64
}

// define notes that a Parse is about to be sent. mu is held.
//
// A name that is taken is sent under the database's name of the statement that has it: the database
// then refuses it with 42P05 exactly if PostgreSQL would.
func (s *clientSession) define(db *dbConn, st *statement, keep bool) {
	old := s.names[st.clientName]
	switch {
	case st.clientName == "":
		st.backendName = ""
	case old != nil:
		s.prepare(db, old, st.clientName)
		st.backendName = old.backendName
	case s.pinned: // nobody else uses this connection, and SQL may use the name
		st.backendName = st.clientName
		if !keep { // the session stays, with as many statements as the database bears
			st.passedOn = true
			return
		}
	default:
		st.backendName = s.p.statementPrefix + strconv.FormatUint(st.id, 36)
		s.evictPrepared(db)
	}
	st.prev, st.group = old, s.group
	s.names[st.clientName] = st
}

// undefine is the entry for a simple query. The database drops its unnamed statement at the start of
// one, unless it skips it. mu is held.
func (s *clientSession) undefine(db *dbConn) pending {
	e := pending{kind: 'Q', prep: db.prepared[""]}
	if old := s.names[""]; old != nil {
		e.st = &statement{none: true, prev: old, group: s.group}
		s.names[""] = e.st
	}
	return e
}

// undefined notes the end of a simple query. mu is held.
func (s *clientSession) undefined(db *dbConn, entry pending) {
	if entry.prep != nil && db.prepared[""] == entry.prep {
		delete(db.prepared, "")
	}
	s.killAll(entry.st)
}

// unsettled says whether it depends on answers that are still due what a name stands for. In one Sync
// group it does not: what follows a message that failed is skipped. mu is held.
func (s *clientSession) unsettled(name string) bool {
	st := s.names[name]
	// In the middle of a COPY, and behind one that failed, nothing may come until the client goes on.
	if head := s.due.first(); st == nil || head == nil || head.ignored || s.due.copyIn {
		return false
	}
	return st.group != s.group && (st.none || st.closing || !st.confirmed) ||
		name != "" && s.dropping > 0 && s.dropGroup != s.group
}

// named is the statement that a name stands for, or nil. mu is held.
func (s *clientSession) named(name string) *statement {
	if st := s.names[name]; st != nil && !st.none {
		return st
	}
	return nil
}

// prepare makes sure that db has the statement by the time it reads what is sent next. mu is held.
func (s *clientSession) prepare(db *dbConn, st *statement, name string) {
	if st == nil {
		if p := db.prepared[""]; name == "" && p != nil && (!p.closing || p.group != s.group) { // somebody else's
			p.closing, p.group = true, s.group
			s.inject(pending{kind: 'C', swallow: true, prep: p}, 'C', "S", "", nil)
		}
		return
	}
	if !st.confirmed || st.closing || st.text == nil || s.dropping > 0 && st.clientName != "" {
		return // it is on this connection or nowhere
	}
	p := db.prepared[st.backendName]
	db.useCount++
	if p != nil && p.id == st.id && (p.confirmed || p.group == s.group) {
		p.used = db.useCount
		return
	}
	s.evictPrepared(db)
	p = &prepared{id: st.id, group: s.group, used: db.useCount}
	db.prepared[st.backendName] = p
	// An earlier attempt, in a group that is not answered yet, may have succeeded or not: a Close
	// first makes the Parse right in both cases.
	if st.backendName != "" {
		s.inject(pending{kind: 'C', swallow: true}, 'C', "S", st.backendName, nil)
	}
	s.inject(pending{kind: 'P', swallow: true, st: st, prep: p}, 'P', "", st.backendName, st.text)
	s.p.counters.reparsed.Add(1)
}

// inject sends a message of the proxy's own, whose answer is not for the client. mu is held.
func (s *clientSession) inject(entry pending, kind byte, prefix, name string, rest []byte) {
	s.due.expect(entry)
	s.out = appendHeader(s.out, kind, len(prefix)+len(name)+1+len(rest))
	s.out = append(append(append(s.out, prefix...), name...), 0)
	s.out = append(s.out, rest...)
}

// evictPrepared makes room on a database connection that has too many statements: the eighth of
// them that was not used for longest is closed. mu is held.
func (s *clientSession) evictPrepared(db *dbConn) {
	if len(db.prepared) < maxPreparedStatements {
		return
	}
	uses := make([]uint64, 0, len(db.prepared))
	for _, p := range db.prepared {
		uses = append(uses, p.used)
	}
	slices.Sort(uses)
	limit := uses[len(uses)/8]
	for name, p := range db.prepared {
		if name != "" && p.confirmed && p.used <= limit {
			delete(db.prepared, name)
			s.inject(pending{kind: 'C', swallow: true}, 'C', "S", name, nil)
		}
	}
}

// parsed notes a ParseComplete. mu is held.
func (s *clientSession) parsed(db *dbConn, entry pending) {
	if entry.prep != nil {
		entry.prep.confirmed = true
		return
	}
	st := entry.st
	if st == nil || st.dead || st.passedOn {
		return
	}
	st.confirmed = true
	s.killAll(st.prev)
	st.prev = nil
	db.useCount++
	db.prepared[st.backendName] = &prepared{id: st.id, group: s.group, confirmed: true, used: db.useCount}
}

// closed notes a CloseComplete. mu is held.
func (s *clientSession) closed(db *dbConn, entry pending) {
	if entry.prep != nil && db.prepared[""] == entry.prep {
		delete(db.prepared, "")
	}
	if entry.swallow || entry.st == nil {
		return
	}
	delete(db.prepared, entry.st.backendName)
	s.killAll(entry.st)
}

// failed notes that a message was answered with an error, or skipped after one. mu is held.
func (s *clientSession) failed(db *dbConn, entry pending, skipped bool) {
	st := entry.st
	if entry.drops {
		s.dropping--
	}
	switch {
	case entry.kind == 'C' && st != nil:
		st.closing = false
	case entry.kind == 'C' && entry.prep != nil && skipped:
		db.prepared[""] = &prepared{} // it is still there, whoever's it is
	case entry.kind == 'Q' && st != nil: // skipped
		s.kill(st)
	case entry.kind != 'P':
	case entry.prep != nil:
		if db.prepared[st.backendName] == entry.prep {
			delete(db.prepared, st.backendName)
			if st.backendName == "" && skipped {
				db.prepared[""] = &prepared{} // one of before may be there
			}
		}
	default:
		if st.clientName == "" && !skipped { // the old one went before the new one failed
			delete(db.prepared, "")
			s.killAll(st.prev)
		}
		s.kill(st)
	}
}

// kill ends a statement's life. Its name goes back to the one before it, if that is alive. mu is held.
func (s *clientSession) kill(st *statement) {
	if st.dead {
		return
	}
	st.dead = true
	s.textBytes -= st.size()
	st.text = nil
	if s.names[st.clientName] != st {
		return
	}
	prev := st.prev
	for prev != nil && prev.dead {
		prev = prev.prev
	}
	if prev == nil {
		delete(s.names, st.clientName)
		return
	}
	s.names[st.clientName] = prev
}

// killAll ends it for a statement and for those that its name stood for before. mu is held.
func (s *clientSession) killAll(st *statement) {
	for ; st != nil; st = st.prev {
		s.kill(st)
	}
}

// drops says whether a text drops all statements that have a name, and notes that it is about to be run.
// mu is held.
func (s *clientSession) drops(v verdict) bool {
	switch strings.TrimRight(v.digest, " ;") {
	case "deallocate all", "deallocate prepare all", "discard all":
	default:
		return false
	}
	s.dropping++
	s.dropGroup = s.group
	return true
}

// forgetAll follows a DEALLOCATE ALL or DISCARD ALL, which take all that have a name and were parsed
// before. The session is pinned. mu is held.
func (s *clientSession) forgetAll(db *dbConn) {
	for name := range db.prepared {
		if name != "" {
			delete(db.prepared, name)
		}
	}
	for name, st := range s.names {
		for ; name != "" && st != nil; st = st.prev {
			if st.confirmed {
				s.kill(st)
			}
		}
	}
}

// bindPortal remembers portals of statements that pin when they run, and of all in strict mode. mu is
// held.
func (s *clientSession) bindPortal(portal string, st *statement) {
	switch {
	case st != nil && (st.verdict.rule != noRule || s.p.cfg.strict):
		if s.portals == nil {
			s.portals = map[string]*statement{}
		}
		s.portals[portal] = st
	case len(s.portals) > 0:
		delete(s.portals, portal)
	}
}
