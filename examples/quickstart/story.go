package main

// This file is what befalls the application: a cold start and a failover. The
// application's own code has no part in it.

import (
	"context"
	"fmt"
	"time"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

const (
	coldFor = 3 * time.Second // nothing listens
	outage  = 2 * time.Second // until the standby is promoted: a cluster has to notice first
	workFor = 5 * time.Second // before the failover, and after it
)

// failover is what is noted when it begins.
type failover struct {
	began   time.Time
	errors  int // of the application until then
	before  proxytest.Stats
	clients map[string]bool // addresses of the client connections
}

// tellStory runs from the cold start to the end of the work after the failover, and
// prints the timeline meanwhile.
func tellStory(ctx context.Context, tl *timeline, l *lab, r *record) (failover, error) {
	stop := tl.show(ctx, r)
	defer stop()

	if err := wait(ctx, coldFor); err != nil {
		return failover{}, err
	}
	if err := coldStart(ctx, tl, l, r); err != nil {
		return failover{}, err
	}
	if err := wait(ctx, workFor); err != nil {
		return failover{}, err
	}
	f, err := failOver(ctx, tl, l, r)
	if err != nil {
		return f, err
	}
	return f, wait(ctx, workFor)
}

func coldStart(ctx context.Context, tl *timeline, l *lab, r *record) error {
	next := r.nextCommit()
	if err := l.listener.open(); err != nil {
		return fmt.Errorf("cold start: %w", err)
	}
	up := time.Now()
	tl.event("listener up")
	return firstCommit(ctx, tl, next, up)
}

// failOver kills the primary under the proxy and promotes the standby. What the proxy
// does itself on Aurora, its stand-in has to be told.
func failOver(ctx context.Context, tl *timeline, l *lab, r *record) (failover, error) {
	f := failover{began: time.Now(), before: l.proxy.Stats(), clients: map[string]bool{}}
	_, f.errors = r.totals()
	for _, login := range l.loginsSoFar() {
		f.clients[login.RemoteAddr] = true
	}
	l.proxy.StartFailover()
	if err := l.primary.Kill(ctx); err != nil {
		return f, err
	}
	tl.event("primary killed (SIGKILL)")
	if err := wait(ctx, outage); err != nil {
		return f, err
	}
	promotion := time.Now()
	if err := l.standby.Promote(ctx); err != nil {
		return f, err
	}
	tl.event("standby promoted in %s", time.Since(promotion).Round(time.Millisecond))
	next := r.nextCommit()
	if err := l.proxy.FinishFailover(l.appDSN(l.standby)); err != nil {
		return f, err
	}
	serves := time.Now()
	tl.event("proxy serves again, %s after the failover began", serves.Sub(f.began).Round(time.Millisecond))
	return f, firstCommit(ctx, tl, next, serves)
}

func firstCommit(ctx context.Context, tl *timeline, next <-chan time.Time, since time.Time) error {
	select {
	case at := <-next:
		tl.event("first commit %s later", at.Sub(since).Round(time.Millisecond))
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for a commit: %w", context.Cause(ctx))
	}
}

// wait lets the application work.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
