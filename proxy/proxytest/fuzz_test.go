package proxytest

import (
	"strings"
	"testing"
)

func FuzzLexer(f *testing.F) {
	for _, seed := range []string{
		"select 1", "'a''b' e'\\' \"q\" $a$ $b$ $a$ $1 --c\n/* /* */ */ 1.5e-3 u&\"x\"", "set x = 'y", "\x00\xff$", "1..10", "e'\\",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		l := lexer{text: sql}
		end := 0
		for range len(sql) + 1 {
			tok := l.next()
			if tok.start < end || tok.end < tok.start || tok.end > len(sql) || (tok.kind != tokenEnd && tok.end == tok.start) {
				t.Fatalf("token %+v after %d in %q", tok, end, sql)
			}
			if end = tok.end; tok.kind == tokenEnd {
				break
			}
		}
		if tok := l.next(); tok.kind != tokenEnd {
			t.Fatalf("%q does not end", sql)
		}
		rule := pinRules{}.judge(sql)
		if len(sql) < 1000 {
			if got := (pinRules{}).judge("/* c */" + sql); got != rule {
				t.Errorf("%q: %q, behind a comment %q", sql, rules[rule].Name, rules[got].Name)
			}
			if got := (pinRules{}).judge("select 1;" + sql); got != rule {
				t.Errorf("%q: %q, behind a statement %q", sql, rules[rule].Name, rules[got].Name)
			}
		}
		if got := (pinRules{}).digest(sql); strings.ContainsAny(got, "\n\r\t") && !strings.ContainsAny(sql, "\"\v\f") {
			t.Errorf("the digest of %q has more than one line: %q", sql, got)
		}
		_ = pinRules{escapes: true}.judge(sql)
		_ = commentTags(sql)
	})
}

// FuzzQuoted quotes a text in each way there is: whatever it says, it is not a statement then, and the
// digest does not show it.
func FuzzQuoted(f *testing.F) {
	for _, st := range readFieldStatements(f) {
		f.Add(st.sql)
	}
	for _, seed := range []string{"'; set x = 1 --", `\'; set x = 1 --`, "*/ set x = 1", "$$; set x = 1", `"; set x = 1`, "$q$", "\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > maxStatementText/3 {
			return
		}
		literal := "'" + strings.ReplaceAll(text, "'", "''") + "'"
		escaped := "E'" + strings.NewReplacer("'", "''", `\`, `\\`).Replace(text) + "'"
		dollar := "$q$" + strings.ReplaceAll(text, "$q", "q") + "$q$"
		if strings.HasSuffix(text, "$q") || strings.Contains(dollar[3:len(dollar)-3]+"$q", "$q$") {
			dollar = "$$$$"
		}
		for _, sql := range []string{"select " + literal, "select " + escaped, "select U&" + literal, "select n" + literal, "select " + dollar} {
			if got := (pinRules{}).judge(sql + "; select 1"); got != noRule {
				t.Errorf("%q: %s", sql, rules[got].Name)
			}
			if got := (pinRules{}).judge(sql + "; reset x"); got != ruleSettings {
				t.Errorf("%q: what follows is not seen", sql)
			}
			if got := (pinRules{}).digest(sql); got != "select $1" {
				t.Errorf("%q: digest %q", sql, got)
			}
		}
		bare := strings.NewReplacer("/", "", "*", "").Replace(text)
		name := `"` + strings.ReplaceAll(text, `"`, `""`) + `"`
		for _, sql := range []string{"select /*" + bare + "*/ 1", "select 1 as " + name} {
			if got := (pinRules{}).judge(sql + "; reset x"); got != ruleSettings {
				t.Errorf("%q: what follows is not seen", sql)
			}
			if got := (pinRules{}).judge(sql); got != noRule {
				t.Errorf("%q: %s", sql, rules[got].Name)
			}
		}
	})
}
