package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/aurorapgx/aurorapgx/examples/internal/page"
)

func TestRiver(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), &out)
	t.Logf("\n%s", out.String())
	if err != nil {
		t.Fatal(err)
	}
	page.Check(t, "go run ./river", out.String())
	for _, want := range []string{"woken by LISTEN  20 of 20 jobs done", "PollOnly", "listen "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output does not say %q", want)
		}
	}
	// Which of them pin is what this is about.
	for _, want := range []string{
		`on a direct endpoint, woken by LISTEN .* 0 pinned`,
		`through the proxy, PollOnly .* 0 pinned`,
		`through the proxy, woken by LISTEN .* [1-9]\d* pinned`,
		`on a direct endpoint; InsertTx .* [1-9]\d* pinned`,
	} {
		if !regexp.MustCompile(want).MatchString(out.String()) {
			t.Errorf("no line matches %q", want)
		}
	}
}
