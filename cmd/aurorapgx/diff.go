package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/aurorapgx/aurorapgx/aurora"
)

const diffHelp = `
Compares a deployed template with the one of a spec, and says what deploying the latter would
do: which resources come, go, change in place, or are replaced, that is created anew and empty.
The deployed one is JSON as AWS has it:

  aws cloudformation get-template --stack-name orders > deployed.json
  aurorapgx diff --spec orders.json deployed.json

Exit code 1 if something that exists would be replaced or deleted. Changes of parameter values at
deployment are not seen.
` + specHelp

func runDiff(_ context.Context, p *program, args []string) error {
	f := p.flags("diff", "[--stage NAME] [--spec FILE] [--json] DEPLOYED", diffHelp)
	from, asJSON := f.spec(), f.json()
	files, err := f.parse(args, 1)
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return f.wrong("which template is deployed? Name its file, or - for standard input")
	}
	if *from.file == "-" && files[0] == "-" {
		return f.wrong("the spec and the deployed template cannot both be standard input")
	}
	spec, err := from.read(f)
	if err != nil {
		return err
	}
	next, err := spec.Template()
	if err != nil {
		return err
	}
	deployed, name, err := p.readFile(files[0])
	if err != nil {
		return err
	}
	changes, err := aurora.Diff(deployed, next)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	harmful := 0
	for _, c := range changes {
		if c.Harmful() {
			harmful++
		}
	}
	if *asJSON {
		err = p.printJSON(append([]aurora.Change{}, changes...))
	} else {
		err = p.printChanges(changes, harmful)
	}
	if err == nil && harmful > 0 {
		return errAnswered
	}
	return err
}

func (p *program) printChanges(changes []aurora.Change, harmful int) error {
	if len(changes) == 0 {
		return printLines(p.stdout, "no difference")
	}
	st := p.style()
	paint := map[aurora.Effect]func(string) string{
		aurora.Create: st.green, aurora.Update: st.yellow, aurora.Keep: st.yellow, aurora.NoEffect: st.dim, aurora.Delete: st.red, aurora.Replace: st.red,
	}
	var lines []string
	for _, c := range changes {
		what := st.bold(c.Resource)
		switch {
		case c.Resource == "":
			what = st.bold(c.Path)
		case c.Path != "":
			what += " " + strings.TrimPrefix(c.Path, "Properties.")
		default:
			what += " " + c.Type
		}
		line := paint[c.Effect](fmt.Sprintf("%-7s", c.Effect)) + "  " + what
		if before, after := shown(c.Before), shown(c.After); c.Path != "" && before != after { // the same where a reference draws along
			line += ": " + before + " -> " + after
		}
		lines = append(lines, line)
		if c.Why != "" {
			lines = append(lines, "         "+c.Why)
		}
		if c.Doc != "" {
			lines = append(lines, "         "+st.dim(c.Doc))
		}
	}
	lines = append(lines, count(len(changes), "difference"))
	if harmful > 0 {
		lines = append(lines, st.red(fmt.Sprintf("%d of them replace or delete something that exists", harmful)))
	}
	return printLines(p.stdout, lines...)
}

// shown is a value of a template, short enough for a line.
func shown(v any) string {
	if v == nil {
		return "nothing"
	}
	raw, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	if text := []rune(string(raw)); len(text) > 60 {
		return string(text[:57]) + "..."
	}
	return string(raw)
}
