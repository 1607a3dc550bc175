package proxytest

// Words and names as PostgreSQL compares them
// (https://www.postgresql.org/docs/current/sql-syntax-lexical.html#SQL-SYNTAX-IDENTIFIERS).

import (
	"strconv"
	"strings"
)

func (s *statementScanner) symbol(t token, c byte) bool {
	return t.kind == tokenSymbol && s.text[t.start] == c
}

// is compares an unquoted token with a lower-case word.
func (s *statementScanner) is(t token, word string) bool {
	if t.kind != tokenWord || t.end-t.start != len(word) {
		return false
	}
	for i := range len(word) {
		if lower(s.text[t.start+i]) != word[i] {
			return false
		}
	}
	return true
}

// name is what PostgreSQL takes a name for: letters of ASCII folded to lower case without quotes,
// nothing folded within. It is "" if the token is no name.
func (s *statementScanner) name(t token) string {
	switch text := s.text[t.start:t.end]; {
	case t.kind == tokenWord:
		return toLower(text)
	case t.kind != tokenQuoted || len(text) < 2:
		return ""
	case text[0] == '"':
		return unquote(text)
	}
	l := lexer{text: s.text[:t.end], pos: t.start + len("U&")}
	l.quoted('"', false)
	name := unquote(s.text[t.start+len("U&") : l.pos])
	escape := byte('\\')
	if c := s.text[l.pos:t.end]; len(c) > len("'!'") {
		escape = c[len(c)-2]
	}
	return unescape(name, escape)
}

// unquote takes the quotes off a quoted identifier, which may lack the second.
func unquote(text string) string {
	text = text[1:]
	if n := len(text); n > 0 && text[n-1] == '"' {
		text = text[:n-1]
	}
	return strings.ReplaceAll(text, `""`, `"`)
}

// unescape resolves \0041 and \+000041. What is no such escape stays as it is: the server refuses it.
func unescape(text string, escape byte) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		if text[i] != escape || i+1 >= len(text) {
			b.WriteByte(text[i])
			i++
			continue
		}
		if text[i+1] == escape {
			b.WriteByte(escape)
			i += 2
			continue
		}
		from, to := i+1, i+5
		if text[i+1] == '+' {
			from, to = i+2, i+8
		}
		code, err := strconv.ParseUint(text[min(from, len(text)):min(to, len(text))], 16, 21)
		if err != nil {
			b.WriteByte(text[i])
			i++
			continue
		}
		b.WriteRune(rune(code))
		i = min(to, len(text))
	}
	return b.String()
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c |= 0x20
	}
	return c
}

// toLower folds as PostgreSQL folds names in UTF-8: the letters of ASCII and no others.
func toLower(s string) string {
	for i := range len(s) {
		if lower(s[i]) != s[i] {
			b := []byte(s)
			for j := i; j < len(b); j++ {
				b[j] = lower(b[j])
			}
			return string(b)
		}
	}
	return s
}
