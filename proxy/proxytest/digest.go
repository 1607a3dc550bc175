package proxytest

// The digest of a statement, as RDS Proxy's log shows it: lower case, constants replaced. The
// examples that users show (https://github.com/prisma/orm/issues/5866,
// https://github.com/AmbitionEng/django-pghistory/issues/245) follow PostgreSQL's own normalisation,
// that of pg_stat_statements: true, false and null are constants, the values of SET are even if they
// are bare words or names in quotes, other names in quotes stay, and the first placeholder gets the
// number after the highest parameter.

import (
	"strconv"
	"strings"
)

const maxDigest = 1024 // bytes, about: enough to recognise a statement by

// digest makes one line of the text, white space and comments one blank.
func (r pinRules) digest(sql string) string {
	d := digester{statementScanner: statementScanner{lexer: lexer{text: sql, escapes: r.escapes}, rules: r}}
	d.placeholder = d.highestParam()
	d.pos = 0
	for end := 0; d.out.Len() < maxDigest; {
		t := d.next()
		if t.kind == tokenEnd {
			break
		}
		if t.start > end && d.out.Len() > 0 {
			d.out.WriteByte(' ')
		}
		d.write(t)
		end, d.prev = d.pos, t
	}
	return d.out.String()
}

type digester struct {
	statementScanner
	out         strings.Builder
	placeholder int // the last number that is taken
	prev        token
	set         setPart
}

// setPart is where in a SET a token stands.
type setPart uint8

const (
	setNothing setPart = iota // not in a SET
	setName                   // in front of the value
	setValue                  // where a value begins
	setRest                   // behind the first word of a value
)

func (d *digester) highestParam() int {
	highest := 0
	for t := d.next(); t.kind != tokenEnd; t = d.next() {
		if t.kind != tokenParam {
			continue
		}
		if n, err := strconv.ParseUint(d.text[t.start+1:t.end], 10, 16); err == nil {
			highest = max(highest, int(n))
		}
	}
	return highest
}

// write appends a token, or a placeholder for it.
func (d *digester) write(t token) {
	constant := d.constant(t)
	d.follow(t, constant)
	if constant {
		d.placeholder++
		d.out.WriteByte('$')
		d.out.WriteString(strconv.Itoa(d.placeholder))
		return
	}
	d.out.WriteString(strings.ToLower(d.text[t.start:min(t.end, t.start+maxDigest)]))
}

func (d *digester) constant(t token) bool {
	switch t.kind {
	case tokenString, tokenNumber:
		return true
	case tokenQuoted:
		return d.set == setValue
	case tokenSymbol:
		if d.set == setValue && (d.symbol(t, '-') || d.symbol(t, '+')) { // of a number
			pos := d.pos
			if d.next().kind == tokenNumber {
				return true
			}
			d.pos = pos
		}
		return false
	case tokenWord:
		switch {
		case d.set == setValue:
			return !d.is(t, "default") && (!d.is(t, "local") || !d.is(d.prev, "zone"))
		case d.set == setName:
			return d.is(t, "read")
		case d.is(d.prev, "is"), d.is(d.prev, "not"):
			return false
		}
		return d.is(t, "true") || d.is(t, "false") || d.is(t, "null")
	case tokenEnd, tokenParam:
	}
	return false
}

// follow keeps track of where in a SET the text is.
func (d *digester) follow(t token, constant bool) {
	first := d.prev.end == 0 || d.symbol(d.prev, ';')
	switch {
	case d.symbol(t, ';'):
		d.set = setNothing
	case first && d.is(t, "set"):
		d.set = setName
	case d.set == setNothing:
	case constant:
		d.set = setRest
	case d.set == setRest && d.symbol(t, ','):
		d.set = setValue
	case d.set == setName && (d.symbol(t, '=') || d.isOneOf(t, "to", "role", "names", "authorization", "zone", "level")):
		d.set = setValue
	}
}

func (d *digester) isOneOf(t token, words ...string) bool {
	for _, w := range words {
		if d.is(t, w) {
			return true
		}
	}
	return false
}
