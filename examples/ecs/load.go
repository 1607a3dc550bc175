package main

// This file is the callers: so many requests a second, whether the service keeps up or not.

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aurorapgx/aurorapgx/examples/internal/lab"
)

// patience is what a caller waits for an answer: longer than a failover.
const patience = 40 * time.Second

// perSecond is how many orders are sent: 200, and fewer with the race detector, which
// makes everything several times slower.
func perSecond() int {
	if lab.RaceDetector {
		return 50
	}
	return 200
}

type load struct {
	url, name string
	client    *http.Client
	cancel    context.CancelFunc
	callers   sync.WaitGroup

	sent int // to be read after stop, as all below

	mu       sync.Mutex
	placed   int
	took     []time.Duration
	failures []error
}

// startLoad begins to send orders whose ids start with name.
func startLoad(ctx context.Context, url, name string) *load {
	l := &load{url: url, name: name, client: &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: 1000}}}
	sending, cancel := context.WithCancel(ctx)
	l.cancel = cancel
	l.callers.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		began, rate := time.Now(), float64(perSecond())
		for {
			select {
			case <-sending.Done():
				return
			case <-tick.C:
			}
			for due := int(time.Since(began).Seconds() * rate); l.sent < due; l.sent++ { // a ticker drops ticks
				id := l.sent
				l.callers.Go(func() { l.call(ctx, id) })
			}
		}
	})
	return l
}

// stop sends no more orders and waits for the answers to those that were sent.
func (l *load) stop() {
	l.cancel()
	l.callers.Wait()
	l.client.CloseIdleConnections()
}

func (l *load) call(ctx context.Context, n int) {
	began := time.Now()
	err := l.place(ctx, fmt.Sprintf("%s-%d", l.name, n), fmt.Sprintf(`{"item":"tea-%d","quantity":1}`, n%20))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.took = append(l.took, time.Since(began))
	if err != nil {
		l.failures = append(l.failures, err)
		return
	}
	l.placed++
}

func (l *load) place(ctx context.Context, id, order string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, l.url+"/orders/"+id, io.NopCloser(strings.NewReader(order)))
	if err != nil {
		return err
	}
	resp, err := l.client.Do(req) // a body that cannot be rewound: net/http sends it once
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusCreated {
		return fmt.Errorf("%s: %s", resp.Status, body)
	}
	return nil
}

func (l *load) quantile(q float64) time.Duration {
	if len(l.took) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(l.took))[int(q*float64(len(l.took)-1))]
}
