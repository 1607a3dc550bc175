package main

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// requireLabels holds README.md to the report: what it shows has to be there, under that name.
func requireLabels(t *testing.T, report string) {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, found := strings.Cut(string(text), "what the application noticed\n")
	shown, _, closed := strings.Cut(shown, "```")
	if !found || !closed {
		t.Fatal("README.md shows no report")
	}
	for line := range strings.Lines(shown) {
		label, _, _ := strings.Cut(strings.TrimSpace(line), "  ")
		if !strings.Contains(report, label) {
			t.Errorf("README.md shows %q, and the report does not", label)
		}
	}
}

// The whole of it, as a newcomer sees it.
func TestQuickstart(t *testing.T) {
	// What a shell may have, and must not get in the way.
	t.Setenv("AWS_PROFILE", "no-such-profile")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "my own")
	t.Setenv("PGSSLMODE", "disable")
	var out bytes.Buffer
	err := run(t.Context(), &out)
	t.Logf("\n%s", out.String())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"listener up", "primary killed", "standby promoted", "proxy serves again", "tx/s", "\nOK: ",
		"0 given up", "pinned sessions          0\n", "IAM tokens",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output does not say %q", want)
		}
	}
	requireLabels(t, out.String())
	if strings.Contains(out.String(), "connect: ") {
		t.Error("the application noticed that a connect failed")
	}
	if got := os.Getenv("AWS_SECRET_ACCESS_KEY"); got != "my own" {
		t.Error("the environment was not restored")
	}
}

// cancelAt ends a run when it prints a text.
type cancelAt struct {
	text   string
	cancel context.CancelCauseFunc
	at     time.Time
	bytes.Buffer
}

var errInterrupted = errors.New("interrupted by the test")

func (c *cancelAt) Write(p []byte) (int, error) {
	if c.at.IsZero() && bytes.Contains(p, []byte(c.text)) {
		c.at = time.Now()
		c.cancel(errInterrupted)
	}
	return c.Buffer.Write(p)
}

// Ctrl-C in the worst moment: every worker waits for a database that is gone.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	out := &cancelAt{text: "primary killed", cancel: cancel}
	err := run(ctx, out)
	if !errors.Is(err, errInterrupted) {
		t.Fatalf("got %v, after\n%s", err, out.String())
	}
	took := time.Since(out.at)
	t.Logf("everything was cleaned up %s after the interrupt", took.Round(time.Millisecond))
	if took > 10*time.Second {
		t.Errorf("cleaning up took %s", took)
	}
}

// fair are books and a ledger that agree: two transfers, of which the second took two
// attempts.
func fair() (books, *ledger) {
	found := books{balances: map[int]int64{}}
	for id := 1; id <= accounts; id++ {
		found.balances[id] = openingBalance
	}
	found.transfers = []entry{
		{ID: attemptID{1, 1}, Source: 1, Target: 2, Amount: 5},
		{ID: attemptID{2, 2}, Source: 3, Target: 4, Amount: 7},
	}
	for _, e := range found.transfers {
		found.balances[e.Source] -= e.Amount
		found.balances[e.Target] += e.Amount
	}
	return found, &ledger{done: []attemptID{{1, 1}, {2, 2}}, undone: []attemptID{{2, 1}}}
}

func TestCheckPassesBooksThatAgree(t *testing.T) {
	if err := check(fair()); err != nil {
		t.Error(err)
	}
}

func TestCheckFailsWhenSomethingIsWrong(t *testing.T) {
	again := func(b *books, e entry) { // made for good, balances and all
		b.transfers = append(b.transfers, e)
		b.balances[e.Source] -= e.Amount
		b.balances[e.Target] += e.Amount
	}
	tests := map[string]struct {
		spoil func(*books, *ledger)
		want  string
	}{
		"money is lost": {func(b *books, _ *ledger) { b.balances[9]-- }, "add up to 99999"},
		"money moved without a transfer": {func(b *books, _ *ledger) {
			b.balances[9]--
			b.balances[10]++
		}, "account 9 has 999"},
		"an account is gone": {func(b *books, _ *ledger) { delete(b.balances, 50) }, "99 accounts"},
		"an acknowledged transfer is missing": {func(b *books, _ *ledger) {
			again(b, entry{Source: 2, Target: 1, Amount: 5})
			b.transfers = b.transfers[1:2]
		}, "transfer 1, acknowledged at attempt 1, was made 0 times"},
		"a transfer was made twice": {func(b *books, _ *ledger) {
			again(b, entry{ID: attemptID{1, 2}, Source: 1, Target: 2, Amount: 5})
		}, "was made 2 times"},
		"an attempt was written twice": {func(b *books, _ *ledger) { again(b, b.transfers[0]) }, "by that attempt 2 times"},
		"a failed attempt is there": {func(_ *books, l *ledger) {
			l.done = []attemptID{{1, 1}}
			l.undone = append(l.undone, attemptID{2, 2})
		}, "transfer 2 was reported failed at attempt 2"},
		"a transfer that nobody acknowledged": {func(b *books, _ *ledger) {
			again(b, entry{ID: attemptID{3, 1}, Source: 5, Target: 6, Amount: 1})
		}, "3 transfers are in the table, 2 were acknowledged"},
		"an outcome is unknown": {func(_ *books, l *ledger) { l.unknown = []attemptID{{4, 1}} }, "could not find out"},
		"nothing happened": {func(b *books, l *ledger) {
			*l = ledger{}
			again(b, entry{Source: 2, Target: 1, Amount: 5})
			again(b, entry{Source: 4, Target: 3, Amount: 7})
			b.transfers = nil
		}, "no transfer was made"},
	}
	for _, name := range slices.Sorted(maps.Keys(tests)) {
		t.Run(name, func(t *testing.T) {
			found, believed := fair()
			tests[name].spoil(&found, believed)
			err := check(found, believed)
			if err == nil || !strings.Contains(err.Error(), tests[name].want) {
				t.Errorf("got %v, want %q", err, tests[name].want)
			}
		})
	}
}

func TestSparkline(t *testing.T) {
	for want, numbers := range map[string][]int{"": nil, "··": {0, 0}, "·▂▅█": {0, 1, 4, 7}} {
		if got := sparkline(numbers); got != want {
			t.Errorf("%v: got %q, want %q", numbers, got, want)
		}
	}
}
