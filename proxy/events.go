package proxy

// What a pool tells its logger and its observer. Whoever has something to tell asks first
// whether anybody listens, so that silence costs one comparison.

import (
	"context"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/aurorapgx/aurorapgx/observe"
	"github.com/aurorapgx/aurorapgx/retry"
	"github.com/aurorapgx/aurorapgx/secrets"
)

// events are one connector's.
type events struct {
	to     observe.Observer // nil if nobody listens
	pool   string           // host:port/database
	first  target
	writer bool // the endpoint is one whose server may stop being the writer
}

func newEvents(o *options, first target, database string) *events {
	e := &events{first: first, writer: first.endpoint.Kind.isWriter()}
	var log observe.Observer
	if o.logger != nil {
		log = observe.Log(o.logger)
	}
	if e.to = observe.All(log, observe.All(o.observers...)); e.to != nil {
		e.pool = net.JoinHostPort(first.endpoint.Host, strconv.Itoa(int(first.port))) + "/" + database
	}
	return e
}

// on reports whether anybody listens. A nil *events, as of connections that tests make by hand,
// has nobody.
func (e *events) on() bool { return e != nil && e.to != nil }

// start begins a connect.
func (e *events) start(ctx context.Context) context.Context {
	if !e.on() {
		return ctx
	}
	return e.to.Start(ctx, observe.Operation{
		Name: observe.Connect, Pool: e.pool, Endpoint: e.first.hostPort(), Kind: e.first.endpoint.Kind.String(),
	})
}

// place is where a connect went, the first host if it did not get anywhere.
func (e *events) place(t *target) (endpoint, kind string) {
	if t == nil {
		t = &e.first
	}
	return t.hostPort(), t.endpoint.Kind.String()
}

func (e *events) attempted(ctx context.Context, t *target, a retry.Attempt, took time.Duration, f finding) {
	event := observe.ConnectAttempt{
		Pool: e.pool, Number: a.Number, Took: took, Elapsed: a.Elapsed, Err: a.Err, Pause: a.Pause, Last: a.Last,
	}
	event.Endpoint, event.Kind = e.place(t)
	if a.Err != nil {
		event.Cause, event.Case = f.cause, f.trouble.entry().name
	}
	e.to.Observe(ctx, event)
}

func (e *events) connected(ctx context.Context, t *target, conn *handedConn, count int, elapsed time.Duration) {
	if !e.on() {
		return
	}
	event := observe.Connected{Pool: e.pool, Attempts: count, Elapsed: elapsed, Address: conn.generation.addr}
	event.Endpoint, event.Kind = e.place(t)
	e.to.Observe(ctx, event)
}

func (e *events) connectFailed(ctx context.Context, t *target, err *ConnectError) {
	if !e.on() {
		return
	}
	event := observe.ConnectFailed{
		Pool: e.pool, Attempts: err.Attempts, Elapsed: err.Elapsed, Err: err, Cause: err.Cause, Case: err.Case,
	}
	event.Endpoint, event.Kind = e.place(t)
	e.to.Observe(ctx, event)
}

// fetched is told about each question to a source that does not always say the same.
func (e *events) fetched(ctx context.Context, t *target, l *login, creds secrets.Credentials, took time.Duration, err error) {
	event := observe.CredentialsFetched{Pool: e.pool, Endpoint: t.hostPort(), Source: "source", Took: took, Err: err}
	switch {
	case l.iam != nil:
		event.Source = "iam"
	case l.rotation != nil:
		event.Source = "secret"
	}
	if err == nil {
		event.User = creds.User
		if event.User == "" {
			event.User = l.user
		}
	}
	e.to.Observe(ctx, event)
}

func (e *events) rotated(ctx context.Context, t *target, user, former string) {
	if e.on() {
		e.to.Observe(ctx, observe.Rotated{Pool: e.pool, Endpoint: t.hostPort(), User: user, Former: former})
	}
}

// evicted is told about connections that are dropped. What is no reason is no eviction.
func (e *events) evicted(ctx context.Context, conn *handedConn, reason string) {
	if !e.on() || reason == "" {
		return
	}
	event := observe.Evicted{Pool: e.pool, Reason: reason}
	if conn.generation != nil {
		event.Address = conn.generation.addr
	}
	e.to.Observe(ctx, event)
}

// noticed is told that a server with connections of ours is out of use.
func (e *events) noticed(ctx context.Context, g *generation, why outOfUse) {
	if !e.on() || !e.writer || !g.used.Load() {
		return
	}
	event := observe.FailoverNoticed{Pool: e.pool, Address: g.addr, Sign: why.String()}
	event.Endpoint, event.Kind = e.place(nil)
	e.to.Observe(ctx, event)
}

func (e *events) writerChanged(ctx context.Context, from, to string) {
	event := observe.WriterChanged{Pool: e.pool, From: from, To: to}
	event.Endpoint, event.Kind = e.place(nil)
	e.to.Observe(ctx, event)
}

// quietly is a logger that may be nil.
func quietly(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}
