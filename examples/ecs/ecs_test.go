package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/aurorapgx/aurorapgx/examples/internal/page"
)

// The command of the README. run itself fails if a request fails, if a task does not
// exit with 0 in time, or if an acknowledged order is not there exactly once.
func TestECS(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), &out)
	t.Logf("\n%s", out.String())
	if err != nil {
		t.Fatal(err)
	}
	page.Check(t, "go run ./ecs", out.String())
	for want, times := range map[string]int{" 0 failed;": 2, "exit 0 in": 4, "; 0 pinned sessions\n": 1, "pool of 5\n": 3} {
		if got := strings.Count(out.String(), want); got != times {
			t.Errorf("%q is there %d times, want %d", want, got, times)
		}
	}
}
