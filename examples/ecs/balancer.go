package main

// This file is the load balancer: it asks every target whether it is ready, sends
// requests in turn to those that are, and never sends one twice.

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

const checkEvery = 100 * time.Millisecond

type balancer struct {
	url    string
	server *http.Server
	proxy  *httputil.ReverseProxy
	client *http.Client
	cancel context.CancelFunc
	ctx    context.Context // of the health checks
	wg     sync.WaitGroup

	mu      sync.Mutex
	targets []*target
	next    int
}

type target struct {
	addr  string
	ready bool
}

func newBalancer() (*balancer, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b := &balancer{url: "http://" + l.Addr().String(), client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{}}}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: b.pick()})
		},
		Transport: &http.Transport{MaxIdleConnsPerHost: 100},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, "bad gateway: "+err.Error(), http.StatusBadGateway)
		},
	}
	b.server = &http.Server{Handler: b.proxy, ReadHeaderTimeout: 5 * time.Second}
	b.wg.Go(func() { _ = b.server.Serve(l) }) // ends with close
	return b, nil
}

// add registers a task and waits until it is ready.
func (b *balancer) add(ctx context.Context, t *task) error {
	target := &target{addr: t.addr}
	for !b.check(target) {
		select {
		case <-time.After(checkEvery / 10): // as a deployment would not: it takes its time
		case <-ctx.Done():
			return fmt.Errorf("task %d does not become ready: %w", t.number, context.Cause(ctx))
		}
	}
	b.mu.Lock()
	b.targets = append(b.targets, target)
	b.mu.Unlock()
	b.wg.Go(func() {
		tick := time.NewTicker(checkEvery)
		defer tick.Stop()
		for {
			select {
			case <-b.ctx.Done():
				return
			case <-tick.C:
				b.check(target)
			}
		}
	})
	return nil
}

func (b *balancer) check(t *target) bool {
	resp, err := b.client.Get("http://" + t.addr + "/readyz")
	if err == nil {
		_ = resp.Body.Close()
	}
	ready := err == nil && resp.StatusCode == http.StatusOK
	b.mu.Lock()
	defer b.mu.Unlock()
	t.ready = ready
	return ready
}

// pick chooses the target of a request.
func (b *balancer) pick() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	for range b.targets {
		b.next++
		if t := b.targets[b.next%len(b.targets)]; t.ready {
			return t.addr
		}
	}
	return "no-target.invalid"
}

func (b *balancer) close() {
	b.cancel()
	_ = b.server.Close()
	b.wg.Wait()
}
