package proxy

// One attempt at finding the writer of a cluster whose instances are known: the endpoint,
// and, as soon as that fails or keeps us waiting, all instances beside it.

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

const (
	hedgeAfter = 250 * time.Millisecond // the lead may take so long before the others are asked
	hastily    = time.Second            // for an attempt that others wait for
	holdFor    = time.Second            // a session on a reader, before it is made anew
)

var errNoWriter = errors.New("none of the cluster's instances is the writer")

// sought is what became of one place to look at.
type sought struct {
	conn  *handedConn
	to    *target
	found finding
	err   error
	tries attempts
	lead  bool
}

// seek is one attempt. While the endpoint is believed to be well, it is over within a
// second, so that the gate learns of a failure and leaves a single connect, the scout, to
// look on. That one is patient: it goes on trying each place by itself, and waits on readers to be
// promoted.
func (c *connector) seek(ctx context.Context, tries *attempts, patient bool) (*handedConn, *target, finding, error) {
	window := hastily
	if patient {
		window = c.attempt
	}
	ctx, cancel := context.WithTimeoutCause(ctx, window, errNoWriter)
	defer cancel()
	var (
		results = make(chan sought)
		running int
		lead    = c.topology.lead()
		failed  sought
		asked   bool
	)
	run := func(t *target, isLead bool) {
		running++
		mine := *tries
		go func() { results <- c.lookAt(ctx, t, mine, patient, isLead) }()
	}
	askOthers := func() {
		if asked {
			return
		}
		asked = true
		for _, t := range c.topology.others(lead) {
			run(t, false)
		}
	}
	run(lead, true)
	hedge := time.NewTimer(hedgeAfter)
	defer hedge.Stop()
	if patient || lead == nil && c.generations.lately() {
		askOthers()
	}
	for running > 0 {
		select {
		case <-hedge.C:
			askOthers()
		case r := <-results:
			running--
			switch {
			case r.conn != nil:
				cancel()
				drain(results, running)
				c.foundAt(r, lead)
				*tries = r.tries
				return r.conn, r.to, finding{}, nil
			case r.lead:
				failed = r
				if !r.found.verdict.Retryable() {
					cancel()
					drain(results, running)
					running = 0
					continue
				}
				askOthers()
			}
		}
	}
	if lead != nil {
		c.topology.prefer(nil)
	}
	*tries = failed.tries
	return nil, failed.to, failed.found, failed.err
}

// drain ends the places that have not answered, and gives back what one of them found in the
// same moment.
func drain(results <-chan sought, running int) {
	for range running {
		if r := <-results; r.conn != nil {
			r.conn.discard()
		}
	}
}

// foundAt draws the conclusions.
func (c *connector) foundAt(r sought, lead *target) {
	switch {
	case r.lead:
	case r.to.endpoint.Kind == KindInstance:
		c.topology.prefer(r.to)
		c.topology.outdated()
	case lead != nil: // the endpoint again
		c.topology.prefer(nil)
	}
}

// lookAt tries one place: a nil target is the endpoint.
func (c *connector) lookAt(ctx context.Context, t *target, tries attempts, patient, isLead bool) sought {
	s := sought{to: t, lead: isLead}
	for {
		conn, to, found, err := c.lookOnce(ctx, t, &tries, patient)
		s.tries = tries
		if err == nil {
			s.conn, s.to, s.err = conn, to, nil
			return s
		}
		if s.err == nil || ctx.Err() == nil { // of one that was cut off, the one before tells more
			s.to, s.found, s.err = to, found, err
		}
		if !patient || !found.verdict.Retryable() {
			return s
		}
		found.pause(ctx)
		if !pause(ctx, rand.N(2*quickPause)) {
			return s
		}
	}
}

func (c *connector) lookOnce(ctx context.Context, t *target, tries *attempts, patient bool) (*handedConn, *target, finding, error) {
	if t == nil {
		return c.tryTargets(ctx, tries)
	}
	one := *t
	if patient && one.endpoint.Kind == KindInstance {
		one.hold = holdFor
	}
	tries.count++
	conn, err := c.tryTarget(ctx, &one, tries)
	if err != nil {
		return nil, &one, tries.judge(ctx, err, &one), err
	}
	return conn, &one, finding{}, nil
}
