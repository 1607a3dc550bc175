package proxy

import (
	"context"
	"runtime"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
	"github.com/jackc/pgx/v5/pgxpool"
)

// acquireTracer makes a pool tell why it had no connection. By itself Acquire returns
// a bare "context deadline exceeded" while connects go on failing in the background.
type acquireTracer struct{ c *connector }

// traceAcquire returns the pool's tracer: ours, and the user's if there is one.
func (c *connector) traceAcquire(user pgx.QueryTracer) pgx.QueryTracer {
	if user == nil {
		return acquireTracer{c}
	}
	return multitracer.New(user, acquireTracer{c})
}

// TraceAcquireStart gives the acquire a context whose error, should it end, holds the
// last connect error. While connects succeed the context stays as it is, at no cost.
func (t acquireTracer) TraceAcquireStart(ctx context.Context, _ *pgxpool.Pool, _ pgxpool.TraceAcquireStartData) context.Context {
	if ctx.Done() == nil || t.c.gate.healthy() {
		return ctx
	}
	return explainedContext{Context: ctx, gate: t.c.gate}
}

func (acquireTracer) TraceAcquireEnd(context.Context, *pgxpool.Pool, pgxpool.TraceAcquireEndData) {}

// TraceQueryStart is there because pgx takes no tracer without it. Connections get
// the user's tracer, not this one.
func (acquireTracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	return ctx
}

func (acquireTracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

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
