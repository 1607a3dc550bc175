package main

// The four stages beside what they were planned with: on a terminal, and as the page
// aurora/COSTS.md.

import (
	"fmt"
	"strings"

	"github.com/aurorapgx/aurorapgx/aurora"
)

func (p *program) printStages(usage aurora.Usage, prices aurora.Prices, asJSON, markdown bool) error {
	stages, err := aurora.StageCosts(usage, prices)
	switch {
	case err != nil:
		return err
	case asJSON:
		return p.printJSON(stages)
	case markdown:
		return printLines(p.stdout, costPage(stages)...)
	}
	st := p.style()
	t := table{right: map[int]bool{2: true, 3: true, 4: true, 5: true}}
	t.add("stage", "capacity", "planned", "floor", "expected", "ceiling")
	for _, s := range stages {
		t.add(s.Title, acuRange(s.Capacity), s.Planned, dollars(s.Estimate.Total.Floor), dollars(s.Estimate.Total.Expected), dollars(s.Estimate.Total.Ceiling))
	}
	lines := append([]string{st.bold("US dollars a month") + fmt.Sprintf(", %s, prices as of %s, before tax and discounts", prices.Region, prices.AsOf), ""}, t.lines()...)
	for _, s := range stages {
		lines = append(lines, "", st.bold(s.Title))
		for _, why := range s.Explained {
			lines = append(lines, "  - "+why)
		}
	}
	lines = append(lines, "", "Assumed: "+strings.Join(stages[len(stages)-1].Estimate.Assumptions[1:], "; ")+".",
		`"aurorapgx cost --stage NAME" shows the lines of a bill, and takes your own usage.`)
	return printLines(p.stdout, lines...)
}

func acuRange(c aurora.Capacity) string { return fmt.Sprintf("%g-%g ACU", c.Min, c.Max) }

// costPage is the page. A test compares it with the one that is committed.
func costPage(stages []aurora.StageCost) []string {
	first := stages[0].Estimate
	lines := []string{
		"# What the stages cost",
		"",
		"<!-- Written by: go run ./cmd/aurorapgx cost --stage all --markdown -->",
		"",
		fmt.Sprintf("US dollars for a month of 730 hours in %s, list prices as of %s, before tax and discounts. Floor: every instance at its", first.Region, first.PricesAsOf),
		"minimum capacity all month. Ceiling: every instance at its maximum all month. Expected: the capacity averages a fifth of the way from",
		"minimum to maximum, with 20 GB of data and 10 million I/O requests. `aurorapgx cost` does the same with your own figures.",
		"",
		"| stage | capacity | planned | floor | expected | ceiling |",
		"|---|---|---|---:|---:|---:|",
	}
	for _, s := range stages {
		lines = append(lines, fmt.Sprintf("| %s | %s | %s | %s | %s | %s |", s.Title, acuRange(s.Capacity), s.Planned,
			dollars(s.Estimate.Total.Floor), dollars(s.Estimate.Total.Expected), dollars(s.Estimate.Total.Ceiling)))
	}
	lines = append(lines,
		"",
		`"Planned" is what the stages were first thought to cost. That plan counted the capacity of one instance. It did not count RDS`,
		"Proxy, which is charged by the ACU of the instances behind it **and for 8 ACU at least**, whatever the database does; nor the second",
		"instance that takes over when the first one fails.",
	)
	for _, s := range stages {
		lines = append(lines, "", "## "+s.Title, "")
		for _, why := range s.Explained {
			lines = append(lines, "- "+why)
		}
		lines = append(lines, "", "| | floor | expected | ceiling | worked out as |", "|---|---:|---:|---:|---|")
		for _, item := range s.Estimate.Items {
			lines = append(lines, fmt.Sprintf("| [%s](%s) | %s | %s | %s | %s |", item.Name, item.Source, dollars(item.Floor), dollars(item.Expected), dollars(item.Ceiling), item.How))
		}
	}
	lines = append(lines, "", "## Where the prices come from", "",
		"The pages behind the names of the lines. The figures in the table are those of AWS's price list as third parties published them",
		"in mid-2026; AWS's own list was not read by a program of ours, and nothing here has been held against a bill. That the proxy is",
		"charged for the sum over all instances is how we read \"based on the capacity of the underlying instances\". I/O-Optimized capacity",
		"is $0.16 an hour in us-east-1 in copies of the price list and $0.156 on some pages. Not included:", "")
	for _, out := range first.NotIncluded {
		lines = append(lines, "- "+out)
	}
	return lines
}
