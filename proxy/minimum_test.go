package proxy_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aurorapgx/aurorapgx/proxy"
)

// refusing is a network that answers after a moment, and that refuses connections until it is told
// otherwise.
type refusing struct {
	*pipes
	open  atomic.Bool
	dials atomic.Int64
}

func (r *refusing) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	r.dials.Add(1)
	select {
	case <-time.After(10 * time.Millisecond):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if !r.open.Load() {
		return unreachable(ctx, network, addr)
	}
	return r.pipes.dial(ctx, network, addr)
}

const minimum = 3

// A pool that nobody uses fills its minimum when the server is back, and forgets the outage.
func TestTheMinimumIsFilledAfterAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &refusing{pipes: newPipes()}
		serveScripted(t, r, login)
		pool, err := proxy.NewPool(t.Context(), "postgres://app:x@127.0.0.1/orders?pool_min_conns=3&pool_health_check_period=1m",
			proxy.WithDialer(r.dial), proxy.WithMaxConns(minimum))
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		const outage = 10
		time.Sleep(outage*time.Minute + 30*time.Second)
		// The first are made before anything has failed; from then on there is one at a time.
		if n := r.dials.Load(); n < outage || n > outage+minimum {
			t.Errorf("%d dials in an outage of %d health checks", n, outage)
		}
		r.open.Store(true)
		time.Sleep(time.Minute)
		if n := pool.Stat().TotalConns(); n != minimum {
			t.Fatalf("%d connections, want %d", n, minimum)
		}
		for range minimum {
			conn, err := pool.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Release()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = pool.Acquire(ctx)
		if _, ok := errors.AsType[*proxy.ConnectError](err); ok || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the pool is exhausted, and says %v", err)
		}
	})
}

// While a caller's connect tries, those for the minimum neither try nor wait: pgxpool's Close would
// wait for them.
func TestTheMinimumIsLeftToACallersConnect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &refusing{pipes: newPipes()}
		serveScripted(t, r, login)
		pool, err := proxy.NewPool(t.Context(), "postgres://app:x@127.0.0.1/orders?pool_min_conns=3&pool_health_check_period=1s",
			proxy.WithDialer(r.dial), proxy.WithMaxConns(2*minimum))
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		time.Sleep(100 * time.Millisecond)
		served := make(chan error)
		go func() {
			conn, err := pool.Acquire(t.Context())
			if err == nil {
				conn.Release()
			}
			served <- err
		}()
		for range 10 {
			time.Sleep(time.Second)
			if n := pool.Stat().ConstructingConns(); n != 1 {
				t.Errorf("%d connects at a time in an outage", n)
			}
		}
		r.open.Store(true)
		if err := <-served; err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if n := pool.Stat().TotalConns(); n < minimum {
			t.Errorf("%d connections", n)
		}
	})
}

// pgxpool cancels the connects for its minimum when the first of them has failed. What is told is why
// that one did.
func TestACancelledAttemptTellsNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var dials atomic.Int64
		pool, err := proxy.NewPool(t.Context(), "postgres://app:x@127.0.0.1/orders?pool_min_conns=3",
			proxy.WithDialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
				if dials.Add(1) == 1 {
					time.Sleep(10 * time.Millisecond)
					return unreachable(ctx, network, addr)
				}
				<-ctx.Done()
				return nil, ctx.Err()
			}))
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		time.Sleep(time.Second)
		if dials.Load() != minimum {
			t.Fatalf("%d dials", dials.Load())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = pool.Acquire(ctx)
		failed, ok := errors.AsType[*proxy.ConnectError](err)
		if !ok || failed.Case != "tcp-refused" || failed.Attempts != 1 || strings.Contains(err.Error(), context.Canceled.Error()) {
			t.Errorf("got %v", err)
		}
	})
}
