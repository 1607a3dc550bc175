package proxy

// A writer endpoint's connections lead to the writer, or they are not used. The name of the
// endpoint follows the writer with a lag, and until then leads to the old one: to
// nobody, to a host that does not answer, or to a reader by now.

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/aurorapgx/aurorapgx/observe"
)

// isWriter reports whether the endpoint is one that statements may write through, and
// whose name moves from server to server.
func (k Kind) isWriter() bool { return k == KindWriter || k == KindGlobal }

// isReader asks a server for its role. PostgreSQL 14 and later tell it with the login, in
// in_hot_standby. Where that is missing, or has turned out to be no use because a server that
// was taken for the writer answered 25006, the server is asked.
//
// It is asked for recovery, and not for transaction_read_only alone, which a role's own settings
// can switch on at the writer. But a server that says it of itself is not vouched for, and not
// what we look for among a cluster's instances.
func (c *connector) isReader(ctx context.Context, pc *pgconn.PgConn, t target, g *generation) (bool, error) {
	if pc.ParameterStatus("in_hot_standby") == "on" {
		return true, nil
	}
	if pc.ParameterStatus("in_hot_standby") != "" && !c.doubt.fresh() {
		return false, nil
	}
	results, err := pc.Exec(ctx, roleQuery).ReadAll()
	if err != nil {
		return false, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return false, errors.New("the server does not say whether it is in recovery")
	}
	row := results[0].Rows[0]
	recovering, readOnly := string(row[0]) == "t", string(row[1]) == "on"
	if !recovering && !readOnly {
		g.vouched.Store(true)
	}
	return recovering || readOnly && t.endpoint.Kind == KindInstance, nil
}

const roleQuery = "select pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('transaction_read_only')"

// doubt is the time of the last 25006, after which servers are asked for a while.
type doubt struct{ at atomic.Int64 }

const doubtFor = time.Minute

func (d *doubt) raise() { d.at.Store(time.Now().UnixNano()) }

func (d *doubt) fresh() bool {
	at := d.at.Load()
	return at != 0 && time.Since(time.Unix(0, at)) < doubtFor
}

// rejectReadOnly closes a connection whose server says it is read-only (25006), and retires all
// others to that server: after a failover the old writer answers so for as long as
// anybody keeps talking to it. A server that was asked for its role and is the writer
// says it of a transaction that the application made read-only.
func (c *connector) rejectReadOnly(next pgconn.PgErrorHandler) pgconn.PgErrorHandler {
	return func(pc *pgconn.PgConn, e *pgconn.PgError) bool {
		keep := next == nil || next(pc, e)
		if e.Code != "25006" {
			return keep
		}
		conn, ctx := handedConnOf(pc), context.Background() // pgx's hook has none
		if conn != nil {
			c.events.evicted(ctx, conn, observe.EvictedReadOnly)
		}
		if conn != nil && conn.generation != nil && !conn.generation.vouched.Load() {
			conn.generation.retire(ctx, isReading)
			c.doubt.raise()
			if c.topology != nil {
				c.topology.prefer(nil)
			}
		}
		return false
	}
}

const promotionPoll = 10 * time.Millisecond

// awaitPromotion keeps a session on a reader that may be about to become the writer, for up to
// t.hold, and returns false when it has: the session is then one on the new writer,
// within milliseconds of its being that, and at a fraction of what a new login every time would
// cost it. A server that does not announce its role is asked for it.
func (c *connector) awaitPromotion(ctx context.Context, pc *pgconn.PgConn, t target, g *generation) (reader bool, err error) {
	end := time.NewTimer(t.hold)
	defer end.Stop()
	tick := time.NewTicker(promotionPoll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return true, context.Cause(ctx)
		case <-end.C:
			return true, nil
		case <-tick.C:
		}
		if err := pc.Ping(ctx); err != nil { // with the answer comes what has changed
			return true, err
		}
		if reader, err := c.isReader(ctx, pc, t, g); err != nil || !reader {
			return reader, err
		}
	}
}

// errMoved ends an attempt at an address that the name has stopped leading to.
var errMoved = errors.New("the endpoint's name leads elsewhere now")

// When a server takes longer than nameAfter, the name is looked up again and again.
const (
	nameAfter = 200 * time.Millisecond
	nameEvery = 100 * time.Millisecond
)

// whileNamed returns a context that ends, with errMoved, when a writer endpoint's name no longer leads
// to addr: waiting for the old place to answer would be in vain. The name of a reader or custom endpoint
// leads to another instance each time, which says nothing of the one before. The caller calls stop.
// Source: https://docs.aws.amazon.com/whitepapers/latest/amazon-aurora-mysql-db-admin-handbook/load-balancing-with-the-reader-endpoint.html
func (c *connector) whileNamed(ctx context.Context, t *target, addr string) (_ context.Context, stop func()) {
	if !t.endpoint.Kind.isWriter() || t.addr != "" {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		look := time.NewTimer(nameAfter)
		defer look.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-look.C:
			}
			addrs, err := c.lookup(ctx, t.endpoint.Host)
			if err == nil && len(addrs) > 0 && !slices.Contains(addrs, addr) {
				cancel(errMoved)
				return
			}
			look.Reset(nameEvery)
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-done
	}
}

// setParameter changes what the recorded login says of a parameter that has changed since.
func (l *loginReader) setParameter(name, value string) error {
	const readyForQuery = 6 // bytes, and the last of the recording
	if value == "" || l.state != recorded || len(l.recorded) < readyForQuery {
		return nil
	}
	end := len(l.recorded) - readyForQuery
	changed, err := (&pgproto3.ParameterStatus{Name: name, Value: value}).Encode(nil)
	l.recorded = slices.Concat(l.recorded[:end], changed, l.recorded[end:])
	return err
}
