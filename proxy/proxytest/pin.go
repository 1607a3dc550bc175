package proxytest

// Pins: when a session is tied to its database connection, who did it, and the record of that. RDS
// Proxy decides by the statement (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-pinning.html),
// so a change of session state inside a function goes unnoticed, here as there.

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/aurorapgx/aurorapgx/observe"
)

// A Pin tells that a client session was tied to a database connection for the rest of its life.
type Pin struct {
	ClientConnection   uint64    // the number of the client connection, as in the log
	DatabaseConnection uint64    // the number of the database connection, as in the log
	RemoteAddr         string    // where the client is
	User               string    // the database user
	Database           string    // the database
	Rule               string    // the name of the rule, see Rules
	Reason             string    // why, in the words of RDS Proxy's log as far as those are known
	Digest             string    // the statement, lower-cased, its constants replaced by $1, $2, …
	Caller             Caller    // where the statement came from, as far as that is known
	Prepared           bool      // the statement came with the extended protocol, and pinned at Execute
	Time               time.Time // when
}

// verdict is what a text means for the session that runs it. Only a rule that pins is in it. The rest
// is for that, and for strict mode.
type verdict struct {
	rule   ruleID
	digest string
	text   string   // the statement, or as much of it as is needed to recognise it
	tags   []string // what its comments say about the caller
}

// judge decides on a text. It runs on the session's goroutine.
func (s *clientSession) judge(text []byte) verdict {
	sql := string(text)
	rule := s.textRules().judge(sql)
	if rule == noRule && !s.p.cfg.strict {
		return verdict{}
	}
	return s.judgedAs(rule, sql)
}

func (s *clientSession) judgedAs(rule ruleID, sql string) verdict {
	sql = sql[:min(len(sql), maxStatementText+1)]
	return verdict{rule: rule, digest: s.textRules().digest(sql), text: sql, tags: commentTags(sql)}
}

// textRules are the rules for what the client sends. Whether a backslash escapes is asked once: a
// session that changes it is pinned.
func (s *clientSession) textRules() pinRules {
	if !s.rulesKnown {
		statuses := s.p.pool.knownStatuses(s.info.key)
		s.rules = pinRules{setLocalPins: s.p.cfg.setLocalPins, escapes: statuses["standard_conforming_strings"] == "off"}
		s.rulesKnown = statuses != nil
	}
	return s.rules
}

// knownStatuses is what the database reported to sessions like the one with this key, or nil.
func (cp *connPool) knownStatuses(key string) map[string]string {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	return cp.statuses[key]
}

// announce logs at Parse that a statement will pin when it runs.
func (s *clientSession) announce(v verdict) {
	if v.rule != noRule {
		s.logf(slog.LevelInfo, "If this prepared statement runs, the client session will be pinned to the database "+
			"connection. Reason: %s Digest: %q.", rules[v.rule].Reason, v.digest)
	}
}

// pinning is a pin to report, once mu is free.
type pinning struct {
	verdict

	db       uint64
	prepared bool
	again    bool // the session was pinned already
}

// pin ties the session to db if there is a reason to, and returns what to report about that. mu is
// held.
func (s *clientSession) pin(db *dbConn, v verdict, isPrepared bool) *pinning {
	s.ran(v)
	if v.rule == noRule {
		return nil
	}
	p := &pinning{verdict: v, db: db.id, prepared: isPrepared, again: s.pinned}
	if !s.pinned {
		s.pinned = true
		s.p.counters.pinned.Add(1)
	}
	return p
}

// report records a pin, and logs it. A statement that would have pinned a session that is pinned
// already is no pin to RDS Proxy, but as good a reason for RequireNoPins.
func (s *clientSession) report(p *pinning) {
	if p == nil {
		return
	}
	pin := Pin{
		ClientConnection: s.id, DatabaseConnection: p.db, RemoteAddr: s.remote, User: s.info.user, Database: s.info.database,
		Rule: rules[p.rule].Name, Reason: rules[p.rule].Reason, Digest: p.digest, Prepared: p.prepared, Time: time.Now(),
		Caller: s.caller(p.verdict),
	}
	s.p.pins.add(pin, p.again)
	if !p.again {
		if o := s.p.cfg.observer; o != nil {
			o.Observe(context.Background(), pin.event())
		}
		s.logf(slog.LevelWarn, "The client session was pinned to the database connection [dbConnection=%d] for the "+
			"remainder of the session. The proxy can't reuse this connection until the session ends. Reason: %s Digest: %q.",
			pin.DatabaseConnection, pin.Reason, pin.Digest)
	}
}

// event is the pin as observers see it.
func (p Pin) event() observe.Pinned {
	return observe.Pinned{
		ClientConnection: p.ClientConnection, DatabaseConnection: p.DatabaseConnection, User: p.User, Database: p.Database,
		Rule: p.Rule, Reason: p.Reason, Digest: p.Digest, Caller: p.Caller.String(),
	}
}

// pinLog keeps the pins of a proxy's life, the first ones if there are very many.
type pinLog struct {
	mu         sync.Mutex
	pins       []Pin
	total      uint64
	leaks      []Leak
	statements []pinStatement
	index      map[pinKey]int // into statements
}

// pinStatement is a statement that pins, with how often it was run.
type pinStatement struct {
	Pin

	times int
}

// pinKey is what makes two pins the same to whoever has to mend them.
type pinKey struct {
	rule, digest string
	caller       Caller
}

const (
	maxPinsKept       = 10_000
	maxStatementsKept = 1000
)

func (l *pinLog) add(pin Pin, again bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !again {
		l.total++
		if len(l.pins) < maxPinsKept {
			l.pins = append(l.pins, pin)
		}
	}
	key := pinKey{pin.Rule, pin.Digest, pin.Caller}
	if i, ok := l.index[key]; ok {
		l.statements[i].times++
		return
	}
	if len(l.statements) == maxStatementsKept {
		return
	}
	if l.index == nil {
		l.index = map[pinKey]int{}
	}
	l.index[key] = len(l.statements)
	l.statements = append(l.statements, pinStatement{Pin: pin, times: 1})
}

// statementsFrom is the statements that pinned, or would have, from the nth on.
func (l *pinLog) statementsFrom(n int) []pinStatement {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.statements[min(n, len(l.statements)):])
}

// Pins lists the sessions that were pinned, in order, those that have ended included; at most the
// first 10,000 of them.
func (p *Proxy) Pins() []Pin {
	p.pins.mu.Lock()
	defer p.pins.mu.Unlock()
	return slices.Clone(p.pins.pins)
}
