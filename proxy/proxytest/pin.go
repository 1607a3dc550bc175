package proxytest

// Which statements pin a session to its database connection
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-pinning.html). RDS Proxy
// decides by the statement's text, so a change of session state inside a function goes unnoticed,
// here as there.

import (
	"strconv"
	"strings"
	"sync"
	"time"
)

// A Pin tells that a client session was tied to a database connection for the rest of its life.
type Pin struct {
	ClientConnection   uint64    // the number of the client connection, as in the log
	DatabaseConnection uint64    // the number of the database connection, as in the log
	RemoteAddr         string    // where the client is
	User               string    // the database user
	Database           string    // the database
	Reason             string    // why, in the words of RDS Proxy's log as far as those are known
	Digest             string    // the statement, lower-cased, its literals replaced by $1, $2, …
	Prepared           bool      // the statement came with the extended protocol, and pinned at Execute
	Time               time.Time // when
}

// The reasons. The first two are RDS Proxy's own words; how it words the others has not been
// published, and may change.
const (
	reasonSettings = "SQL changed session settings that the proxy doesn't track. " +
		"Consider moving session configuration to the proxy's initialization query."
	reasonTooLong   = "The connection ran a SQL query which exceeded the 16384 byte limit."
	reasonPrepare   = "SQL managed prepared statements."
	reasonTemporary = "SQL created a temporary object."
	reasonCursor    = "SQL declared a cursor."
	reasonListen    = "SQL listened on a notification channel."
	reasonLoad      = "SQL loaded a library."
	reasonSequence  = "SQL manipulated a sequence."
	reasonLock      = "SQL took a session-level advisory lock."
	reasonDiscard   = "SQL discarded session state."
)

// maxStatementText is the length in bytes from which on a statement pins whatever it says: the page
// above says 16 KB, the log 16384 bytes.
const maxStatementText = 16384

// pinRules is what can be switched about the decision.
type pinRules struct {
	setLocalPins bool
}

// reason says why the text would pin a session, or "" if it would not. The text may hold several
// statements.
func (r pinRules) reason(sql string) string {
	if len(sql) > maxStatementText {
		return reasonTooLong
	}
	s := statementScanner{lexer: lexer{text: sql}, rules: r}
	for {
		reason, more := s.statement()
		if reason != "" || !more {
			return reason
		}
	}
}

// statementScanner goes through a text statement by statement.
type statementScanner struct {
	lexer
	rules pinRules
}

// statement reads up to a semicolon outside parentheses, or to the end.
func (s *statementScanner) statement() (reason string, more bool) {
	t := s.next()
	for t.kind == tokenSymbol && s.text[t.start] == '(' { // (SELECT …)
		t = s.next()
	}
	if reason := s.byFirstWord(t); reason != "" {
		return reason, false
	}
	return s.calls(t)
}

// byFirstWord decides what the words at the start of a statement are enough for. It reads ahead and
// goes back.
func (s *statementScanner) byFirstWord(t token) string {
	defer func(pos int) { s.pos = pos }(s.pos)
	if t.kind != tokenWord {
		return ""
	}
	switch s.name(t) {
	case "set":
		return s.set()
	case "reset":
		return reasonSettings
	case "discard":
		return reasonDiscard
	case "deallocate", "execute":
		return reasonPrepare
	case "prepare":
		if s.is(s.next(), "transaction") { // two-phase commit
			return ""
		}
		return reasonPrepare
	case "listen":
		return reasonListen
	case "declare":
		return reasonCursor
	case "load":
		return reasonLoad
	case "create":
		return s.create()
	}
	return ""
}

// set tells the SETs that last for a transaction from those that last for the session.
func (s *statementScanner) set() string {
	switch s.name(s.next()) {
	case "transaction", "constraints":
		return ""
	case "local":
		if !s.rules.setLocalPins {
			return ""
		}
	}
	return reasonSettings
}

// create looks for TEMP between CREATE and the name, or for a name in pg_temp.
func (s *statementScanner) create() string {
	for range 12 {
		t := s.next()
		if t.kind != tokenWord {
			return ""
		}
		switch s.name(t) {
		case "temp", "temporary":
			return reasonTemporary
		case "pg_temp":
			return reasonTemporary
		case "or", "replace", "global", "local", "unlogged", "recursive", "table", "view", "sequence",
			"if", "not", "exists":
		default:
			return ""
		}
	}
	return ""
}

// calls reads the rest of the statement, from t on, looking for functions that pin wherever they
// stand and for SELECT … INTO TEMP.
func (s *statementScanner) calls(t token) (reason string, more bool) {
	var prev token
	into := false // within INTO [LOCAL | GLOBAL] TEMP
	for ; t.kind != tokenEnd; t = s.next() {
		switch {
		case t.kind == tokenSymbol && s.text[t.start] == ';':
			return "", true
		case t.kind == tokenSymbol && s.text[t.start] == '(':
			if reason := callReason(s.name(prev)); reason != "" {
				return reason, false
			}
		case into && (s.is(t, "temp") || s.is(t, "temporary") || s.is(t, "pg_temp")):
			return reasonTemporary, false
		}
		into = s.is(t, "into") && !s.is(prev, "insert") && !s.is(prev, "merge") ||
			into && (s.is(t, "local") || s.is(t, "global"))
		prev = t
	}
	return "", false
}

// callReason is why a call of the function pins. pg_advisory_unlock does not: whoever has
// something to unlock is pinned already.
func callReason(function string) string {
	switch function {
	case "set_config":
		return reasonSettings
	case "nextval", "setval":
		return reasonSequence
	case "pg_advisory_lock", "pg_advisory_lock_shared",
		"pg_try_advisory_lock", "pg_try_advisory_lock_shared":
		return reasonLock
	}
	return ""
}

// is compares a token with a lower-case word.
func (s *statementScanner) is(t token, word string) bool {
	return t.kind == tokenWord && t.end-t.start == len(word) && strings.EqualFold(s.text[t.start:t.end], word)
}

// name is what PostgreSQL would take a name for: folded to lower case without quotes, as it is
// within. It is "" if the token is no name.
func (s *statementScanner) name(t token) string {
	switch name := s.text[t.start:t.end]; {
	case t.kind == tokenWord:
		return strings.ToLower(name)
	case t.kind == tokenQuoted && len(name) > 2 && name[0] == '"':
		return name[1 : len(name)-1]
	}
	return ""
}

// digest is the statement as the log shows it: lower-cased, white space and comments made one
// blank, and strings, numbers, parameters and quoted names replaced by $1, $2, ….
func digest(sql string) string {
	const limit = 1024 // enough to recognise a statement by
	l := lexer{text: sql}
	var b strings.Builder
	literals, end := 0, 0
	for b.Len() < limit {
		t := l.next()
		if t.kind == tokenEnd {
			break
		}
		if t.start > end && b.Len() > 0 {
			b.WriteByte(' ')
		}
		end = t.end
		switch t.kind {
		case tokenString, tokenNumber, tokenParam, tokenQuoted:
			literals++
			b.WriteByte('$')
			b.WriteString(strconv.Itoa(literals))
		default:
			word := sql[t.start:min(t.end, t.start+limit)]
			b.WriteString(strings.ToLower(word))
		}
	}
	return b.String()
}

// pinLog keeps the pins of a proxy's life, the first ones if there are very many.
type pinLog struct {
	mu    sync.Mutex
	pins  []Pin
	total uint64
}

const maxPinsKept = 10_000

func (l *pinLog) add(pin Pin) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	if len(l.pins) < maxPinsKept {
		l.pins = append(l.pins, pin)
	}
}

// Pins lists the sessions that were pinned, in order, those that have ended included; at most the
// first 10,000 of them.
func (p *Proxy) Pins() []Pin {
	p.pins.mu.Lock()
	defer p.pins.mu.Unlock()
	return append([]Pin(nil), p.pins.pins...)
}
