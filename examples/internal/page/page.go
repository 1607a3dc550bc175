// Package page keeps the examples' READMEs true.
package page

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Check compares the output of a command with the one that README.md in the test's
// directory shows below "$ command". Figures may differ, words may not. With
// UPDATE_README=1 in the environment the README is brought up to date instead.
func Check(tb testing.TB, command, output string) {
	tb.Helper()
	const file = "README.md"
	text, err := os.ReadFile(file)
	if err != nil {
		tb.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), "```\n$ "+command+"\n")
	shown, after, closed := strings.Cut(rest, "```\n")
	if !found || !closed {
		tb.Fatalf("%s shows no output of %q", file, command)
	}
	got, want := shape(output), shape(shown)
	if got == want {
		return
	}
	if os.Getenv("UPDATE_README") == "" {
		tb.Errorf("%s shows another output of %q; UPDATE_README=1 replaces it.\nshape of the output:\n%s\nof the README:\n%s", file, command, got, want)
		return
	}
	updated := before + "```\n$ " + command + "\n" + output + "```\n" + after
	if err := os.WriteFile(file, []byte(updated), 0o600); err != nil { //nolint:gosec // file is a constant
		tb.Fatal(err)
	}
}

// figure is a number, with its sign, decimals and unit of time.
var figure = regexp.MustCompile(`[-+]?\d+(\.\d+)?(ns|µs|ms|s|m|h)?(\d+(\.\d+)?(ms|s|m))*`)

// spaces align columns, and follow the length of the figures.
var spaces = regexp.MustCompile(` +`)

func shape(text string) string {
	return strings.TrimSpace(spaces.ReplaceAllString(figure.ReplaceAllString(text, "#"), " "))
}
