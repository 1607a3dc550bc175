package lab

// Who is the writer, and how that changes.

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aurorapgx/aurorapgx/internal/pgtest"
)

// promoteTimeout bounds a promotion.
const promoteTimeout = 30 * time.Second

// Promote makes the reader the writer, whatever became of the writer, and returns the moment
// from which it accepts writes. The cluster's names follow after the lag.
func (c *Cluster) Promote(ctx context.Context) (accepts time.Time, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, promoteTimeout, fmt.Errorf("lab: not promoted within %s", promoteTimeout))
	defer cancel()
	old, next := c.Writer(), c.Reader()
	conn, err := pgx.Connect(ctx, next.server.DSN())
	if err != nil {
		return accepts, err
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "select pg_promote(wait => false)"); err != nil {
		return accepts, err
	}
	for recovering := true; recovering; { // in a tight loop: the moment is what is measured against
		if err := conn.QueryRow(ctx, "select pg_is_in_recovery()").Scan(&recovering); err != nil {
			return accepts, err
		}
	}
	accepts = time.Now()
	c.mu.Lock()
	c.writer = next
	c.mu.Unlock()
	c.names.follow(c.WriterHost(), next.addr)
	c.names.follow(c.ReaderHost(), old.addr)
	return accepts, nil
}

// Return brings the former writer back as a reader, begun with a base backup, and heals
// what was done to its network.
func (c *Cluster) Return(ctx context.Context) error {
	back := c.Reader()
	if err := back.server.Follow(ctx, c.Writer().server, pgtest.WithSynchronous()); err != nil {
		return err
	}
	back.Heal()
	return nil
}

// Switchover is a planned failover: the writer is shut down in order, the reader
// promoted, and the former writer comes back as a reader. It returns when that is so, and with
// the moment from which the new writer accepted writes.
func (c *Cluster) Switchover(ctx context.Context) (accepts time.Time, err error) {
	old := c.Writer()
	if err := old.Stop(ctx); err != nil {
		return accepts, err
	}
	if accepts, err = c.Promote(ctx); err != nil {
		return accepts, err
	}
	if err := old.server.Rejoin(ctx, c.Writer().server, pgtest.WithSynchronous()); err != nil {
		return accepts, err
	}
	old.Heal()
	return accepts, nil
}
