package otelaurora

// What events count and measure. All of it is rare, so that attributes are put together when
// something happens.

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/dbconv"

	"github.com/aurorapgx/aurorapgx/observe"
)

// buckets are for durations in seconds, from a query's to a failover's. The conventions name the ones
// from 1 ms to 10 s, for db.client.operation.duration.
var buckets = []float64{0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60}

// instruments are all that is measured.
type instruments struct {
	// of the semantic conventions
	count    metric.Int64ObservableUpDownCounter
	max      metric.Int64ObservableUpDownCounter
	idleMax  metric.Int64ObservableUpDownCounter
	idleMin  metric.Int64ObservableUpDownCounter
	pending  metric.Int64ObservableUpDownCounter
	timeouts metric.Int64Counter
	create   metric.Float64Histogram
	wait     metric.Float64Histogram
	use      metric.Float64Histogram

	// of our own
	connectAttempt      metric.Float64Histogram
	connectFailures     metric.Int64Counter
	credentials         metric.Float64Histogram
	secretRead          metric.Float64Histogram
	rotations           metric.Int64Counter
	evictions           metric.Int64Counter
	failovers           metric.Int64Counter
	writerChanges       metric.Int64Counter
	transaction         metric.Float64Histogram
	transactionAttempts metric.Int64Counter
	inDoubt             metric.Int64Counter
	settled             metric.Int64Counter
	pins                metric.Int64Counter
	opening             metric.Int64ObservableUpDownCounter
	retired             metric.Int64ObservableCounter
}

func newInstruments(m metric.Meter) instruments {
	bounds := metric.WithExplicitBucketBoundaries(buckets...)
	histogram := func(name, description string) metric.Float64Histogram {
		return made(m.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(description), bounds))
	}
	counter := func(name, unit, description string) metric.Int64Counter {
		return made(m.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(description)))
	}
	return instruments{
		count:    made(dbconv.NewClientConnectionCountObservable(m)).Inst(),
		max:      made(dbconv.NewClientConnectionMaxObservable(m)).Inst(),
		idleMax:  made(dbconv.NewClientConnectionIdleMaxObservable(m)).Inst(),
		idleMin:  made(dbconv.NewClientConnectionIdleMinObservable(m)).Inst(),
		pending:  made(dbconv.NewClientConnectionPendingRequestsObservable(m)).Inst(),
		timeouts: made(dbconv.NewClientConnectionTimeouts(m)).Inst(),
		create:   made(dbconv.NewClientConnectionCreateTime(m, bounds)).Inst(),
		wait:     made(dbconv.NewClientConnectionWaitTime(m, bounds)).Inst(),
		use:      made(dbconv.NewClientConnectionUseTime(m, bounds)).Inst(),

		connectAttempt:      histogram("aurorapgx.connect.attempt.duration", "The time one attempt to connect took."),
		connectFailures:     counter("aurorapgx.connect.failures", "{connect}", "Connects that were given up."),
		credentials:         histogram("aurorapgx.credentials.duration", "The time it took to get user and password for a connect attempt."),
		secretRead:          histogram("aurorapgx.secret.read.duration", "The time it took to read a secret from AWS Secrets Manager."),
		rotations:           counter("aurorapgx.rotations", "{rotation}", "Times that a pool went over to new credentials."),
		evictions:           counter("aurorapgx.evictions", "{connection}", "Open connections that were dropped instead of being used."),
		failovers:           counter("aurorapgx.failovers", "{failover}", "Writers that turned out to be none any more."),
		writerChanges:       counter("aurorapgx.writer.changes", "{change}", "Connects that found another writer than before."),
		transaction:         histogram("aurorapgx.transaction.duration", "The time a transaction took with all its attempts."),
		transactionAttempts: counter("aurorapgx.transaction.attempts", "{attempt}", "Attempts at transactions."),
		inDoubt:             counter("aurorapgx.commits.in_doubt", "{commit}", "COMMITs that were not answered."),
		settled:             counter("aurorapgx.commits.settled", "{commit}", "COMMITs in doubt that were settled, or could not be."),
		pins:                counter("aurorapgx.pins", "{session}", "Sessions that proxytest pinned."),
		opening: made(m.Int64ObservableUpDownCounter("aurorapgx.pool.connections.opening", metric.WithUnit("{connection}"),
			metric.WithDescription("Connects under way."))),
		retired: made(m.Int64ObservableCounter("aurorapgx.pool.connections.retired", metric.WithUnit("{connection}"),
			metric.WithDescription("Connections that the pool closed for their age or idleness."))),
	}
}

// made is an instrument; what is wrong with it goes to OpenTelemetry's error handler.
func made[T any](instrument T, err error) T {
	if err != nil {
		otel.Handle(err)
	}
	return instrument
}

// committed is the verdict of an attempt that succeeded.
const committed = "committed"

func (o *Observer) measure(ctx context.Context, e observe.Event) {
	i := &o.measures
	switch e := e.(type) {
	case observe.ConnectAttempt:
		attrs := append(server(e.Endpoint), o.pool(e.Pool), kindKey.String(e.Kind))
		if e.Err != nil {
			attrs = append(attrs, semconv.ErrorTypeKey.String(e.Case))
		}
		i.connectAttempt.Record(ctx, seconds(e.Took), metric.WithAttributes(attrs...))
	case observe.Connected:
		i.create.Record(ctx, seconds(e.Elapsed), metric.WithAttributes(o.pool(e.Pool)))
	case observe.ConnectFailed:
		i.connectFailures.Add(ctx, 1, metric.WithAttributes(o.pool(e.Pool), semconv.ErrorTypeKey.String(e.Case)))
	case observe.CredentialsFetched:
		i.credentials.Record(ctx, seconds(e.Took), withError(e.Err, o.pool(e.Pool), sourceKey.String(e.Source)))
	case observe.SecretRead:
		i.secretRead.Record(ctx, seconds(e.Took), withError(e.Err, secretKey.String(e.Secret)))
	case observe.Rotated:
		i.rotations.Add(ctx, 1, metric.WithAttributes(o.pool(e.Pool)))
	case observe.Evicted:
		i.evictions.Add(ctx, 1, metric.WithAttributes(o.pool(e.Pool), evictionKey.String(e.Reason)))
	case observe.FailoverNoticed:
		i.failovers.Add(ctx, 1, metric.WithAttributes(o.pool(e.Pool), signKey.String(e.Sign)))
	case observe.WriterChanged:
		i.writerChanges.Add(ctx, 1, metric.WithAttributes(o.pool(e.Pool)))
	case observe.TransactionAttempt:
		verdict := committed
		if e.Err != nil {
			verdict = e.Verdict
		}
		i.transactionAttempts.Add(ctx, 1, metric.WithAttributes(verdictKey.String(verdict)))
	case observe.TransactionEnded:
		i.transaction.Record(ctx, seconds(e.Elapsed), withError(e.Err))
	case observe.CommitInDoubt:
		i.inDoubt.Add(ctx, 1)
	case observe.CommitSettled:
		i.settled.Add(ctx, 1, metric.WithAttributes(settlementKey.String(e.Settlement)))
	case observe.Pinned:
		i.pins.Add(ctx, 1, metric.WithAttributes(ruleKey.String(e.Rule)))
	}
}

// withError adds error.type to attrs if there is an error.
func withError(err error, attrs ...attribute.KeyValue) metric.MeasurementOption {
	if err != nil {
		attrs = append(attrs, semconv.ErrorTypeKey.String(errorType(err)))
	}
	return metric.WithAttributes(attrs...)
}
