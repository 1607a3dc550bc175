package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/aurorapgx/aurorapgx/examples/internal/page"
)

func TestMultiTenant(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), &out)
	t.Logf("\n%s", out.String())
	if err != nil {
		t.Fatal(err)
	}
	page.Check(t, "go run ./multi-tenant", out.String())
	for _, want := range []string{"as it    2 1", "SET LOCAL", "become('app'): 0 0 0 notes\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output does not say %q", want)
		}
	}
}
