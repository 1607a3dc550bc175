package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/aurorapgx/aurorapgx/examples/internal/page"
)

func TestBun(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), &out)
	t.Logf("\n%s", out.String())
	if err != nil {
		t.Fatal(err)
	}
	page.Check(t, "go run ./bun", out.String())
	for _, want := range []string{"tea     21 orders, 23 pieces", "sold: 20\n", " 0 pinned sessions\n", "under a name: 0\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output does not say %q", want)
		}
	}
}
