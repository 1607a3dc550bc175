package main

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/aurorapgx/aurorapgx/examples/internal/page"
)

func TestGORM(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), &out)
	t.Logf("\n%s", out.String())
	if err != nil {
		t.Fatal(err)
	}
	page.Check(t, "go run ./gorm", out.String())
	for _, want := range []string{"coffee  1 orders", "tea     21 orders, 23 pieces", "sold: 20\n", " 0 pinned sessions\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output does not say %q", want)
		}
	}
}

// The context of opening is not that of the statements.
func TestContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	db, sqlDB, err := open(ctx, "postgres://app:secret@localhost/app")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sqlDB.Close() }()
	cancel()
	if err := db.Statement.Context.Err(); err != nil {
		t.Errorf("a statement's context: %v", err)
	}
}
