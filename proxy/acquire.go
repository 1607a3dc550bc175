package proxy

import (
	"context"
	"runtime"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/observe"
)

// acquireTracer makes a pool tell why it had no connection. By itself Acquire returns
// a bare "context deadline exceeded" while connects go on failing in the background.
type acquireTracer struct {
	c *connector
	noQueries
}

// traceAcquire returns the pool's tracer: ours, the user's if there is one, and those of the
// observers that want to know about acquires.
func (c *connector) traceAcquire(user pgx.QueryTracer, observers []observe.Observer) pgx.QueryTracer {
	tracers := []pgx.QueryTracer{acquireTracer{c: c}}
	if user != nil {
		tracers = []pgx.QueryTracer{user, acquireTracer{c: c}}
	}
	for _, o := range observers {
		if acquire, ok := o.(pgxpool.AcquireTracer); ok {
			tracers = append(tracers, observedAcquire{acquire, noQueries{}})
		}
		if release, ok := o.(pgxpool.ReleaseTracer); ok {
			tracers = append(tracers, observedRelease{release, noQueries{}})
		}
	}
	if len(tracers) == 1 {
		return tracers[0]
	}
	return multitracer.New(tracers...)
}

// observedAcquire and observedRelease are an observer as a tracer of the pool and of nothing else.
type (
	observedAcquire struct {
		pgxpool.AcquireTracer
		noQueries
	}
	observedRelease struct {
		pgxpool.ReleaseTracer
		noQueries
	}
)

// noQueries is there because pgx takes no tracer without these methods. Connections get the
// user's tracer, not the pool's.
type noQueries struct{}

func (noQueries) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

func (noQueries) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

// TraceAcquireStart gives the acquire a context whose error, should it end, holds the
// last connect error. While connects succeed the context stays as it is, at no cost.
func (t acquireTracer) TraceAcquireStart(ctx context.Context, _ *pgxpool.Pool, _ pgxpool.TraceAcquireStartData) context.Context {
	if ctx.Done() == nil || t.c.gate.healthy() {
		return ctx
	}
	return explainedContext{Context: ctx, gate: t.c.gate}
}

func (acquireTracer) TraceAcquireEnd(context.Context, *pgxpool.Pool, pgxpool.TraceAcquireEndData) {}

// explainedContext is the caller's context with a more telling error. errors.Is finds
// context.DeadlineExceeded or context.Canceled in it as before.
type explainedContext struct {
	context.Context
	gate *gate
}

func (c explainedContext) Err() error {
	err := c.Context.Err()
	if err == nil {
		return nil
	}
	if last := c.gate.lastFailure(); last != nil {
		return last.seenBy(err)
	}
	return err
}

// defaultMaxConns is pgxpool's own default.
func defaultMaxConns() int32 { return max(4, int32(runtime.NumCPU())) }

// shouldPing decides whether a connection that idled is pinged before it is handed
// out. pgxpool's rule, after one second, stays for direct endpoints. Towards a proxy
// a ping is a statement like any other: it keeps the proxy's idle timeouts from
// working, waits for a database connection, and in a failover destroys a client
// connection the proxy would have kept. There a look at the socket tells whether the
// proxy has closed it, without a word on the wire.
// Source: https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-best-practices.configuration.html
func shouldPing(kind Kind, pingIdle time.Duration) func(context.Context, pgxpool.ShouldPingParams) bool {
	const idle = time.Second
	return func(_ context.Context, p pgxpool.ShouldPingParams) bool {
		switch {
		case p.IdleDuration <= idle:
			return false
		case !kind.IsProxy(), pingIdle > 0 && p.IdleDuration > pingIdle:
			return true
		default:
			return look(p.Conn.PgConn().Conn()) != quiet
		}
	}
}
