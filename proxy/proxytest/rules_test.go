package proxytest

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
)

// fieldStatement is a line of testdata/statements.txt.
type fieldStatement struct {
	source, rule, sql string
	line              int
}

func readFieldStatements(tb testing.TB) []fieldStatement {
	tb.Helper()
	text, err := os.ReadFile("testdata/statements.txt")
	if err != nil {
		tb.Fatal(err)
	}
	var list []fieldStatement
	source := ""
	for i, line := range strings.Split(string(text), "\n") {
		if rest, ok := strings.CutPrefix(line, "== "); ok {
			name, link, _ := strings.Cut(rest, " | ")
			if u, err := url.Parse(link); err != nil || u.Scheme != "https" || u.Host == "" || name == "" {
				tb.Errorf("line %d: a source is a name and a URL: %s", i+1, line)
			}
			source = name
			continue
		}
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		rule, sql, ok := strings.Cut(line, "\t")
		if !ok || source == "" {
			tb.Errorf("line %d: not a rule, a tab and a statement: %s", i+1, line)
		}
		sql = strings.NewReplacer(`\n`, "\n", `\t`, "\t").Replace(sql)
		list = append(list, fieldStatement{source: source, rule: rule, sql: sql, line: i + 1})
	}
	return list
}

// TestFieldStatements holds the rules against what drivers, ORMs and migration tools send.
func TestFieldStatements(t *testing.T) {
	t.Parallel()
	known := map[string]Rule{"-": {}}
	for _, r := range Rules() {
		known[r.Name] = r
	}
	distinct, pinning := map[string]bool{}, 0
	for _, st := range readFieldStatements(t) {
		rule, ok := known[st.rule]
		if !ok {
			t.Errorf("line %d: there is no rule %q", st.line, st.rule)
			continue
		}
		want := ""
		if rule.Pins {
			want = rule.Name
			pinning++
		}
		for _, sql := range []string{st.sql, "/* from the field */ " + st.sql, "begin;\n" + st.sql, st.sql + " -- done"} {
			if got := rules[(pinRules{}).judge(sql)].Name; got != want {
				t.Errorf("line %d, %s: %q pins by %q, not %q", st.line, st.source, sql, got, want)
			}
		}
		distinct[st.sql] = true
	}
	t.Logf("%d statements, %d lines that pin", len(distinct), pinning)
	if len(distinct) < 150 {
		t.Errorf("%d different statements: fewer than 150", len(distinct))
	}
}

var updatePage = flag.Bool("update", false, "write RULES.md")

// TestRulesPage keeps RULES.md what Rules says.
func TestRulesPage(t *testing.T) {
	t.Parallel()
	want := rulesPage()
	if *updatePage {
		if err := os.WriteFile("RULES.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile("RULES.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("RULES.md does not say what the table of rules says: go test ./proxy/proxytest -run TestRulesPage -update")
	}
}

func TestRulesAreComplete(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for _, r := range Rules() {
		if r.Name == "" || names[r.Name] || r.Covers == "" || r.Why == "" || r.Sure == "" || !strings.HasPrefix(r.Source, "https://") {
			t.Errorf("%+v", r)
		}
		if r.Pins != (r.Reason != "") || r.Pins != (r.Instead != "") {
			t.Errorf("%s: what pins has a reason and an alternative, what does not has neither", r.Name)
		}
		names[r.Name] = true
	}
}

// rulesPage is RULES.md.
func rulesPage() string {
	var b strings.Builder
	b.WriteString(`# What pins a session

RDS Proxy ties a client session to one database connection, for the rest of the session, when a statement changes
session state. This page is what package proxytest does about that, rule by rule: where it comes from and how well it
is known. It is made from the table in rules.go; a test compares.

- **documented**: AWS says so.
- **reported**: users have seen it, and show a log line or a measurement.
- **assumed**: neither. The choice is explained. Between a pin too many and one too few, a rule takes the first: a test
  that complains needlessly costs less than a production that pins.

A text of several statements pins by the first of them that does. With the extended protocol a statement pins when it
is executed, not when it is parsed. Statements from the field, with their sources, are in testdata/statements.txt.
`)
	for _, pins := range []bool{true, false} {
		if pins {
			b.WriteString("\n## What pins\n")
		} else {
			b.WriteString("\n## What does not\n")
		}
		for _, r := range Rules() {
			if r.Pins != pins {
				continue
			}
			fmt.Fprintf(&b, "\n### %s\n\n%s.\n\n%s: <%s>. %s\n", r.Name, sentence(r.Covers), sentence(string(r.Sure)), r.Source, sentence(r.Why))
			if pins {
				fmt.Fprintf(&b, "\nIn the log: “%s”\n\nInstead: %s\n", r.Reason, r.Instead)
			}
		}
	}
	b.WriteString(`
## Not known

- Whether RDS Proxy's text for the reasons other than the first two is anything like ours. It has published none of them.
- Whether SET LOCAL, SET TRANSACTION and SET CONSTRAINTS pin: WithSetLocalPins makes them.
- Whether a statement that fails pins. Here it does.
- Whether application_name splits the pool of database connections. Here it does, as every startup parameter does.

## The digest

The log shows a statement in lower case with its constants replaced by $1, $2, …. The digests that users have published
follow PostgreSQL's own normalisation, that of pg_stat_statements: true, false and null count as constants, as do the
values of SET even if they are bare words or quoted names; a value of two words keeps its second; placeholders are numbered
from behind the highest parameter. White space is made one blank, comments are dropped, and long statements cut.
`)
	return b.String()
}

// sentence begins with a capital letter, unless that would change a name.
func sentence(s string) string {
	if word, _, _ := strings.Cut(s, " "); strings.ContainsAny(word, "_(") {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
