package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/aurorapgx/aurorapgx/aurora"
)

const validateHelp = `
Finds what is wrong with a spec: what AWS would refuse, and what it would accept and you would
regret, each with what to write instead and the page that says so. Exit code 1 if there is
anything. Warnings do not change the exit code. With --json it also prints the spec with
all defaults filled in.
` + specHelp

// problem is a finding as JSON.
type problem struct {
	Field  string `json:"field"`
	Rule   string `json:"rule"`
	Reason string `json:"reason"`
	Doc    string `json:"doc"`
}

type validation struct {
	Valid    bool             `json:"valid"`
	Problems []problem        `json:"problems"`
	Warnings []aurora.Warning `json:"warnings"`
	Spec     aurora.Spec      `json:"spec"`
}

func runValidate(_ context.Context, p *program, args []string) error {
	f := p.flags("validate", "[--stage NAME] [--spec FILE] [--json]", validateHelp)
	from, asJSON := f.spec(), f.json()
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	spec, err := from.read(f)
	if err != nil {
		return err
	}
	v := validation{Problems: fieldErrors(spec.Validate()), Warnings: []aurora.Warning{}, Spec: spec.WithDefaults()}
	if v.Valid = len(v.Problems) == 0; v.Valid {
		v.Warnings = append(v.Warnings, spec.Warnings()...)
	}
	if *asJSON {
		err = p.printJSON(v)
	} else {
		err = p.printValidation(v)
	}
	if err == nil && !v.Valid {
		return errAnswered
	}
	return err
}

func (p *program) printValidation(v validation) error {
	st := p.style()
	var lines []string
	show := func(mark, field, reason, doc string) {
		lines = append(lines, fmt.Sprintf("%s  %s: %s", mark, st.bold(field), reason), "    "+st.dim(doc))
	}
	for _, one := range v.Problems {
		show(st.red("error  "), one.Field, one.Reason, one.Doc)
	}
	for _, one := range v.Warnings {
		show(st.yellow("warning"), one.Field, one.Reason, one.Doc)
	}
	verdict := st.green("valid")
	if !v.Valid {
		verdict = st.red("not valid")
	}
	lines = append(lines, fmt.Sprintf("%s: %s, %s", verdict, count(len(v.Problems), "error"), count(len(v.Warnings), "warning")))
	return printLines(p.stdout, lines...)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// fieldErrors takes a joined error apart.
func fieldErrors(err error) []problem {
	found := []problem{}
	if err == nil {
		return found
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range joined.Unwrap() {
			found = append(found, fieldErrors(one)...)
		}
		return found
	}
	if field := (*aurora.FieldError)(nil); errors.As(err, &field) {
		return append(found, problem{field.Field, string(field.Rule), field.Reason, field.Doc})
	}
	return append(found, problem{Reason: err.Error()})
}
