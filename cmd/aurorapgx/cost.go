package main

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/aurorapgx/aurorapgx/aurora"
)

const costHelp = `
Estimates what a spec costs in a month: the floor with every instance at its minimum capacity,
the ceiling with every instance at its maximum, and what is to be expected in between. RDS Proxy
is charged for 8 ACU at least, which is more than a small database costs; its line says so.

  aurorapgx cost --stage growth --average-acu 3.5 --storage-gb 200
  aurorapgx cost --stage all

"--stage all" holds the four stages against what they were first planned with. Prices are a
dated table of list prices; --prices changes them, from a JSON object with the fields of
aurora.Prices in lower camel case, such as {"acuHour": 0.11}. For a region that is not in the
table it has to hold every price; one that is not charged there is 0.
` + specHelp

func runCost(_ context.Context, p *program, args []string) error {
	f := p.flags("cost", "[--stage NAME|all] [--spec FILE] [--json]", costHelp)
	from, asJSON := f.spec(), f.json()
	region := f.String("region", "us-east-1", "with the prices of the region `NAME`: "+strings.Join(aurora.PriceRegions(), ", "))
	file := f.String("prices", "", "read prices from `FILE`, JSON, over those of the region; - is standard input")
	markdown := f.Bool("markdown", false, "with --stage all, print a page")
	var usage aurora.Usage
	f.Float64Var(&usage.AverageACU, "average-acu", 0, "the writer's average capacity, `ACU`\n(default: a fifth of the way from minimum to maximum)")
	f.Float64Var(&usage.ReaderACU, "reader-acu", 0, "each reader's average capacity, `ACU` (default: the writer's)")
	f.Float64Var(&usage.StorageGB, "storage-gb", 0, "size of the data, `GB` (default: 20)")
	f.Float64Var(&usage.IOMillion, "io-million", 0, "I/O requests a month, `MILLIONS` (default: 10)")
	f.Float64Var(&usage.BackupGB, "backup-gb", 0, "backups beyond what is free, `GB` (default: as much as the data)")
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	prices, err := p.readPrices(*region, *file)
	if err != nil {
		return err
	}
	if *from.stage == "all" {
		if *from.file != "" {
			return f.wrong("--stage all takes no --spec")
		}
		return p.printStages(usage, prices, *asJSON, *markdown)
	}
	if *markdown {
		return f.wrong("--markdown goes with --stage all")
	}
	spec, err := from.read(f)
	if err != nil {
		return err
	}
	e, err := aurora.Cost(spec, usage, prices)
	if err != nil {
		return err
	}
	if *asJSON {
		return p.printJSON(e)
	}
	return p.printEstimate(e)
}

func (p *program) readPrices(region, file string) (aurora.Prices, error) {
	prices, err := aurora.PricesIn(region)
	if file == "" {
		return prices, err
	}
	known := err == nil
	data, name, err := p.readFile(file)
	if err != nil {
		return aurora.Prices{}, err
	}
	prices.Region = region
	if err := decodeStrict(data, &prices); err != nil {
		return aurora.Prices{}, fmt.Errorf("%s: %w", name, err)
	}
	if missing := missingPrices(data); !known && len(missing) > 0 {
		return aurora.Prices{}, fmt.Errorf("%s: region %q is not in the table, so every price is needed; write %s as well", name, region, strings.Join(missing, ", "))
	}
	prices.AsOf = strings.TrimPrefix(prices.AsOf+", changed by "+name, ", ")
	return prices, nil
}

// missingPrices are the numbers of aurora.Prices that JSON which has been read as one does not give.
// A price of 0 is given: it is for what costs nothing.
func missingPrices(data []byte) []string {
	var given map[string]json.RawMessage
	_ = json.Unmarshal(data, &given) // it has been read before
	var missing []string
	for _, f := range jsonFields(reflect.TypeFor[aurora.Prices]()) {
		if f.typ.Kind() != reflect.Float64 {
			continue
		}
		has := false
		for name, value := range given {
			has = has || string(value) != "null" && strings.EqualFold(name, f.name) // as encoding/json matches them
		}
		if !has {
			missing = append(missing, f.name)
		}
	}
	return missing
}

func (p *program) printEstimate(e aurora.Estimate) error {
	st := p.style()
	lines := []string{st.bold("US dollars a month") + fmt.Sprintf(", %s, prices as of %s, before tax and discounts", e.Region, e.PricesAsOf), ""}
	t := table{right: map[int]bool{1: true, 2: true, 3: true}}
	t.add("", "floor", "expected", "ceiling", "worked out as")
	for _, item := range e.Items {
		t.add(item.Name, dollars(item.Floor), dollars(item.Expected), dollars(item.Ceiling), item.How)
	}
	t.add("total", dollars(e.Total.Floor), dollars(e.Total.Expected), dollars(e.Total.Ceiling))
	rows := t.lines()
	rows[len(rows)-1] = st.bold(rows[len(rows)-1])
	lines = append(lines, rows...)
	var notes, sources []string
	for _, item := range e.Items {
		if item.Note != "" {
			notes = append(notes, item.Name+": "+item.Note)
		}
		sources = append(sources, item.Source)
	}
	for _, part := range []struct {
		title string
		lines []string
	}{{"Notes", notes}, {"Assumed", e.Assumptions}, {"Not included", e.NotIncluded}, {"Prices", distinct(sources)}} {
		if len(part.lines) > 0 {
			lines = append(lines, "", part.title+":")
			for _, line := range part.lines {
				lines = append(lines, "  - "+line)
			}
		}
	}
	return printLines(p.stdout, lines...)
}

func distinct(list []string) []string {
	var once []string
	seen := map[string]bool{}
	for _, one := range list {
		if !seen[one] {
			once, seen[one] = append(once, one), true
		}
	}
	return once
}

func dollars(v float64) string { return fmt.Sprintf("%.2f", v) }
