package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// summary is one client's row for one fault.
type summary struct {
	client          string
	median, worst   wait          // from "writes are accepted" to the first commit
	calm            time.Duration // median time to the last failed attempt
	errors          int           // failed attempts, median
	failed          int           // transactions given up, all runs
	doubled, missed int           // all runs
}

// summarize is the rows for one fault.
func (r *result) summarize() []summary {
	var rows []summary
	for i := range clientNames {
		s := summary{client: clientNames[i]}
		var firsts []wait
		var calms []time.Duration
		var errs []int
		for _, one := range r.runs {
			t := one.tracks[i]
			firsts = append(firsts, one.firstCommit(t))
			calms = append(calms, t.back)
			errs = append(errs, len(t.errors))
			s.failed += t.failed
			s.doubled += t.doubled
			s.missed += t.missing
		}
		slices.SortFunc(firsts, compareWaits)
		slices.Sort(calms)
		slices.Sort(errs)
		s.median, s.worst = firsts[len(firsts)/2], firsts[len(firsts)-1]
		s.calm, s.errors = calms[len(calms)/2], errs[len(errs)/2]
		rows = append(rows, s)
	}
	return rows
}

// shown is a duration with as many digits as it deserves.
func shown(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	default:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
}

// writeTable prints what a terminal can show.
func writeTable(out io.Writer, results []*result) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "fault\tDNS lag\tclient\tfirst commit, median\tworst\tlast error\tfailed attempts\tgiven up\twrong\t")
	for _, r := range results {
		for i, s := range r.summarize() {
			name, lag := r.fault.name, r.lag.String()
			if r.fault.proxied {
				lag = "-"
			}
			if i > 0 {
				name, lag = "", ""
			}
			_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\t\n", name, lag, s.client,
				s.median, s.worst, shown(s.calm), s.errors, s.failed, s.doubled+s.missed)
		}
	}
	_ = w.Flush()
	runs := 0
	if len(results) > 0 {
		runs = len(results[0].runs)
	}
	_, _ = fmt.Fprintln(out, strings.TrimSpace(fmt.Sprintf(`
%d runs of each fault. Times are from the moment the new writer accepts writes; with a > the client had not come
back when the run ended. The last error and failed attempts are medians. Given up: transactions that failed for
good. Wrong: rows that are there twice, or acknowledged and not there; both are sums.`, runs)))
}
