package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/aurorapgx/aurorapgx/examples/internal/page"
)

func TestOtel(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), &out)
	t.Logf("\n%s", out.String())
	if err != nil {
		t.Fatal(err)
	}
	page.Check(t, "go run ./otel", out.String())
	for _, secret := range []string{"order-1", "order-2", "insert into", "password="} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("the output says %q", secret)
		}
	}
}
