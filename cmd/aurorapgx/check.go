package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/aurorapgx/aurorapgx/proxy"
)

const checkHelp = `
Finds out whether a service could connect, and if not why: the connection string and where each
setting comes from, PG* variables, DNS, TCP, TLS, credentials, login, and behind it the server's
role, clock and settings. It ends with the likely cause and the fix. Exit code 1 if the connect
fails. Run it where the service runs, with the service's environment.

  aurorapgx check postgres://app@app.proxy-abc.eu-west-1.rds.amazonaws.com/orders
  aurorapgx check 'postgres:///?secret=prod/orders'
  DATABASE_URL=postgres://... aurorapgx check

URL is what the service gives to proxy.NewPool; without it, it is read from DATABASE_URL, which
does not show a password in the list of processes. No password and no token is printed.
`

// checked is a report as JSON.
type checked struct {
	OK bool `json:"ok"`
	*proxy.Report
	Error string `json:"error,omitempty"`
}

func runCheck(ctx context.Context, p *program, args []string) error {
	f := p.flags("check", "[--timeout DURATION] [--json] [URL]", checkHelp)
	asJSON := f.json()
	timeout := f.Duration("timeout", 30*time.Second, "give up after this `DURATION`")
	rest, err := f.parse(args, 1)
	if err != nil {
		return err
	}
	url := p.getenv("DATABASE_URL")
	if len(rest) > 0 {
		url = rest[0]
	}
	if url == "" {
		return f.wrong("no URL is given, and DATABASE_URL is not set")
	}
	if *timeout <= 0 {
		return f.wrong("--timeout %s is no time to wait", *timeout)
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	report, failed := proxy.Check(ctx, url)
	c := checked{OK: failed == nil, Report: report}
	if failed != nil {
		c.Error = failed.Error()
	}
	if *asJSON {
		err = p.printJSON(c)
	} else {
		err = p.printCheck(c)
	}
	if err == nil && !c.OK {
		return errAnswered
	}
	return err
}

// printCheck writes a report for people.
func (p *program) printCheck(c checked) error {
	st := p.style()
	marks := map[proxy.Status]string{
		proxy.StatusOK: st.green("✓"), proxy.StatusWarning: st.yellow("!"), proxy.StatusFailed: st.red("✗"), proxy.StatusSkipped: st.dim("-"),
	}
	var lines []string
	for _, s := range c.Steps {
		took := ""
		if d := s.Took.Round(10 * time.Microsecond); d > 0 {
			took = st.dim(" (" + d.String() + ")")
		}
		summary := s.Summary
		if s.Status == proxy.StatusSkipped {
			summary = st.dim(summary)
		}
		lines = append(lines, fmt.Sprintf("%s %s %s%s", marks[s.Status], st.bold(fmt.Sprintf("%-11s", s.Name)), summary, took))
		for _, detail := range s.Details {
			lines = append(lines, st.dim("              "+strings.ReplaceAll(detail, "\n", " ")))
		}
	}
	lines = append(lines, "")
	if c.OK {
		return printLines(p.stdout, append(lines, st.green("ok")+": this connects")...)
	}
	lines = append(lines, st.red("cause")+": "+c.Cause, st.bold("fix")+":   "+c.Fix)
	if c.Passing {
		lines = append(lines, st.dim("It may pass: NewPool and Connect would try again."))
	}
	return printLines(p.stdout, append(lines, st.dim("case "+c.Case+" in proxy/FAILURES.md"))...)
}
