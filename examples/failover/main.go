// Failover takes a cluster apart while three clients work on it, and shows side by side what
// each of them noticed:
//
//	go run ./failover
//	go run ./failover -runs 10 -html '' -faults all      (as make bench-failover)
//
// The clients are plain pgxpool with the usual retry loop, pgxpool with all instances as
// hosts and target_session_attrs=read-write, tuned as well as can be, and this library. They work at
// the same time on the same cluster, so that each run compares like with like.
//
// What is real: PostgreSQL, its replica, promotion, TLS, SIGKILL, and the packets that are
// lost. What is not is said by the packages it comes from: internal/pgtest/lab for
// the cluster and its names, proxy/proxytest for RDS Proxy. None of it is AWS.
//
// Where to read on: clients.go has the three clients, faults.go what is done to them, run.go how it is
// measured; page.go and table.go show it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// settings are the flags.
type settings struct {
	runs    int
	faults  string
	html    string
	svg     string
	lag     time.Duration
	workers int
	verbose bool
}

func main() {
	var s settings
	flag.IntVar(&s.runs, "runs", 1, "how often each fault is gone through")
	flag.StringVar(&s.faults, "faults", "kill,hole,kill-lag,planned,proxy", "which faults, or all: "+strings.Join(faultNames(), ", "))
	flag.StringVar(&s.html, "html", "failover.html", "where to write the page; empty for none")
	flag.StringVar(&s.svg, "svg", "", "a folder to write each fault's drawing into")
	flag.DurationVar(&s.lag, "lag", 30*time.Second, "how long DNS stays behind, in the faults where it does")
	flag.IntVar(&s.workers, "workers", 8, "transactions at a time, of each client")
	flag.BoolVar(&s.verbose, "v", false, "say what failed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout, s)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "failover:", err)
		os.Exit(1)
	}
}

// run goes through the faults and reports. It fails if one of our client's transactions failed for
// good, or if the database does not hold what our client was told.
func run(ctx context.Context, out io.Writer, s settings) (err error) {
	chosen, err := choose(s.faults)
	if err != nil {
		return err
	}
	b, err := startBench(ctx, out, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	var results []*result
	for _, f := range chosen {
		r := &result{fault: f, lag: f.lagOf(s)}
		results = append(results, r)
		for n := range s.runs {
			one, err := b.once(ctx, f)
			if err != nil {
				return fmt.Errorf("%s, run %d: %w", f.name, n+1, err)
			}
			r.runs = append(r.runs, one)
			b.say("%-14s run %d of %d: %s", f.name, n+1, s.runs, one.brief())
		}
	}
	b.say("")
	writeTable(out, results)
	if s.html != "" {
		if err := writePage(s.html, results, b.source); err != nil {
			return err
		}
		b.say("\nThe page is %s", s.html)
	}
	if s.svg != "" {
		if err := writeDrawings(s.svg, results); err != nil {
			return err
		}
	}
	return verdict(results)
}

// verdict holds our client to what it promises.
func verdict(results []*result) error {
	var errs []error
	for _, r := range results {
		for i, one := range r.runs {
			ours := one.tracks[len(one.tracks)-1]
			if ours.failed > 0 || ours.wrong() > 0 {
				errs = append(errs, fmt.Errorf("%s, run %d: %d transactions failed, %d wrong results", r.fault.name, i+1, ours.failed, ours.wrong()))
			}
		}
	}
	return errors.Join(errs...)
}

func choose(names string) ([]fault, error) {
	if names == "all" {
		return faults, nil
	}
	var chosen []fault
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(faults, func(f fault) bool { return f.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no fault %q; there are %s", name, strings.Join(faultNames(), ", "))
		}
		chosen = append(chosen, faults[i])
	}
	return chosen, nil
}

func faultNames() []string {
	var names []string
	for _, f := range faults {
		names = append(names, f.name)
	}
	return names
}
