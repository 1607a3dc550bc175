package main

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aurorapgx/aurorapgx/examples/internal/lab"
	"github.com/aurorapgx/aurorapgx/examples/internal/page"
)

// The command of the README. run itself fails if an event fails, if an order is lost or
// there twice, if a connection outlives the function.
func TestLambda(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), &out)
	t.Logf("\n%s", out.String())
	if err != nil {
		t.Fatal(err)
	}
	page.Check(t, "go run ./lambda", out.String())

	// What was opened in INIT serves until the freeze, and each environment connects once after it.
	for pattern, want := range map[string]int{
		`event [1-4] .* 1 connects so far`:             12,
		`event 5 .* 2 connects so far`:                 3,
		`IAM tokens signed so far: [36]\n`:             2,
		`client connections at the proxy: 0\n`:         2,
		`(?m)^15 events, 0 errors, 0 pinned sessions$`: 1,
	} {
		if got := len(regexp.MustCompile(pattern).FindAllString(out.String(), -1)); got != want {
			t.Errorf("%d lines match %q, want %d", got, pattern, want)
		}
	}
}

// Two processes of each: that they work, and what they weigh. How long they take is for
// the command to say.
func TestComparison(t *testing.T) {
	candidates, err := compare(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := report(&out, candidates); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", out.String())
	page.Check(t, "go run ./lambda -compare", out.String())
	if ours, theirs := candidates[0].size, candidates[1].size; float64(ours) > 1.1*float64(theirs) {
		t.Errorf("the binary has %d bytes, by hand %d", ours, theirs)
	}
}

// What goes wrong in a function, and how one hears of it.
func TestFailures(t *testing.T) {
	l, err := lab.Start(t.Context(), lab.Setup{Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	binary, err := lab.Build(t.Context(), t.TempDir(), "lambda/function", "-tags", "lambda.norpc")
	if err != nil {
		t.Fatal(err)
	}
	begin := func(t *testing.T, binary string, variables map[string]string) *environment {
		t.Helper()
		e, err := start(l, binary, variables)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(e.kill)
		return e
	}

	// An error of the handler is Lambda's to report, and the environment goes on.
	t.Run("event", func(t *testing.T) {
		e := begin(t, binary, nil)
		if _, err := e.ready(t.Context()); err != nil {
			t.Fatal(err)
		}
		var r receipt
		if _, err := e.invoke(t.Context(), order{ID: "none", Item: "tea"}, &r); err == nil || !strings.Contains(err.Error(), "quantity_check") {
			t.Errorf("an order of nothing: got %v", err)
		}
		for range 2 { // delivered twice
			if _, err := e.invoke(t.Context(), order{ID: "one", Item: "tea", Quantity: 1}, &r); err != nil || r.Orders != 1 {
				t.Errorf("got %+v, %v", r, err)
			}
		}
	})

	// Work ends before Lambda kills it: an event with less time than that is answered at once.
	t.Run("deadline", func(t *testing.T) {
		minimal, err := lab.Build(t.Context(), t.TempDir(), "lambda/minimal", "-tags", "lambda.norpc")
		if err != nil {
			t.Fatal(err)
		}
		for _, binary := range []string{binary, minimal} {
			e := begin(t, binary, nil)
			if _, err := e.ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			e.api.timeout = 400 * time.Millisecond
			var answer json.RawMessage
			if _, err := e.invoke(t.Context(), order{ID: "late", Item: "tea", Quantity: 1}, &answer); err == nil || !strings.Contains(err.Error(), "deadline exceeded") {
				t.Errorf("%s: got %s, %v", filepath.Base(binary), answer, err)
			}
		}
	})

	// A mistake in the configuration ends INIT, and the log says which.
	t.Run("configuration", func(t *testing.T) {
		e := begin(t, binary, map[string]string{"DATABASE_URL": l.Proxy.URL(lab.User, lab.Database) + "&statement_timeout=5s"})
		select {
		case <-e.exited:
		case <-time.After(10 * time.Second):
			t.Fatal("the function runs with a parameter that RDS Proxy refuses")
		}
		if !strings.Contains(e.log.String(), "statement_timeout") {
			t.Errorf("the log does not say what is wrong: %s", e.log.String())
		}
	})
}
