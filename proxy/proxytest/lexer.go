package proxytest

// A lexer for PostgreSQL's SQL, as far as telling words from literals, comments and quotes needs
// it (https://www.postgresql.org/docs/current/sql-syntax-lexical.html). It never fails: text that
// PostgreSQL would refuse ends in a token all the same.

import "strings"

type tokenKind uint8

const (
	tokenEnd    tokenKind = iota
	tokenWord             // unquoted identifier or key word
	tokenQuoted           // "identifier", or U&"identifier" with its UESCAPE 'c'
	tokenString           // 'text', E'text', B'…', X'…', N'…', U&'text', $tag$text$tag$
	tokenNumber           // 1, 1.5e-3, 0x1F
	tokenParam            // $1
	tokenSymbol           // one character of anything else
)

// token is a stretch of the text: text[start:end].
type token struct {
	kind       tokenKind
	start, end int
}

// lexer hands out the tokens of a text one by one.
type lexer struct {
	text string
	pos  int
	// escapes is for a session whose standard_conforming_strings is off: a backslash then escapes in
	// plain strings too, and not only in E''.
	escapes bool
}

// next is the next token, white space and comments left out. At the end of the text it is a
// tokenEnd, again and again.
func (l *lexer) next() token {
	l.skipBlank()
	start := l.pos
	if start >= len(l.text) {
		return token{kind: tokenEnd, start: start, end: start}
	}
	kind := tokenSymbol
	switch c := l.text[start]; {
	case c == '\'':
		l.stringParts(l.escapes)
		kind = tokenString
	case c == '"':
		l.quoted('"', false)
		kind = tokenQuoted
	case c == '$':
		kind = l.dollar()
	case isWordStart(c):
		kind = l.word()
	case isDigit(c), c == '.' && isDigit(l.at(1)):
		l.number()
		kind = tokenNumber
	default:
		l.pos++
	}
	return token{kind: kind, start: start, end: l.pos}
}

// at is the byte n places on, or 0 past the end.
func (l *lexer) at(n int) byte {
	if l.pos+n < len(l.text) {
		return l.text[l.pos+n]
	}
	return 0
}

func (l *lexer) skipBlank() {
	for l.pos < len(l.text) {
		switch c := l.text[l.pos]; {
		case isSpace(c):
			l.pos++
		case c == '-' && l.at(1) == '-':
			l.lineComment()
		case c == '/' && l.at(1) == '*':
			l.blockComment()
		default:
			return
		}
	}
}

func (l *lexer) lineComment() {
	if n := strings.IndexAny(l.text[l.pos:], "\r\n"); n >= 0 {
		l.pos += n
		return
	}
	l.pos = len(l.text)
}

// blockComment skips a comment with the comments inside it: unlike in C, they nest.
func (l *lexer) blockComment() {
	depth := 0
	for l.pos < len(l.text) {
		switch {
		case l.text[l.pos] == '/' && l.at(1) == '*':
			depth++
			l.pos += 2
		case l.text[l.pos] == '*' && l.at(1) == '/':
			depth--
			l.pos += 2
			if depth == 0 {
				return
			}
		default:
			l.pos++
		}
	}
	l.pos = len(l.text)
}

// stringParts skips a string. Strings with nothing but white space and line comments between them,
// and a new line in that, are one string, and what escapes in the first escapes in all of them.
func (l *lexer) stringParts(backslash bool) {
	for {
		l.quoted('\'', backslash)
		next := lexer{text: l.text, pos: l.pos}
		newline := false
		for next.pos < len(next.text) {
			c := next.at(0)
			if c == '-' && next.at(1) == '-' {
				next.lineComment()
				continue
			}
			if !isSpace(c) {
				break
			}
			newline = newline || c == '\n' || c == '\r'
			next.pos++
		}
		if !newline || next.at(0) != '\'' {
			return
		}
		l.pos = next.pos
	}
}

// quoted skips from an opening quote past the closing one; a doubled quote stands for one.
func (l *lexer) quoted(quote byte, backslash bool) {
	l.pos++
	for l.pos < len(l.text) {
		switch c := l.text[l.pos]; {
		case c == '\\' && backslash:
			l.pos += 2
		case c == quote && l.at(1) == quote:
			l.pos += 2
		case c == quote:
			l.pos++
			return
		default:
			l.pos++
		}
	}
	l.pos = len(l.text)
}

// dollar reads what a $ begins: a parameter, a dollar-quoted string, or nothing in particular.
func (l *lexer) dollar() tokenKind {
	if isDigit(l.at(1)) {
		l.pos++
		for isDigit(l.at(0)) {
			l.pos++
		}
		return tokenParam
	}
	n := 1
	if isWordStart(l.at(n)) {
		for c := l.at(n); isWordStart(c) || isDigit(c); c = l.at(n) {
			n++
		}
	}
	if l.at(n) != '$' {
		l.pos++
		return tokenSymbol
	}
	tag := l.text[l.pos : l.pos+n+1]
	l.pos += len(tag)
	if end := strings.Index(l.text[l.pos:], tag); end >= 0 {
		l.pos += end + len(tag)
	} else {
		l.pos = len(l.text)
	}
	return tokenString
}

// word reads an identifier, or the string or quoted identifier that a letter announces.
func (l *lexer) word() tokenKind {
	if l.at(1) == '\'' {
		switch l.text[l.pos] | 0x20 {
		case 'e':
			l.pos++
			l.stringParts(true)
			return tokenString
		case 'n':
			l.pos++
			l.stringParts(l.escapes)
			return tokenString
		case 'b', 'x':
			l.pos++
			l.stringParts(false)
			return tokenString
		}
	}
	if l.text[l.pos]|0x20 == 'u' && l.at(1) == '&' && (l.at(2) == '\'' || l.at(2) == '"') {
		l.pos += 2
		if l.at(0) == '"' {
			l.quoted('"', false)
			l.uescape()
			return tokenQuoted
		}
		l.stringParts(false)
		return tokenString
	}
	for c := l.at(0); isWordStart(c) || isDigit(c) || c == '$'; c = l.at(0) {
		l.pos++
	}
	return tokenWord
}

// uescape takes UESCAPE 'c' in, which belongs to the U&"…" in front of it.
func (l *lexer) uescape() {
	ahead := lexer{text: l.text, pos: l.pos}
	if t := ahead.next(); t.kind != tokenWord || toLower(l.text[t.start:t.end]) != "uescape" {
		return
	}
	if ahead.next().kind == tokenString {
		l.pos = ahead.pos
	}
}

// number reads a number as PostgreSQL 16 does, with 0x, 0o, 0b and underscores. What follows
// without a break is a word of its own: older servers take "1from" for 1 FROM, newer ones refuse it.
func (l *lexer) number() {
	if l.at(0) == '0' && strings.IndexByte("xob", l.at(1)|0x20) >= 0 && isHex(l.at(2)) {
		l.pos += 2
		for isHex(l.at(0)) || l.at(0) == '_' {
			l.pos++
		}
		return
	}
	l.digits()
	if l.at(0) == '.' && l.at(1) != '.' { // 1..10 in PL/pgSQL
		l.pos++
		l.digits()
	}
	if l.at(0)|0x20 != 'e' {
		return
	}
	n := 1
	if l.at(n) == '+' || l.at(n) == '-' {
		n++
	}
	if isDigit(l.at(n)) {
		l.pos += n
		l.digits()
	}
}

func (l *lexer) digits() {
	for isDigit(l.at(0)) || l.at(0) == '_' && isDigit(l.at(1)) {
		l.pos++
	}
}

func isSpace(c byte) bool {
	return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v'
}
func isDigit(c byte) bool { return c >= '0' && c <= '9' }
func isHex(c byte) bool   { return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f' }

func isWordStart(c byte) bool {
	return c == '_' || c >= 0x80 || (c|0x20 >= 'a' && c|0x20 <= 'z')
}
