package proxy_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/aurorapgx/aurorapgx/proxy"
)

const failuresHead = `# What keeps a connect from succeeding, and what to do

Each failure that this library knows by name. The name is in ` + "`ConnectError.Case` and in `Report.Case`" + `;
cause and fix are in the error's own text, and ` + "`aurorapgx check URL`" + ` prints them last. Words in braces are
filled in. Each is brought about in a test (check_test.go), and this page is written by one:
` + "`go test ./proxy -run TestFailuresPage -update`" + `.

| case | step | the error says | likely cause | fix |
|---|---|---|---|---|
`

// The page says what the program does.
func TestFailuresPage(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(failuresHead)
	cell := strings.NewReplacer("|", `\|`, "\n", " ")
	names, causes := map[string]bool{}, map[string]string{}
	for _, e := range proxy.Catalogue() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", e.Case, e.Step, cell.Replace(e.Shows), cell.Replace(e.Cause), cell.Replace(e.Fix))
		text := e.Cause + e.Fix
		if e.Case == "" || e.Step == "" || e.Shows == "" || e.Cause == "" || e.Fix == "" || names[e.Case] || causes[text] != "" {
			t.Errorf("%q lacks something, or is like %q", e.Case, causes[text])
		}
		names[e.Case], causes[text] = true, e.Case
	}
	if len(names) < 35 {
		t.Errorf("%d cases", len(names))
	}
	const page = "FAILURES.md"
	if *update {
		if err := os.WriteFile(page, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != b.String() {
		t.Error("it is not what the catalogue says: run this test with -update")
	}
}
