// Command proxybench measures proxytest beside PgBouncer: pgbench's throughput with more clients
// than database connections, and what idle clients cost. It prints a table.
//
//	go run ./proxybench [-seconds 5] [-rounds 3] [-clients 50] [-backends 8] [-idle 5000] [-tls]
//
// Needs pgbench and pgbouncer (on Debian: apt-get install postgresql-contrib pgbouncer); it fails without them.
// Run it with PGTEST_MODE=installed: before a PostgreSQL in a container stands docker-proxy, which takes a
// fifth of a machine of two cores, and in between the two proxies do not differ as much.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/pprof"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/aurorapgx/aurorapgx/internal/pgtest"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

// plan is what is measured, as the flags say.
type plan struct {
	seconds, rounds, clients, backends, idle int
	only                                     string
	tls                                      bool
}

func main() {
	var p plan
	var hold, profile string
	flag.IntVar(&p.seconds, "seconds", 5, "length of one run of pgbench")
	flag.IntVar(&p.rounds, "rounds", 3, "runs of each kind, in pairs; the median counts")
	flag.IntVar(&p.clients, "clients", 50, "clients of pgbench")
	flag.IntVar(&p.backends, "backends", 8, "database connections")
	flag.IntVar(&p.idle, "idle", 5000, "idle client connections to hold; 0 for none")
	flag.BoolVar(&p.tls, "tls", false, "clients connect with TLS")
	flag.StringVar(&p.only, "only", "", "one kind of load, such as simple/select-only; all if empty")
	flag.StringVar(&profile, "cpuprofile", "", "file for a CPU profile of the proxy")
	flag.StringVar(&hold, "hold", "", "used by proxybench itself")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	run := func(ctx context.Context) error { return profiled(profile, func() error { return p.run(ctx) }) }
	if hold != "" {
		run = func(ctx context.Context) error { return holdIdle(ctx, hold, p.idle) }
	}
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "proxybench:", err)
		os.Exit(1)
	}
}

// profiled writes a CPU profile of f to a file, if that has a name.
func profiled(file string, f func() error) (err error) {
	if file == "" {
		return f()
	}
	w, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if err := pprof.StartCPUProfile(w); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return f()
}

const (
	benchUser     = "app"
	benchPassword = "app-Passw0rd"
)

func (p plan) run(ctx context.Context) (err error) {
	server, err := pgtest.Start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	dsn, err := prepareDatabase(ctx, server)
	if err != nil {
		return err
	}
	bouncer, err := startBouncer(ctx, p, dsn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bouncer.stop()) }()
	px, err := p.startProxy(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, px.Close()) }()

	fmt.Printf("%s; %d clients over %d database connections; %d rounds of %d s each, in turn; TLS %t\n\n",
		server.Source(), p.clients, p.backends, p.rounds, p.seconds, p.tls)
	if err := p.throughput(ctx, px, bouncer, dsn); err != nil || p.idle == 0 {
		return err
	}
	return p.idleClients(ctx, px)
}

func (p plan) startProxy(ctx context.Context, dsn string) (*proxytest.Proxy, error) {
	opts := []proxytest.Option{
		proxytest.WithUser(benchUser, benchPassword), proxytest.WithMaxConnections(p.backends), proxytest.WithHost("localhost"),
	}
	if !p.tls {
		opts = append(opts, proxytest.WithoutTLSRequired())
	}
	return proxytest.Start(ctx, dsn, opts...)
}

// throughput prints a line for each kind of load.
func (p plan) throughput(ctx context.Context, px *proxytest.Proxy, b *bouncer, dsn string) error {
	ours, theirs := p.urls(px, b, dsn)
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "protocol\tload\tproxytest tps\tPgBouncer tps\tratio\terrors\tCPU of ours per transaction")
	var short []string
	for _, protocol := range []string{"simple", "extended", "prepared"} {
		for _, load := range []string{"select-only", "tpcb-like"} {
			if p.only != "" && p.only != protocol+"/"+load {
				continue
			}
			r, err := p.pairs(ctx, ours, theirs, b.prepares || protocol != "prepared", protocol, load)
			if err != nil {
				return err
			}
			cpu := time.Duration(median(r.cpu)).Round(100 * time.Nanosecond)
			if len(r.theirs) == 0 {
				_, _ = fmt.Fprintf(w, "%s\t%s\t%.0f\tcannot\t-\t0\t%v\n", protocol, load, median(r.ours), cpu)
				continue
			}
			_, _ = fmt.Fprintf(w, "%s\t%s\t%.0f\t%.0f\t%.2f\t0\t%v\n", protocol, load, median(r.ours), median(r.theirs), median(r.ratio), cpu)
			if median(r.ratio) < 0.9 {
				short = append(short, protocol+" "+load)
			}
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(short) > 0 {
		fmt.Println("below 0.9 of PgBouncer:", short)
	}
	return nil
}

// results are those of each round: transactions per second, what the first made of the second, and the
// nanoseconds of CPU time that this process took for a transaction through proxytest.
type results struct{ ours, theirs, ratio, cpu []float64 }

// pairs runs one kind of load through the two proxies in turn.
func (p plan) pairs(ctx context.Context, ours, theirs string, both bool, protocol, load string) (r results, err error) {
	for range p.rounds {
		before := cpuTime()
		x, err := pgbench(ctx, p, ours, protocol, load)
		if err != nil {
			return r, fmt.Errorf("%s %s through proxytest: %w", protocol, load, err)
		}
		r.ours = append(r.ours, x)
		r.cpu = append(r.cpu, float64(cpuTime()-before)/(x*float64(p.seconds)))
		if !both {
			continue
		}
		y, err := pgbench(ctx, p, theirs, protocol, load)
		if err != nil {
			return r, fmt.Errorf("%s %s through PgBouncer: %w", protocol, load, err)
		}
		r.theirs, r.ratio = append(r.theirs, y), append(r.ratio, x/y)
	}
	return r, nil
}

// cpuTime is what this process has taken so far. pgbench and PgBouncer are processes of their own.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

const readyTimeout = 10 * time.Second
