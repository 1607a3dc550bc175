package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/aurorapgx/aurorapgx/examples/internal/page"
)

func TestMigrations(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), &out)
	t.Logf("\n%s", out.String())
	if err != nil {
		t.Fatal(err)
	}
	page.Check(t, "go run ./migrations", out.String())
	for _, want := range []string{"one applied [1 2 3]\n", "the lock and applied []\n", "\n  applied [3]\n", " 1 pinned sessions\n", "pg_try_advisory_lock"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output does not say %q", want)
		}
	}
}
