package otelaurora

// A pool's statistics, read when a reader collects, and what each acquire measures. The latter
// is the one thing here that a query pays for. So its times are noted in memory that is at hand,
// and given to the histograms many at a time: one at a time costs as much again as a few
// percent of a query, most of it for code and data that a query's own have pushed out of
// the processor's caches.

import (
	"context"
	"errors"
	"maps"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// measured is a pool that is observed.
type measured struct {
	instruments *instruments
	record      []metric.RecordOption
	add         []metric.AddOption
	pending     atomic.Int64

	mu    sync.Mutex
	noted []leased
	spare []leased // the memory of the ones before
}

// leased is how long somebody waited for a connection and kept it.
type leased struct{ wait, use time.Duration }

// most is how many are noted before they are given to the histograms.
const most = 128

// note notes one, and passes on what was noted if it is time.
func (m *measured) note(one leased) {
	m.mu.Lock()
	m.noted = append(m.noted, one)
	full := len(m.noted) == most
	m.mu.Unlock()
	if full {
		m.flush()
	}
}

// flush passes on what was noted. A collection begins with it.
func (m *measured) flush() {
	m.mu.Lock()
	noted := m.noted
	m.noted, m.spare = m.spare[:0], nil
	m.mu.Unlock()
	ctx := context.Background()
	for _, one := range noted {
		m.instruments.wait.Record(ctx, seconds(one.wait), m.record...)
	}
	for _, one := range noted {
		m.instruments.use.Record(ctx, seconds(one.use), m.record...)
	}
	m.mu.Lock()
	m.spare = noted
	m.mu.Unlock()
}

// ObservePool reports the pool's statistics whenever a reader collects, until stop is called. Waiting
// and use times, pending requests and timeouts are reported of pools that have this Observer from
// proxy.WithObserver; the rest of any pool. Call stop when the pool is closed; it returns an error if
// OpenTelemetry does, and nothing the second time. A pool is observed once.
func (o *Observer) ObservePool(pool *pgxpool.Pool) (stop func() error, err error) {
	cfg := pool.Config()
	name := net.JoinHostPort(cfg.ConnConfig.Host, strconv.Itoa(int(cfg.ConnConfig.Port))) + "/" + cfg.ConnConfig.Database
	own := o.pool(name)
	set := func(more ...attribute.KeyValue) metric.MeasurementOption {
		return metric.WithAttributeSet(attribute.NewSet(append(more, own)...))
	}
	var (
		i             = &o.measures
		all           = set()
		idle, used    = set(semconv.DBClientConnectionStateIdle), set(semconv.DBClientConnectionStateUsed)
		byAge, byIdle = set(retirementKey.String("lifetime")), set(retirementKey.String("idle"))
		limit         = int64(cfg.MaxConns)
		least         = int64(max(cfg.MinConns, cfg.MinIdleConns))
		m             = &measured{instruments: i, record: []metric.RecordOption{all}, add: []metric.AddOption{all}}
	)
	if !o.watch(pool, m) {
		return nil, errors.New("otelaurora: the pool is observed already")
	}
	registration, err := o.meter.RegisterCallback(func(_ context.Context, out metric.Observer) error {
		m.flush()
		s := pool.Stat()
		out.ObserveInt64(i.count, int64(s.IdleConns()), idle)
		out.ObserveInt64(i.count, int64(s.AcquiredConns()), used)
		out.ObserveInt64(i.max, limit, all)
		out.ObserveInt64(i.idleMax, limit, all)
		out.ObserveInt64(i.idleMin, least, all)
		out.ObserveInt64(i.pending, m.pending.Load(), all)
		out.ObserveInt64(i.opening, int64(s.ConstructingConns()), all)
		out.ObserveInt64(i.retired, s.MaxLifetimeDestroyCount(), byAge)
		out.ObserveInt64(i.retired, s.MaxIdleDestroyCount(), byIdle)
		return nil
	}, i.count, i.max, i.idleMax, i.idleMin, i.pending, i.opening, i.retired)
	if err != nil {
		o.forget(pool)
		return nil, err
	}
	var once sync.Once
	return func() (err error) {
		once.Do(func() {
			o.forget(pool)
			err = registration.Unregister()
			m.flush()
		})
		return err
	}, nil
}

// watch has acquires of pool measured, unless they are.
func (o *Observer) watch(pool *pgxpool.Pool, m *measured) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	pools := maps.Clone(*o.pools.Load())
	if pools[pool] != nil {
		return false
	}
	pools[pool] = m
	o.pools.Store(&pools)
	return true
}

func (o *Observer) forget(pool *pgxpool.Pool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	pools := maps.Clone(*o.pools.Load())
	delete(pools, pool)
	o.pools.Store(&pools)
}

// acquiring is the context of a caller who waits for a connection.
type acquiring struct {
	context.Context
	m     *measured
	since time.Time
}

type acquiringKey struct{}

// Value finds the acquiring among contexts.
func (a *acquiring) Value(key any) any {
	if key == (acquiringKey{}) {
		return a
	}
	return a.Context.Value(key)
}

// lease is where a connection keeps what is known of whoever has it.
type lease struct {
	m     *measured // nil if nobody has it
	wait  time.Duration
	since time.Time
}

const leaseKey = scope // in pgconn's CustomData

// TraceAcquireStart is pgxpool's: somebody begins to wait for a connection.
func (o *Observer) TraceAcquireStart(ctx context.Context, pool *pgxpool.Pool, _ pgxpool.TraceAcquireStartData) context.Context {
	m := (*o.pools.Load())[pool]
	if m == nil {
		return ctx
	}
	m.pending.Add(1)
	return &acquiring{Context: ctx, m: m, since: time.Now()}
}

// TraceAcquireEnd is pgxpool's: the wait is over.
func (o *Observer) TraceAcquireEnd(ctx context.Context, _ *pgxpool.Pool, data pgxpool.TraceAcquireEndData) {
	a, ok := ctx.(*acquiring)
	if !ok {
		if a, ok = ctx.Value(acquiringKey{}).(*acquiring); !ok {
			return
		}
	}
	a.m.pending.Add(-1)
	if data.Err != nil {
		if errors.Is(data.Err, context.DeadlineExceeded) {
			o.measures.timeouts.Add(ctx, 1, a.m.add...)
		}
		return
	}
	custom, now := data.Conn.PgConn().CustomData(), time.Now()
	l, ok := custom[leaseKey].(*lease)
	if !ok {
		l = &lease{}
		custom[leaseKey] = l
	}
	l.m, l.wait, l.since = a.m, now.Sub(a.since), now
}

// TraceRelease is pgxpool's: a connection is given back.
func (o *Observer) TraceRelease(_ *pgxpool.Pool, data pgxpool.TraceReleaseData) {
	l, ok := data.Conn.PgConn().CustomData()[leaseKey].(*lease)
	if !ok || l.m == nil { // it was taken before the pool was observed
		return
	}
	l.m.note(leased{l.wait, time.Since(l.since)})
	l.m = nil
}
