package main

import (
	"context"
	"fmt"
)

const explainHelp = `
Lists the resources of a spec's template, each with the reason it is there and the page where
AWS documents it.
` + specHelp

func runExplain(_ context.Context, p *program, args []string) error {
	f := p.flags("explain", "[--stage NAME] [--spec FILE] [--json]", explainHelp)
	from, asJSON := f.spec(), f.json()
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	spec, err := from.read(f)
	if err != nil {
		return err
	}
	resources, err := spec.Explain()
	if err != nil {
		return err
	}
	if *asJSON {
		return p.printJSON(resources)
	}
	st := p.style()
	var lines []string
	for _, r := range resources {
		lines = append(lines, fmt.Sprintf("%s  %s", st.bold(r.ID), r.Type), "    "+r.Why, "    "+st.dim(r.Doc))
	}
	return printLines(p.stdout, lines...)
}
