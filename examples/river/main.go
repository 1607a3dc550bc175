// River shows which of River's features work through RDS Proxy, and which want a direct
// endpoint:
//
//	go run ./river
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/aurorapgx/aurorapgx/examples/internal/lab"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

const schema = `create table orders (id text primary key, item text not null)`

// jobs is how many orders are placed in each round.
const jobs = 20

func main() { lab.Main("river", run) }

func run(ctx context.Context, out io.Writer) (err error) {
	l, err := lab.Start(ctx, lab.Setup{Schema: schema})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	restore, err := l.SetEnvironment()
	if err != nil {
		return err
	}
	defer restore()
	pool, err := proxy.NewPool(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()
	direct, err := proxy.NewPool(ctx, os.Getenv("DIRECT_URL"))
	if err != nil {
		return err
	}
	defer direct.Close()
	if err := migrate(ctx, direct); err != nil {
		return err
	}

	_, _ = fmt.Fprintf(out, "jobs are inserted through the proxy, with InsertManyFastTx unless it says otherwise; workers\n")
	for _, round := range []struct {
		name     string
		workers  *pgxpool.Pool
		pollOnly bool
		insert   insert
	}{
		{"on a direct endpoint, woken by LISTEN", direct, false, fast},
		{"through the proxy, PollOnly", pool, true, fast},
		{"through the proxy, woken by LISTEN", pool, false, fast},
		{"on a direct endpoint; InsertTx", direct, false, one},
	} {
		pins := len(l.Proxy.Pins())
		took, err := work(ctx, pool, round.workers, round.pollOnly, round.insert, round.name)
		if err != nil {
			return fmt.Errorf("%s: %w", round.name, err)
		}
		_, _ = fmt.Fprintf(out, "  %-37s  %d of %d jobs done, median after %s, %d pinned sessions\n",
			round.name, len(took), jobs, median(took).Round(time.Millisecond), len(l.Proxy.Pins())-pins)
	}
	_, _ = fmt.Fprintln(out, "pinned by")
	seen := map[string]bool{}
	for _, pin := range l.Proxy.Pins() {
		if seen[pin.Reason] {
			continue
		}
		seen[pin.Reason] = true
		_, _ = fmt.Fprintf(out, "  %-58.58s  %s\n", pin.Digest, pin.Reason)
	}
	return nil
}

// insert is one of River's ways to insert a job in a transaction.
type insert func(ctx context.Context, client *river.Client[pgx.Tx], tx pgx.Tx, args river.JobArgs) error

// fast leaves the job's id to a column default and does not return it.
func fast(ctx context.Context, client *river.Client[pgx.Tx], tx pgx.Tx, args river.JobArgs) error {
	_, err := client.InsertManyFastTx(ctx, tx, []river.InsertManyParams{{Args: args}})
	return err
}

// one has nextval in its statement, which pins.
func one(ctx context.Context, client *river.Client[pgx.Tx], tx pgx.Tx, args river.JobArgs) error {
	_, err := client.InsertTx(ctx, tx, args, nil)
	return err
}

// migrate makes River's tables, on a direct endpoint as any migration.
func migrate(ctx context.Context, direct *pgxpool.Pool) error {
	migrator, err := rivermigrate.New(riverpgxv5.New(direct), &rivermigrate.Config{Logger: quiet})
	if err != nil {
		return err
	}
	_, err = migrator.Migrate(ctx, rivermigrate.DirectionUp, nil)
	return err
}

var quiet = slog.New(slog.DiscardHandler)

// packArgs is a job.
type packArgs struct {
	Order string    `json:"order"`
	At    time.Time `json:"at"`
}

// Kind names it.
func (packArgs) Kind() string { return "pack" }

type packer struct {
	river.WorkerDefaults[packArgs]

	done chan time.Duration
}

// Work does one job.
func (p *packer) Work(_ context.Context, job *river.Job[packArgs]) error {
	p.done <- time.Since(job.Args.At)
	return nil
}

// work starts workers on one pool, inserts jobs with another, and returns how long each
// job had to wait.
func work(ctx context.Context, pool, workersPool *pgxpool.Pool, pollOnly bool, in insert, round string) (took []time.Duration, err error) {
	p := &packer{done: make(chan time.Duration, 10*jobs)}
	workers := river.NewWorkers()
	river.AddWorker(workers, p)
	client, err := river.NewClient(riverpgxv5.New(workersPool), &river.Config{
		Queues: map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: 4}}, Workers: workers,
		PollOnly: pollOnly, Logger: quiet,
	})
	if err != nil {
		return nil, err
	}
	if err := client.Start(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, client.Stop(context.WithoutCancel(ctx))) }()

	// The service only inserts: a client without queues needs no Start.
	inserter, err := river.NewClient(riverpgxv5.New(pool), &river.Config{Logger: quiet})
	if err != nil {
		return nil, err
	}
	for n := range jobs {
		if err := place(ctx, pool, inserter, in, fmt.Sprintf("%s-%d", round, n)); err != nil {
			return nil, err
		}
		time.Sleep(10 * time.Millisecond)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("not all jobs were done within a minute"))
	defer cancel()
	for len(took) < jobs {
		select {
		case d := <-p.done:
			took = append(took, d)
		case <-ctx.Done():
			return took, context.Cause(ctx)
		}
	}
	return took, nil
}

// place takes an order and inserts its job in one transaction: both are there, or none.
// River does not begin or end it, so retry.Tx can.
func place(ctx context.Context, pool *pgxpool.Pool, client *river.Client[pgx.Tx], in insert, id string) error {
	return retry.Tx(ctx, pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "insert into orders (id, item) values ($1, 'tea')", id); err != nil {
			return err
		}
		return in(ctx, client, tx, packArgs{Order: id, At: time.Now()})
	})
}

func median(d []time.Duration) time.Duration {
	return slices.Sorted(slices.Values(d))[len(d)/2]
}
