package otelaurora

import (
	"context"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/aurorapgx/aurorapgx/observe"
)

// scope names this package in what it measures.
const scope = "github.com/aurorapgx/aurorapgx/otel"

// Observer is an [observe.Observer] for OpenTelemetry. Make one with [NewObserver], for as many
// pools as there are. It is safe for concurrent use, and needs no Close.
type Observer struct {
	tracer   trace.Tracer
	meter    metric.Meter
	measures instruments
	poolName string

	mu    sync.Mutex                                  // for changes of pools
	pools atomic.Pointer[map[*pgxpool.Pool]*measured] // replaced, never changed
}

var (
	_ observe.Observer      = (*Observer)(nil)
	_ pgxpool.AcquireTracer = (*Observer)(nil)
	_ pgxpool.ReleaseTracer = (*Observer)(nil)
)

// Option changes how [NewObserver] works.
type Option func(*config)

type config struct {
	tracers  trace.TracerProvider
	meters   metric.MeterProvider
	poolName string
}

// WithTracerProvider takes the tracer from p. Default: the global provider, otel.GetTracerProvider.
func WithTracerProvider(p trace.TracerProvider) Option { return func(c *config) { c.tracers = p } }

// WithMeterProvider takes the meter from p. Default: the global provider, otel.GetMeterProvider.
func WithMeterProvider(p metric.MeterProvider) Option { return func(c *config) { c.meters = p } }

// WithPoolName sets db.client.connection.pool.name, for pools that host, port and database do not
// tell apart. Use an Observer for each of them then. Default: host:port/database.
func WithPoolName(name string) Option { return func(c *config) { c.poolName = name } }

// NewObserver makes an Observer. What OpenTelemetry has against an instrument goes to its
// error handler, otel.Handle.
func NewObserver(opts ...Option) *Observer {
	c := config{tracers: otel.GetTracerProvider(), meters: otel.GetMeterProvider()}
	for _, opt := range opts {
		opt(&c)
	}
	o := &Observer{
		tracer:   c.tracers.Tracer(scope, trace.WithSchemaURL(semconv.SchemaURL)),
		meter:    c.meters.Meter(scope, metric.WithSchemaURL(semconv.SchemaURL)),
		poolName: c.poolName,
	}
	o.measures = newInstruments(o.meter)
	o.pools.Store(&map[*pgxpool.Pool]*measured{})
	return o
}

// Start opens a span. It is the [observe.Observer]'s.
func (o *Observer) Start(ctx context.Context, op observe.Operation) context.Context {
	if op.Name == observe.Connect {
		return o.startConnect(ctx, op)
	}
	return o.startTransaction(ctx)
}

// Observe counts and measures an event, and adds it to the span of its operation. It is the
// [observe.Observer]'s.
func (o *Observer) Observe(ctx context.Context, e observe.Event) {
	o.measure(ctx, e)
	if span := spanOf(ctx); span != nil {
		tell(span, e)
	}
}

// pool is the attribute for a pool's name.
func (o *Observer) pool(name string) attribute.KeyValue {
	if o.poolName != "" {
		name = o.poolName
	}
	return semconv.DBClientConnectionPoolName(name)
}

// server are the attributes for host:port.
func server(endpoint string) []attribute.KeyValue {
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		return []attribute.KeyValue{semconv.ServerAddress(endpoint)}
	}
	attrs := []attribute.KeyValue{semconv.ServerAddress(host)}
	if n, err := strconv.Atoi(port); err == nil {
		attrs = append(attrs, semconv.ServerPort(n))
	}
	return attrs
}

// seconds is a duration as OpenTelemetry wants it.
func seconds(d time.Duration) float64 { return d.Seconds() }
