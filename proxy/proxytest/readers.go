package proxytest

// Read-only endpoints: several databases behind one endpoint, and what becomes of its clients when
// readers go
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-endpoints.html).

import (
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"
)

// WithReaders makes the proxy a read-only endpoint (target role READ_ONLY) in front of these databases,
// in the place of the one given to [Start], which may be empty then. New database connections go to
// the reader with the fewest of them; statements, to the one with the fewest that are borrowed.
// Without any reader they fail at once. See [Proxy.SetReaders] and [Proxy.SetReaderDown].
func WithReaders(dsns ...string) Option {
	return func(c *config) {
		c.readOnly = true
		c.readers = append(c.readers, dsns...)
	}
}

// target is one database behind the endpoint.
type target struct {
	dsn  string // as given
	cfg  *pgconn.Config
	down bool

	open, borrowed int // connections
}

const noReadersText = "The target group doesn't have any associated read-only instances"

// SetReaders replaces the readers of a read-only endpoint, as scaling does. Connections to those that
// are gone are cut, as [Proxy.SetReaderDown] does it.
func (p *Proxy) SetReaders(dsns ...string) error {
	targets, err := newTargets(dsns)
	if err != nil {
		return fmt.Errorf("set readers: %w", err)
	}
	cp := p.pool
	cp.mu.Lock()
	for i, t := range targets {
		for _, old := range cp.targets {
			if old.dsn == t.dsn {
				targets[i] = old
			}
		}
	}
	gone := cp.targets
	cp.targets = targets
	var cut []*dbConn
	for db := range cp.conns {
		if slices.Contains(gone, db.target) && !slices.Contains(targets, db.target) {
			cut = append(cut, db)
		}
	}
	if len(targets) == 0 {
		cp.failWaiters(errNoReaders)
	}
	cp.dispatch()
	cp.mu.Unlock()
	cutAll(cut)
	return nil
}

// SetReaderDown takes a reader away, named by the DSN it was given with, or brings it back. Clients
// between transactions go on with another reader, and wait up to the borrow timeout if there is none
// that is up; the others fare as in a failover.
func (p *Proxy) SetReaderDown(dsn string, down bool) {
	cp := p.pool
	cp.mu.Lock()
	var cut []*dbConn
	for _, t := range cp.targets {
		if t.dsn == dsn {
			t.down = down
		}
	}
	for db := range cp.conns {
		if down && db.target.dsn == dsn {
			cut = append(cut, db)
		}
	}
	cp.dispatch()
	cp.mu.Unlock()
	cutAll(cut)
}

func newTargets(dsns []string) ([]*target, error) {
	var targets []*target
	for _, dsn := range dsns {
		cfg, err := parseBackend(dsn)
		if err != nil {
			return nil, err
		}
		if cfg != nil {
			targets = append(targets, &target{dsn: dsn, cfg: cfg})
		}
	}
	return targets, nil
}

// up is the target for a new connection: the one that is up and has the fewest. mu is held.
func (cp *connPool) up() *target {
	var best *target
	for _, t := range cp.targets {
		if !t.down && (best == nil || t.open < best.open) {
			best = t
		}
	}
	return best
}
