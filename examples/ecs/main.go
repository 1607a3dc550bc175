// ECS runs a service here as ECS would, three tasks behind a load balancer, and shows
// that it stops without losing a request:
//
//	go run ./ecs
//
// service/ is the service, to be copied together with the Dockerfile. The rest plays
// AWS: task.go starts and stops its processes, balancer.go sends them requests as an
// Application Load Balancer does, load.go is the callers.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aurorapgx/aurorapgx/examples/internal/lab"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

const (
	schema = `
		create table orders (id text primary key, item text not null, quantity int not null check (quantity > 0), placed timestamptz not null default now());
		create table stock (item text primary key, sold bigint not null)`

	desired     = 3           // tasks
	maxTasks    = 2 * desired // during a deployment: maximumPercent is 200
	connections = 30          // that the proxy may open to the database

	outage = 3 * time.Second // of a failover, until the standby is promoted
)

func main() { lab.Main("ecs", run) }

func run(ctx context.Context, out io.Writer) (err error) {
	l, err := lab.Start(ctx, lab.Setup{Schema: schema, Standby: true, Proxy: []proxytest.Option{proxytest.WithMaxConnections(connections)}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	dir, err := os.MkdirTemp("", "ecs")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary, err := lab.Build(ctx, dir, "ecs/service")
	if err != nil {
		return err
	}
	b, err := newBalancer()
	if err != nil {
		return err
	}
	defer b.close()
	s := &cluster{lab: l, binary: binary, balancer: b, out: out}
	defer s.killAll()
	if err := s.deploy(ctx); err != nil {
		return err
	}
	if err := s.stopOne(ctx); err != nil {
		return err
	}
	if err := s.replaceAll(ctx); err != nil {
		return err
	}
	return s.audit(ctx)
}

// cluster is the ECS service: its tasks, and what they run on.
type cluster struct {
	lab      *lab.Lab
	binary   string
	balancer *balancer
	out      io.Writer
	tasks    []*task // all that were ever started
	placed   int     // orders that were acknowledged
}

func (c *cluster) printf(format string, args ...any) { _, _ = fmt.Fprintf(c.out, format, args...) }

// deploy starts the first tasks.
func (c *cluster) deploy(ctx context.Context) error {
	c.printf("deployment: %d tasks, up to %d; %d connections to the database\n", desired, maxTasks, connections)
	for range desired {
		t, err := c.start(ctx)
		if err != nil {
			return err
		}
		c.printf("  task %d  ready in %s, pool of %d\n", t.number, t.readyIn.Round(time.Millisecond), t.pool)
	}
	if err := c.tasks[0].healthcheck(ctx); err != nil {
		return fmt.Errorf("health check: %w", err)
	}
	c.printf("  health check in the container of task 1: ok\n")
	return nil
}

// start starts a task and waits until the load balancer sends it requests.
func (c *cluster) start(ctx context.Context) (*task, error) {
	t, err := startTask(ctx, len(c.tasks)+1, c.lab, c.binary)
	if err != nil {
		return nil, err
	}
	c.tasks = append(c.tasks, t)
	err = c.balancer.add(ctx, t)
	t.readyIn = time.Since(t.started)
	return t, err
}

// stopOne stops a task under load, as scaling in does.
func (c *cluster) stopOne(ctx context.Context) error {
	c.printf("\nscaling in under %d requests a second: task 1 gets SIGTERM\n", perSecond())
	load := startLoad(ctx, c.balancer.url, "in")
	defer load.stop()
	pause(ctx)
	if err := <-c.tasks[0].terminate(); err != nil {
		return err
	}
	c.printf("  task 1  exit 0 in %s\n", c.tasks[0].stoppedIn.Round(10*time.Millisecond))
	pause(ctx)
	if err := c.report(load); err != nil {
		return err
	}
	c.printf("scaling out again\n")
	t, err := c.start(ctx)
	if err != nil {
		return err
	}
	c.printf("  task %d  ready in %s\n", t.number, t.readyIn.Round(time.Millisecond))
	return nil
}

// replaceAll is a rolling deployment in the middle of a failover.
func (c *cluster) replaceAll(ctx context.Context) error {
	c.printf("\nrolling deployment during a failover: every task is replaced while there is no database\n")
	load := startLoad(ctx, c.balancer.url, "deploy")
	defer load.stop()
	pause(ctx)
	began := time.Now()
	failover := make(chan error, 1)
	go func() { failover <- c.lab.Failover(ctx, outage) }()
	old := c.tasks[1:]
	stopping := make([]<-chan error, len(old))
	for i, t := range old {
		fresh, err := c.start(ctx)
		if err != nil {
			return err
		}
		stopping[i] = t.terminate()
		c.printf("  task %d  ready in %s; task %d gets SIGTERM\n", fresh.number, fresh.readyIn.Round(time.Millisecond), t.number)
	}
	during := time.Since(began)
	if err := <-failover; err != nil {
		return err
	}
	served := time.Since(began)
	c.printf("  the last SIGTERM came %s after the writer was lost, the proxy serves again %s after it\n",
		during.Round(10*time.Millisecond), served.Round(10*time.Millisecond))
	for i, t := range old {
		if err := <-stopping[i]; err != nil {
			return err
		}
		c.printf("  task %d  exit 0 in %s\n", t.number, t.stoppedIn.Round(10*time.Millisecond))
	}
	pause(ctx)
	return c.report(load)
}

// report ends a load and says what its callers got.
func (c *cluster) report(load *load) error {
	load.stop()
	c.printf("  %d requests, %d failed; median %s, slowest %s\n", load.sent, len(load.failures), load.quantile(0.5).Round(10*time.Microsecond), load.quantile(1).Round(time.Millisecond))
	c.placed += load.placed
	if len(load.failures) > 0 {
		return fmt.Errorf("%d of %d requests failed, the first: %w", len(load.failures), load.sent, load.failures[0])
	}
	return nil
}

// audit asks the new writer, past everything, whether each acknowledged order is there
// and was counted once.
func (c *cluster) audit(ctx context.Context) (err error) {
	conn, err := pgx.Connect(ctx, c.lab.AdminURL(c.lab.Standby))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	var orders, sold int
	if err := conn.QueryRow(ctx, "select (select count(*) from orders), (select sum(sold) from stock)").Scan(&orders, &sold); err != nil {
		return err
	}
	if orders != c.placed || sold != c.placed {
		return fmt.Errorf("%d orders were acknowledged, %d are there, %d were counted", c.placed, orders, sold)
	}
	c.printf("\n%d orders acknowledged, each of them there once; %d pinned sessions\n", orders, c.lab.Proxy.Stats().PinnedSessions)
	return nil
}

func (c *cluster) killAll() {
	for _, t := range c.tasks {
		t.kill()
	}
}

// pause lets the callers call.
func pause(ctx context.Context) {
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
	}
}
