package integration

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

// These tests look at all goroutines of the process, so they do not run in parallel.

func TestNothingIsLeftAfterClose(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	px, url, _ := startProxy(t)
	pool := newPool(t, url, signedBy(px), proxy.WithMaxConns(5))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { exec(t, pool, "select pg_sleep(0.01)") })
	}
	wg.Wait()
	pool.Close()
	if err := px.Close(); err != nil {
		t.Error(err)
	}
	goleak.VerifyNone(t, ignore)
}

func TestNothingIsLeftAfterCloseWithConnectsInFlight(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts, in the kernel, and never answers
	if err != nil {
		t.Fatal(err)
	}
	refused := newLateListener(t)
	for what, addr := range map[string]net.Addr{"silent": silent.Addr(), "refused": refused.Addr()} {
		pool, err := proxy.NewPool(t.Context(), "postgres://app:x@"+addr.String()+"/orders?pool_min_conns=2", proxy.WithMaxConns(5))
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
				defer cancel()
				if pool.Ping(ctx) == nil {
					t.Errorf("%s: connected", what)
				}
			})
		}
		wg.Wait()
		start := time.Now()
		pool.Close()
		took := time.Since(start)
		t.Logf("%s: Close took %s", what, took.Round(time.Millisecond))
		if took > 10*time.Second { // it waits for a connect that fills the minimum, which makes one attempt of 5 s
			t.Errorf("%s: Close took %s", what, took)
		}
	}
	_ = silent.Close()
	goleak.VerifyNone(t, ignore)
}

func TestNothingIsLeftAfterABlockedProxy(t *testing.T) {
	ignore := goleak.IgnoreCurrent()
	px, url, _ := startProxy(t, proxytest.WithMaxConnections(2))
	pool := newPool(t, url, signedBy(px), proxy.WithMaxConns(4))
	exec(t, pool, "select 1")
	px.StartFailover() // and never finished
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			if _, err := pool.Exec(ctx, "select 1"); err == nil {
				t.Error("a statement got through")
			}
		})
	}
	wg.Wait()
	start := time.Now()
	pool.Close()
	t.Logf("Close took %s", time.Since(start).Round(time.Millisecond))
	if err := px.Close(); err != nil {
		t.Error(err)
	}
	goleak.VerifyNone(t, ignore)
}
