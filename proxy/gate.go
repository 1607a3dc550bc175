package proxy

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// gate bounds how many connects of a pool run at the same time. While the endpoint
// answers, that is a fixed number. While it does not, a single connect, the scout,
// goes on trying and the others wait for its success: an outage costs the server
// the attempts of one client, not of MaxConns.
type gate struct {
	slots chan struct{}
	well  atomic.Bool // the last attempt succeeded

	mu      sync.Mutex
	failing bool          // the last attempt failed
	scout   *pass         // nil if nobody is
	changed chan struct{} // closed when failing turned false, or the scout gave up
	last    *failure      // the newest failure while failing
}

// failure is what those who wait are told about attempts they did not make.
type failure struct {
	attempts int       // in a row, over all connects of the pool
	since    time.Time // when the first of them failed
	last     *ConnectError
}

// seenBy is the failure as the error of somebody whose wait ended with ended.
func (f *failure) seenBy(ended error) *ConnectError {
	e := *f.last
	e.Attempts, e.Elapsed = f.attempts, time.Since(f.since)
	e.err = fmt.Errorf("%w; the last attempt: %w", ended, f.last.err)
	return &e
}

func newGate(limit int) *gate {
	return &gate{slots: make(chan struct{}, limit), changed: make(chan struct{})}
}

// pass is one connect's way through the gate, over all its attempts.
type pass struct {
	g       *gate
	unasked bool // it makes one attempt, and nobody waits for it: see login
	scout   bool
	held    bool // has one of the slots
}

// enter waits until this connect may make an attempt. Each success is followed by
// one call of leave or of release; entering again before that changes nothing.
func (p *pass) enter(ctx context.Context) error {
	if p.held {
		return nil
	}
	for waited := false; ; waited = true {
		wait, err := p.claim(waited)
		if err != nil {
			return err
		}
		if wait != nil {
			select {
			case <-wait:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			continue
		}
		select {
		case p.g.slots <- struct{}{}:
			p.held = true
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		wait, err = p.claim(true)
		if wait == nil && err == nil {
			return nil
		}
		p.release() // others have failed while this one waited for its slot
		if err != nil {
			return err
		}
	}
}

// claim returns nil if this connect may go on, and otherwise what to wait for.
//
// An unasked one does not wait for a caller's scout, which may take its whole budget. It waits for
// another unasked one, for that one's only attempt: pgxpool fills its minimum with several connects
// at a time and cancels them all when the first returns an error, so that one which gave up at once
// would end the attempt. If that has failed, it was the attempt of all of them.
func (p *pass) claim(waited bool) (<-chan struct{}, error) {
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	switch scout := p.g.scout; {
	case p.scout || !p.g.failing:
		return nil, nil
	case p.unasked && (waited || scout != nil && !scout.unasked):
		return nil, errUnasked
	case scout == nil:
		p.scout, p.g.scout = true, p
		return nil, nil
	default:
		return p.g.changed, nil
	}
}

// leave reports how the attempt went, nil for a success. The scout stays the scout
// while it fails.
func (p *pass) leave(failed *ConnectError) {
	p.release()
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	if failed == nil {
		p.g.well.Store(true)
		p.g.failing, p.g.last = false, nil
		p.resign()
		return
	}
	f := &failure{attempts: 1, since: time.Now().Add(-failed.Elapsed), last: failed}
	if p.g.last != nil {
		f.attempts, f.since = p.g.last.attempts+1, p.g.last.since
	}
	p.g.well.Store(false)
	p.g.failing, p.g.last = true, f
}

// release gives the slot back.
func (p *pass) release() {
	if p.held {
		p.held = false
		<-p.g.slots
	}
}

// done ends the connect, also one that panicked: a scout that gives up makes room for
// the next.
func (p *pass) done() {
	p.release()
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	if p.scout {
		p.resign()
	}
}

// resign wakes whoever waits. The caller holds the lock.
func (p *pass) resign() {
	if p.scout {
		p.scout, p.g.scout = false, nil
	}
	close(p.g.changed)
	p.g.changed = make(chan struct{})
}

// healthy reports whether connects succeed, as far as is known. It costs next to
// nothing, because every acquire asks.
func (g *gate) healthy() bool { return g.well.Load() }

// lastFailure is nil while connects succeed.
func (g *gate) lastFailure() *failure {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.last
}
