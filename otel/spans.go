package otelaurora

// Spans: one for a connect, one for a transaction, and what happens in them as their events.

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/aurorapgx/aurorapgx/observe"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

// The names of spans.
const (
	connectSpan     = "aurorapgx.connect"
	transactionSpan = "aurorapgx.transaction"
)

// The names of attributes that the semantic conventions have none for.
const (
	attemptKey    = attribute.Key("aurorapgx.attempt")
	attemptsKey   = attribute.Key("aurorapgx.attempts")
	tookKey       = attribute.Key("aurorapgx.duration")
	pauseKey      = attribute.Key("aurorapgx.pause")
	causeKey      = attribute.Key("aurorapgx.cause")
	kindKey       = attribute.Key("aurorapgx.endpoint.kind")
	sourceKey     = attribute.Key("aurorapgx.credentials.source")
	secretKey     = attribute.Key("aurorapgx.secret.name")
	stageKey      = attribute.Key("aurorapgx.secret.stage")
	versionKey    = attribute.Key("aurorapgx.secret.version")
	changedKey    = attribute.Key("aurorapgx.secret.changed")
	verdictKey    = attribute.Key("aurorapgx.verdict")
	reasonKey     = attribute.Key("aurorapgx.reason")
	settlementKey = attribute.Key("aurorapgx.settlement")
	evidenceKey   = attribute.Key("aurorapgx.settlement.evidence")
	evictionKey   = attribute.Key("aurorapgx.eviction.reason")
	signKey       = attribute.Key("aurorapgx.failover.sign")
	fromKey       = attribute.Key("aurorapgx.writer.from")
	toKey         = attribute.Key("aurorapgx.writer.to")
	ruleKey       = attribute.Key("aurorapgx.pin.rule")
	retirementKey = attribute.Key("aurorapgx.retirement")
)

// spanKey is where a context keeps the span of this package that it is in. Other spans may lie
// between, and are left alone.
type spanKey struct{}

func spanOf(ctx context.Context) trace.Span {
	span, _ := ctx.Value(spanKey{}).(trace.Span)
	return span
}

func (o *Observer) startConnect(ctx context.Context, op observe.Operation) context.Context {
	attrs := append(server(op.Endpoint), semconv.DBSystemNamePostgreSQL, o.pool(op.Pool), kindKey.String(op.Kind))
	if _, database, ok := strings.Cut(op.Pool, "/"); ok {
		attrs = append(attrs, semconv.DBNamespace(database))
	}
	return o.start(ctx, connectSpan, trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attrs...))
}

func (o *Observer) startTransaction(ctx context.Context) context.Context {
	return o.start(ctx, transactionSpan, trace.WithAttributes(semconv.DBSystemNamePostgreSQL))
}

func (o *Observer) start(ctx context.Context, name string, opts ...trace.SpanStartOption) context.Context {
	ctx, span := o.tracer.Start(ctx, name, opts...) //nolint:spancheck // see below
	return context.WithValue(ctx, spanKey{}, span)  //nolint:spancheck // tell ends it, with the operation's last event
}

// adder adds events to a span.
func adder(span trace.Span) func(name string, attrs []attribute.KeyValue) {
	return func(name string, attrs []attribute.KeyValue) { span.AddEvent(name, trace.WithAttributes(attrs...)) }
}

// tell adds an event to the span of its operation, and ends that with the last one.
func tell(span trace.Span, e observe.Event) {
	add := adder(span)
	switch e := e.(type) {
	case observe.ConnectAttempt:
		attrs := append(server(e.Endpoint), attemptKey.Int(e.Number), tookKey.Float64(seconds(e.Took)))
		if e.Err != nil {
			attrs = append(attrs, semconv.ErrorTypeKey.String(e.Case), pauseKey.Float64(seconds(e.Pause)))
			if e.Cause != nil {
				attrs = append(attrs, causeKey.String(e.Cause.Error()))
			}
		}
		add("attempt", attrs)
	case observe.Connected:
		span.SetAttributes(attemptsKey.Int(e.Attempts), semconv.NetworkPeerAddress(e.Address))
		span.End()
	case observe.ConnectFailed:
		span.SetAttributes(attemptsKey.Int(e.Attempts), semconv.ErrorTypeKey.String(e.Case))
		span.SetStatus(codes.Error, e.Err.Error()) // a *proxy.ConnectError, which holds no secret
		span.End()
	case observe.CredentialsFetched:
		attrs := []attribute.KeyValue{sourceKey.String(e.Source), tookKey.Float64(seconds(e.Took))}
		if e.Err != nil {
			attrs = append(attrs, semconv.ErrorTypeKey.String(errorType(e.Err)))
		}
		add("credentials", attrs)
	case observe.SecretRead:
		attrs := []attribute.KeyValue{secretKey.String(e.Secret), tookKey.Float64(seconds(e.Took))}
		if e.Err != nil {
			attrs = append(attrs, semconv.ErrorTypeKey.String(errorType(e.Err)))
		} else {
			attrs = append(attrs, stageKey.String(e.Stage), versionKey.String(e.Version), changedKey.Bool(e.Changed))
		}
		add("secret read", attrs)
	case observe.Rotated:
		add("credentials rotated", nil)
	case observe.Evicted:
		add("connection evicted", []attribute.KeyValue{evictionKey.String(e.Reason), semconv.NetworkPeerAddress(e.Address)})
	case observe.FailoverNoticed:
		add("failover noticed", []attribute.KeyValue{signKey.String(e.Sign), semconv.NetworkPeerAddress(e.Address)})
	case observe.WriterChanged:
		add("writer changed", []attribute.KeyValue{fromKey.String(e.From), toKey.String(e.To)})
	default:
		tellTransaction(span, e)
	}
}

// tellTransaction is tell for what only transactions have.
func tellTransaction(span trace.Span, e observe.Event) {
	add := adder(span)
	switch e := e.(type) {
	case observe.TransactionAttempt:
		attrs := []attribute.KeyValue{attemptKey.Int(e.Number), tookKey.Float64(seconds(e.Took))}
		if e.Err != nil {
			attrs = append(attrs, verdictKey.String(e.Verdict), reasonKey.String(e.Reason), semconv.ErrorTypeKey.String(errorType(e.Err)),
				pauseKey.Float64(seconds(e.Pause)))
		}
		if e.Settlement != "" {
			attrs = append(attrs, settlementKey.String(e.Settlement))
		}
		add("attempt", attrs)
	case observe.CommitInDoubt:
		add("commit in doubt", []attribute.KeyValue{semconv.ErrorTypeKey.String(errorType(e.Err))})
	case observe.CommitSettled:
		add("commit settled", []attribute.KeyValue{
			settlementKey.String(e.Settlement), evidenceKey.String(e.How), tookKey.Float64(seconds(e.Took)),
		})
	case observe.TransactionEnded:
		span.SetAttributes(attemptsKey.Int(e.Attempts))
		if e.Err != nil {
			span.SetAttributes(verdictKey.String(e.Verdict), semconv.ErrorTypeKey.String(errorType(e.Err)))
			span.SetStatus(codes.Error, e.Verdict) // and not the error's text, which may quote values
		}
		span.End()
	}
}

// errorType is what an error counts as: few different words, and none of its own.
func errorType(err error) string {
	if e, ok := errors.AsType[*retry.AmbiguousCommitError](err); ok && e != nil {
		return "commit-in-doubt"
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	if e, ok := errors.AsType[*proxy.ConnectError](err); ok {
		return e.Case
	}
	for _, lost := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE, net.ErrClosed} {
		if errors.Is(err, lost) {
			return "connection-lost"
		}
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "canceled"
	default:
		return semconv.ErrorTypeOther.Value.AsString()
	}
}
