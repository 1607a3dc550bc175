package integration

// Many clients and many failovers. What takes long has a flag: the defaults are for every day, the
// figures in the documentation come from
//
//	go test -run 'TestResume|TestHerd|TestManySwitchovers' -v -timeout 30m . -resume 35s -switchovers 200

import (
	"context"
	"errors"
	"flag"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/internal/pgtest"
	"github.com/aurorapgx/aurorapgx/internal/pgtest/lab"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

var (
	resumeTakes = flag.Duration("resume", 6*time.Second, "how long a paused instance takes to resume")
	switchovers = flag.Int("switchovers", 4, "how many planned failovers to go through")
)

// An instance that has paused holds connections until it has resumed, and refuses some of
// them for a reason that it makes up. Fifty clients come at once, and none of them sees an error;
// those that have a deadline of their own learn in time that it has passed.
func TestResumeFromAutoPause(t *testing.T) {
	t.Parallel()
	const clients, liesEvery = 50, 7
	c := startCluster(t)
	pools := make([]*pgxpool.Pool, clients)
	for i := range pools {
		pools[i] = clusterPool(t, c, c.WriterHost(), proxy.WithMaxConns(2))
	}
	c.Writer().Pause(*resumeTakes, liesEvery)
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		served []time.Duration
		late   []time.Duration
		start  = time.Now()
	)
	for _, pool := range pools {
		wg.Go(func() {
			if err := pool.Ping(t.Context()); err != nil {
				t.Errorf("after %s: %v", time.Since(start).Round(time.Millisecond), err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			served = append(served, time.Since(start)-*resumeTakes)
		})
		wg.Go(func() {
			const patience = time.Second
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			asked := time.Now()
			err := pool.Ping(ctx)
			mu.Lock()
			defer mu.Unlock()
			late = append(late, time.Since(asked)-patience)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("with a deadline: %v", err)
			}
		})
	}
	wg.Wait()
	slices.Sort(served)
	slices.Sort(late)
	if len(served) == 0 {
		return
	}
	t.Logf("resume of %s: %d clients, %d logins; served %s (median) to %s after it; deadlines overrun by %s (median) to %s",
		*resumeTakes, clients, c.Writer().Logins(), ms(served[len(served)/2]), ms(served[len(served)-1]), ms(late[len(late)/2]), ms(late[len(late)-1]))
}

func ms(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// Twenty pools lose all their connections in the same moment.
func TestHerdAfterAFailover(t *testing.T) {
	t.Parallel()
	const pools, size, limit, outage = 20, 25, 4, 2 * time.Second
	c, err := lab.Start(t.Context(), pgtest.WithSetting("max_connections", "600"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	herd := make([]*pgxpool.Pool, pools)
	for i := range herd {
		herd[i] = clusterPool(t, c, c.WriterHost(), proxy.WithMaxConns(size))
	}
	exec(t, herd[0], "create table note (pool int, conn int)")
	for _, pool := range herd {
		open(t, pool)
	}
	old, next := c.Writer(), c.Reader()
	dialled := old.Dials()
	if err := old.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	var (
		wg     sync.WaitGroup
		errs   atomic.Int64
		served atomic.Int64
	)
	began := time.Now()
	for i, pool := range herd {
		for j := range size {
			wg.Go(func() {
				err := retry.Tx(t.Context(), pool, func(tx pgx.Tx) error {
					_, err := tx.Exec(t.Context(), "insert into note select $1, $2 from pg_sleep(0.2)", i, j)
					return err
				})
				if err != nil {
					errs.Add(1)
					t.Error(err)
					return
				}
				served.Add(1)
			})
		}
	}
	time.Sleep(outage)
	attempts, down := old.Dials()-dialled, time.Since(began)
	accepts, err := c.Promote(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	t.Logf("%d pools of %d: %.0f connects tried a second while nothing listened; then %d of %d served within %s, %d errors; %d logins, at most %d at a time",
		pools, size, float64(attempts)/down.Seconds(), served.Load(), pools*size, ms(time.Since(accepts)), errs.Load(), next.Logins(), next.MostLogins())
	if most := next.MostLogins(); most > pools*limit {
		t.Errorf("%d logins at a time, want at most %d for each of %d pools", most, limit, pools)
	}
	if perSecond := float64(attempts) / down.Seconds() / pools; perSecond > 25 {
		t.Errorf("%.0f connects a second from each pool", perSecond)
	}
}

// Planned failovers, one after the other: real ones, in which the two servers change roles.
// Memory and goroutines do not grow.
func TestManySwitchovers(t *testing.T) { // not parallel: it counts goroutines
	c := startCluster(t)
	pool := clusterPool(t, c, c.WriterHost(), proxy.WithTopology(), proxy.WithMaxConns(4))
	exec(t, pool, "create table note (id int)")
	flip := func(n int) {
		t.Helper()
		if _, err := c.Switchover(t.Context()); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				err := retry.Tx(t.Context(), pool, func(tx pgx.Tx) error {
					_, err := tx.Exec(t.Context(), "insert into note values ($1)", 10*n+i)
					return err
				}, retry.WithPolicy(retry.Failover()))
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	measure := func() (goroutines int, heap uint64) {
		for range 3 {
			runtime.GC()
			time.Sleep(20 * time.Millisecond)
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return runtime.NumGoroutine(), m.HeapAlloc
	}
	warm := max(2, *switchovers/10)
	for n := range warm {
		flip(n)
	}
	goroutines, heap := measure()
	for n := warm; n < warm+*switchovers; n++ {
		flip(n)
	}
	g, h := measure()
	var rows int
	if err := pool.QueryRow(t.Context(), "select count(*) from note").Scan(&rows); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d switchovers: %d rows of %d; goroutines %d, then %d; heap %d KB, then %d KB",
		*switchovers, rows, 8*(warm+*switchovers), goroutines, g, heap/1024, h/1024)
	if rows != 8*(warm+*switchovers) {
		t.Errorf("%d rows", rows)
	}
	if g > goroutines+10 {
		t.Errorf("%d goroutines, %d more than before", g, g-goroutines)
	}
	if h > heap+2<<20 {
		t.Errorf("the heap has grown from %d to %d bytes", heap, h)
	}
}
