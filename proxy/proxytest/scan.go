package proxytest

// Finds what pins in a text of SQL: statement by statement, by its first words, and by the functions
// called anywhere in it.

import (
	"strconv"
	"strings"
)

// maxStatementText is the length in bytes beyond which a statement pins whatever it says.
const maxStatementText = 16384

// pinRules is what can be switched about the decision.
type pinRules struct {
	setLocalPins bool
	escapes      bool // standard_conforming_strings is off
}

// judge finds the first rule by which the text would pin a session, or noRule. The text may hold
// several statements.
func (r pinRules) judge(sql string) ruleID {
	if len(sql) > maxStatementText {
		return ruleLongText
	}
	s := statementScanner{lexer: lexer{text: sql, escapes: r.escapes}, rules: r}
	for {
		if rule, more := s.statement(); rule != noRule || !more {
			return rule
		}
	}
}

// statementScanner goes through a text statement by statement.
type statementScanner struct {
	lexer
	rules pinRules
}

// statement reads up to the next semicolon outside parentheses and bodies, or to the end.
func (s *statementScanner) statement() (rule ruleID, more bool) {
	t := s.next()
	for s.symbol(t, '(') { // (SELECT …)
		t = s.next()
	}
	first := ""
	if t.kind == tokenWord {
		first = s.name(t)
	}
	if rule := s.byFirstWords(first); rule != noRule {
		return rule, false
	}
	switch first {
	case "drop", "grant", "revoke", "comment": // the functions they name are not called
		s.toSemicolon()
		t = s.next()
	}
	return s.rest(t)
}

// byFirstWords decides what the words at the start of a statement are enough for. It reads ahead and
// goes back.
func (s *statementScanner) byFirstWords(first string) ruleID {
	defer func(pos int) { s.pos = pos }(s.pos)
	switch first {
	case "set":
		return s.set()
	case "reset":
		return ruleSettings
	case "update":
		return s.update()
	case "discard":
		return ruleDiscard
	case "deallocate", "execute":
		return rulePrepare
	case "prepare":
		if s.is(s.next(), "transaction") { // two-phase commit
			return noRule
		}
		return rulePrepare
	case "listen":
		return ruleListen
	case "declare":
		return ruleCursor
	case "load":
		return ruleLoad
	case "create":
		return s.create()
	case "explain":
		return s.explain()
	}
	return noRule
}

// set tells the SETs that last for a transaction from those that last for the session.
func (s *statementScanner) set() ruleID {
	switch s.name(s.next()) {
	case "local", "transaction", "constraints":
		if !s.rules.setLocalPins {
			return noRule
		}
	}
	return ruleSettings
}

// update looks for the view through which settings can be changed.
func (s *statementScanner) update() ruleID {
	t := s.next()
	if s.is(t, "only") {
		t = s.next()
	}
	if s.name(t) == "pg_catalog" && s.symbol(s.next(), '.') {
		t = s.next()
	}
	if s.name(t) == "pg_settings" {
		return rulePgSettings
	}
	return noRule
}

// create looks for TEMP in front of what is created, or for a name in pg_temp.
func (s *statementScanner) create() ruleID {
	t := s.next()
	for s.is(t, "or") || s.is(t, "replace") || s.is(t, "global") || s.is(t, "local") {
		t = s.next()
	}
	if s.is(t, "temp") || s.is(t, "temporary") {
		return ruleTemporary
	}
	for range 12 { // UNLOGGED TABLE IF NOT EXISTS … up to the name
		name := t
		t = s.next()
		switch {
		case name.kind != tokenWord && name.kind != tokenQuoted, s.is(name, "as"):
			return noRule
		case s.symbol(t, '.'):
			if isTempSchema(s.name(name)) {
				return rulePgTemp
			}
			t = s.next()
		}
	}
	return noRule
}

// explain decides by the statement that is explained. Without ANALYZE nothing is created.
func (s *statementScanner) explain() ruleID {
	t := s.next()
	runs := false
	if s.symbol(t, '(') {
		for t = s.next(); t.kind != tokenEnd && !s.symbol(t, ')'); t = s.next() {
			switch s.name(t) {
			case "select", "with", "values", "table":
				return noRule
			case "analyze", "analyse":
				runs = true
			}
		}
		t = s.next()
	}
	for s.is(t, "analyze") || s.is(t, "analyse") || s.is(t, "verbose") {
		runs = runs || !s.is(t, "verbose")
		t = s.next()
	}
	switch {
	case s.is(t, "execute"):
		return rulePrepare
	case s.is(t, "create") && runs:
		return s.create()
	}
	return noRule
}

// rest reads the statement to its end, from t on, looking for functions that pin wherever they stand
// and for SELECT … INTO TEMP.
func (s *statementScanner) rest(t token) (rule ruleID, more bool) {
	creates := s.is(t, "create")
	routine := false // a function or procedure is created
	depth := 0
	var prev token
	var called callee
	for ; t.kind != tokenEnd; t = s.next() {
		switch {
		case s.symbol(t, ';') && depth <= 0:
			return noRule, true
		case s.symbol(t, '('):
			depth++
			if rule := called.rule(s); rule != noRule {
				return rule, false
			}
		case s.symbol(t, ')'):
			depth--
		case s.is(t, "into") && !s.is(prev, "insert") && !s.is(prev, "merge"):
			if rule := s.into(); rule != noRule {
				return rule, false
			}
		case creates && s.is(t, "execute") && s.is(prev, "as"):
			return rulePrepare, false
		case creates && (s.is(t, "function") || s.is(t, "procedure")) && !s.is(prev, "execute"):
			routine = true
		case routine && depth == 0 && s.is(t, "return"):
			s.toSemicolon()
		case routine && s.is(t, "atomic") && s.is(prev, "begin"):
			s.toEnd()
		}
		called.follow(s, t, prev)
		prev = t
	}
	return noRule, false
}

// into says whether INTO is followed by a temporary table. It reads ahead and goes back.
func (s *statementScanner) into() ruleID {
	defer func(pos int) { s.pos = pos }(s.pos)
	t := s.next()
	if s.is(t, "local") || s.is(t, "global") {
		t = s.next()
	}
	next := s.next()
	switch {
	case isTempSchema(s.name(t)) && s.symbol(next, '.'):
		return rulePgTemp
	case (s.is(t, "temp") || s.is(t, "temporary")) && (next.kind == tokenQuoted || next.kind == tokenWord && !s.endsTarget(next)):
		return ruleTemporary
	}
	return noRule
}

// endsTarget says whether a word follows the name of a table that SELECT INTO creates, and so cannot
// be it.
func (s *statementScanner) endsTarget(t token) bool {
	switch s.name(t) {
	case "from", "where", "group", "having", "window", "union", "intersect", "except", "order", "limit", "offset", "fetch", "for":
		return true
	}
	return false
}

// toSemicolon skips the expression that is a function's body.
func (s *statementScanner) toSemicolon() {
	for {
		pos := s.pos
		if t := s.next(); t.kind == tokenEnd || s.symbol(t, ';') {
			s.pos = pos
			return
		}
	}
}

// toEnd skips the statements of a BEGIN ATOMIC body, and its END.
func (s *statementScanner) toEnd() {
	depth := 1
	var prev token
	for t := s.next(); t.kind != tokenEnd; t = s.next() {
		if !s.is(prev, "as") && !s.symbol(prev, '.') { // there it is a name
			switch {
			case s.is(t, "case"):
				depth++
			case s.is(t, "end"):
				if depth--; depth == 0 {
					return
				}
			}
		}
		prev = t
	}
}

// callee is the name in front of a parenthesis: f, schema.f, or something longer.
type callee struct {
	schema, name token
	parts        int
	before       token // the token in front of the name
}

// follow takes the next token of the statement into account.
func (c *callee) follow(s *statementScanner, t, prev token) {
	switch {
	case t.kind == tokenWord || t.kind == tokenQuoted:
		if c.parts > 0 && s.symbol(prev, '.') {
			c.schema, c.name = c.name, t
			c.parts++
			return
		}
		*c = callee{name: t, parts: 1, before: prev}
	case s.symbol(t, '.') && c.parts > 0 && prev == c.name:
	default:
		*c = callee{}
	}
}

// rule is why a call of the function pins. A name behind FUNCTION is not a call of it.
func (c *callee) rule(s *statementScanner) ruleID {
	if c.parts == 0 || c.parts > 2 || c.parts == 2 && s.name(c.schema) != "pg_catalog" {
		return noRule
	}
	rule := callRule(s.name(c.name))
	if rule == noRule {
		return noRule
	}
	switch s.name(c.before) {
	case "function", "procedure", "routine", "table", "into":
		return noRule
	}
	return rule
}

func callRule(function string) ruleID {
	switch function {
	case "set_config":
		return ruleSetConfig
	case "nextval", "setval":
		return ruleSequence
	case "pg_advisory_lock", "pg_advisory_lock_shared",
		"pg_try_advisory_lock", "pg_try_advisory_lock_shared":
		return ruleLock
	}
	return noRule
}

// isTempSchema knows pg_temp and what it stands for in a session, pg_temp_3.
func isTempSchema(name string) bool {
	rest, ok := strings.CutPrefix(name, "pg_temp")
	if !ok || rest == "" {
		return ok
	}
	_, err := strconv.ParseUint(strings.TrimPrefix(rest, "_"), 10, 32)
	return rest[0] == '_' && err == nil
}
