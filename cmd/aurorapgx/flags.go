package main

// Flags: package flag, with errors that suggest, help on stdout, and flags after arguments.

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
)

// flags are those of one verb.
type flags struct {
	*flag.FlagSet

	p        *program
	synopsis string // what follows the verb's name
	about    string // what it does, for help
}

// flags begins a verb's command line. The synopsis stands behind the verb's name in the usage
// line, and about is the help's text, wrapped by its author.
func (p *program) flags(verb, synopsis, about string) *flags {
	f := &flags{flag.NewFlagSet(verb, flag.ContinueOnError), p, synopsis, about}
	f.SetOutput(io.Discard) // parse reports
	f.Usage = func() {}
	return f
}

// json declares --json.
func (f *flags) json() *bool { return f.Bool("json", false, "print JSON, for programs") }

// parse reads the arguments and returns those that are not flags, at most the number given.
// Asked for help it prints that and returns flag.ErrHelp.
func (f *flags) parse(args []string, most int) ([]string, error) {
	var rest []string
	for {
		before := args
		if err := f.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, errors.Join(err, f.help())
			}
			return nil, &usageError{verb: f.Name(), text: f.explain(err)}
		}
		args = f.Args()
		if len(args) == 0 {
			break
		}
		if n := len(before) - len(args); n > 0 && before[n-1] == "--" {
			rest = append(rest, args...)
			break
		}
		rest, args = append(rest, args[0]), args[1:]
	}
	if len(rest) > most { // Which is not said: a connection string without quotes leaves a password there.
		return nil, f.wrong("too many arguments: %d, where it takes %d; put quotes around one with spaces in it", len(rest), most)
	}
	return rest, nil
}

// wrong is a usageError of this verb.
func (f *flags) wrong(format string, args ...any) error {
	return &usageError{verb: f.Name(), text: f.Name() + ": " + fmt.Sprintf(format, args...)}
}

// explain turns an error of package flag into one that says what to write instead.
func (f *flags) explain(err error) string {
	name, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	if !unknown {
		return f.Name() + ": " + err.Error()
	}
	var names []string
	f.VisitAll(func(d *flag.Flag) { names = append(names, d.Name) })
	return fmt.Sprintf("%s: there is no flag --%s", f.Name(), name) + didYouMean("--", closest(name, names))
}

func (f *flags) help() error {
	var b strings.Builder
	st := f.p.style()
	fmt.Fprintf(&b, "Usage: %s\n\n%s\n", st.bold(strings.TrimSpace("aurorapgx "+f.Name()+" "+f.synopsis)), strings.TrimSpace(f.about))
	first := true
	f.VisitAll(func(d *flag.Flag) {
		if first {
			b.WriteString("\nFlags:\n")
			first = false
		}
		value, usage := flag.UnquoteUsage(d)
		head := "--" + d.Name
		if value != "" {
			head += " " + value
		}
		fmt.Fprintf(&b, "  %s\n        %s", st.bold(head), strings.ReplaceAll(usage, "\n", "\n        "))
		if d.DefValue != "" && d.DefValue != "false" && d.DefValue != "0" {
			fmt.Fprintf(&b, " (default %s)", d.DefValue)
		}
		b.WriteString("\n")
	})
	_, err := io.WriteString(f.p.stdout, b.String())
	return err
}

// usageError is a command line that makes no sense.
type usageError struct {
	verb string // "" for the program as a whole
	text string
}

func (e *usageError) Error() string { return e.text }

// hint says where to read on.
func (e *usageError) hint() string {
	if e.verb == "" {
		return `run "aurorapgx help" for the list of verbs`
	}
	return fmt.Sprintf(`run "aurorapgx help %s" for its flags`, e.verb)
}

func didYouMean(prefix, name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", prefix+name)
}

// closest is the candidate that was meant by what was written, or "" if none is near.
func closest(written string, candidates []string) string {
	best, distance := "", len(written)/2+1
	for _, c := range candidates {
		w, l := strings.ToLower(written), strings.ToLower(c)
		d := editDistance(w, l)
		if len(w) > 2 && strings.HasPrefix(l, w) || len(l) > 2 && strings.HasPrefix(w, l) {
			d = min(d, 1) // cut short, or spelled out
		}
		if d < distance {
			best, distance = c, d
		}
	}
	return best
}

// editDistance counts the insertions, deletions and substitutions between two words
// (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
