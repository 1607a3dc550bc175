package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/aurorapgx/aurorapgx/examples/internal/page"
)

func TestListen(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), &out)
	t.Logf("\n%s", out.String())
	if err != nil {
		t.Fatal(err)
	}
	page.Check(t, "go run ./listen", out.String())
	for _, want := range []string{"listener: [1 2 3]\n", "was back: [4 5]\n", "after that: [6]\n", " 0 pinned sessions\n", " 1 pinned sessions\n  pinned by: listen orders\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output does not say %q", want)
		}
	}
}
