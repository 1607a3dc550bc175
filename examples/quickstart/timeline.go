package main

// This file prints, as plain lines that need no terminal.

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	lineEvery = 500 * time.Millisecond
	barWidth  = 24
	stillAt   = 5 * time.Second // a step that takes longer says so
)

type timeline struct {
	mu    sync.Mutex
	out   io.Writer
	start time.Time // set by begin, before anything else runs
}

func (t *timeline) printf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, _ = fmt.Fprintf(t.out, format, args...) // a reader who left does not stop the run
}

// step does one thing of the preparation and prints its name before and its result
// after.
func (t *timeline) step(name string, do func() (string, error)) error {
	start := time.Now()
	t.printf("starting %s ...\n", name)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(stillAt)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				t.printf("  still starting %s after %s; the first run may have to pull or build an image\n",
					name, time.Since(start).Round(time.Second))
			}
		}
	}()
	result, err := do()
	close(quit)
	<-done
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	t.printf("  %s (%.1fs)\n", result, time.Since(start).Seconds())
	return nil
}

// begin starts the clock.
func (t *timeline) begin() {
	t.printf("\n")
	t.start = time.Now()
}

func (t *timeline) event(format string, args ...any) {
	t.printf("%5.1fs ▶ %s\n", time.Since(t.start).Seconds(), fmt.Sprintf(format, args...))
}

// show prints a line every half second, until stop is called or ctx ends.
func (t *timeline) show(ctx context.Context, r *record) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(lineEvery)
		defer tick.Stop()
		var commits, errs int
		last, most := time.Now(), 1.0
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			now := time.Now()
			c, e := r.totals()
			rate := float64(c-commits) / now.Sub(last).Seconds()
			most = max(most, rate)
			t.printf("%5.1fs %-*s %5.0f tx/s  %2d errors\n", now.Sub(t.start).Seconds(),
				barWidth, strings.Repeat("█", int(rate/most*barWidth)), rate, e-errs)
			commits, errs, last = c, e, now
		}
	})
	return func() {
		cancel()
		wg.Wait()
	}
}
