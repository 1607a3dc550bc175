package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/aurorapgx/aurorapgx/aurora"
)

const budgetHelp = `
Works out how many database connections a spec has and how many each task of the application may
open (pool_max_conns): from the maximum capacity to max_connections, to the proxy's share of
it, to the tasks. Clients are given as NAME=TASKS, or NAME=TASKSxCONNS where the pool's size is
decided, with @readers behind it for those that connect to the readers:

  aurorapgx budget --stage growth --client api=20 --client job=4x2 --client report=3@readers

TASKS is the largest number that runs at a time: tasks of a service, environments of a function.
Exit code 1 if the clients together can want more connections than there are.
` + specHelp

// clientList is the flag --client.
type clientList []aurora.Client

func (l *clientList) String() string { return "" }

// Set reads NAME=TASKS[xCONNS][@readers].
func (l *clientList) Set(text string) error {
	name, rest, ok := strings.Cut(text, "=")
	c := aurora.Client{Name: name}
	rest, c.Reader = strings.CutSuffix(rest, "@readers")
	tasks, conns, sized := strings.Cut(rest, "x")
	var err, errConns error
	c.Tasks, err = strconv.Atoi(tasks)
	if sized {
		c.MaxConns, errConns = strconv.Atoi(conns)
	}
	if !ok || name == "" || errors.Join(err, errConns) != nil {
		return errors.New(`write NAME=TASKS, NAME=TASKSxCONNS or NAME=TASKS@readers, as "api=20"`)
	}
	*l = append(*l, c)
	return nil
}

func runBudget(_ context.Context, p *program, args []string) error {
	f := p.flags("budget", "[--stage NAME] [--spec FILE] [--client NAME=TASKS]... [--json]", budgetHelp)
	from, asJSON := f.spec(), f.json()
	var clients clientList
	f.Var(&clients, "client", "a part of the application, as `NAME=TASKS[xCONNS][@readers]`; may be repeated")
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	spec, err := from.read(f)
	if err != nil {
		return err
	}
	if err := spec.Validate(); err != nil {
		return err
	}
	b, err := aurora.ConnectionBudget(spec, clients...)
	if err != nil {
		return err
	}
	if *asJSON {
		err = p.printJSON(b)
	} else {
		err = p.printBudget(spec.WithDefaults(), b)
	}
	if err == nil && (b.Writer.Oversubscribed || b.Readers.Oversubscribed) {
		return errAnswered
	}
	return err
}

func (p *program) printBudget(spec aurora.Spec, b aurora.Budget) error {
	st := p.style()
	lines := []string{
		fmt.Sprintf("capacity         %g to %g ACU", spec.Capacity.Min, spec.Capacity.Max),
		fmt.Sprintf("max_connections  %d on each instance%s", b.MaxConnections, budgetRemark(b)),
	}
	share := fmt.Sprintf("clients' share   %d %%: the rest is for administrators and what RDS keeps", b.SharePercent)
	if b.Proxied {
		share = fmt.Sprintf("proxy's share    %d %% (MaxConnectionsPercent)", b.SharePercent)
	}
	t := table{right: map[int]bool{1: true, 2: true, 3: true}}
	t.add("", "connections", "usable", "wanted")
	for _, side := range []struct {
		name string
		aurora.Supply
	}{{"writer", b.Writer}, {count(b.Readers.Instances, "reader"), b.Readers}} {
		if side.Instances > 0 {
			t.add(side.name, strconv.Itoa(side.Connections), strconv.Itoa(side.Usable), strconv.Itoa(side.Demand))
		}
	}
	lines = append(append(append(lines, share, ""), t.lines()...), "", "Usable leaves 30 % above the peak, as AWS advises.")
	if len(b.Clients) == 0 {
		return printLines(p.stdout, append(lines, "", "Give --client NAME=TASKS to divide them.")...)
	}
	t = table{right: map[int]bool{1: true, 2: true, 3: true}}
	t.add("client", "tasks", "pool_max_conns", "together", "")
	for _, c := range b.Clients {
		to := ""
		if c.Reader {
			to = "readers"
		}
		t.add(c.Name, strconv.Itoa(c.Tasks), strconv.Itoa(c.MaxConns), strconv.Itoa(c.Tasks*c.MaxConns), to)
	}
	lines = append(append(append(lines, ""), t.lines()...), "", "pool_max_conns is what a task may have at most, and no advice to have as many.")
	for i, side := range []aurora.Supply{b.Writer, b.Readers} {
		name := []string{"writer", "readers"}[i]
		switch {
		case side.Oversubscribed:
			lines = append(lines, st.red("oversubscribed")+fmt.Sprintf(" (%s): %s", name, surplus(spec, side)))
		case side.Tight:
			lines = append(lines, st.yellow("tight")+fmt.Sprintf(" (%s): a peak may use %d of %d connections, which leaves less than 30 %% above it", name, side.Demand, side.Connections))
		}
	}
	return printLines(p.stdout, lines...)
}

func budgetRemark(b aurora.Budget) string {
	switch {
	case b.Capped && b.Documented:
		return ": a minimum of 0 or 0.5 ACU keeps it there"
	case b.Capped:
		return ": a minimum of 0 or 0.5 ACU keeps it there (interpolated: AWS documents no figure for this maximum)"
	case !b.Documented:
		return " (interpolated: AWS documents no figure for this maximum)"
	default:
		return ""
	}
}

func surplus(spec aurora.Spec, side aurora.Supply) string {
	extra := side.Demand - side.Connections
	if spec.Proxy.Off {
		return fmt.Sprintf("when all pools are full, %d connects are refused with SQLSTATE 53300", extra)
	}
	return fmt.Sprintf("when all pools are busy, %d transactions wait for a connection, up to %s (BorrowTimeout)", extra, spec.Proxy.BorrowTimeout)
}
