package integration

// What OpenTelemetry gets of a real run: a rotation of the password and the loss of the writer, on a
// pool straight to a cluster.

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/aurorapgx/aurorapgx/internal/pgtest/lab"
	otelaurora "github.com/aurorapgx/aurorapgx/otel"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
	"github.com/aurorapgx/aurorapgx/retry"
	"github.com/aurorapgx/aurorapgx/secrets"
	"github.com/aurorapgx/aurorapgx/secrets/secretstest"
)

// telemetry keeps in memory what OpenTelemetry is given.
type telemetry struct {
	reader   *metric.ManualReader
	meters   *metric.MeterProvider
	spans    *tracetest.SpanRecorder
	tracers  *trace.TracerProvider
	observer *otelaurora.Observer
}

func newTelemetry(tb testing.TB) *telemetry {
	tb.Helper()
	tm := &telemetry{reader: metric.NewManualReader(), spans: tracetest.NewSpanRecorder()}
	tm.meters = metric.NewMeterProvider(metric.WithReader(tm.reader))
	tm.tracers = trace.NewTracerProvider(trace.WithSpanProcessor(tm.spans))
	tm.observer = otelaurora.NewObserver(otelaurora.WithMeterProvider(tm.meters), otelaurora.WithTracerProvider(tm.tracers))
	return tm
}

// series are the metrics' points: name{attribute=value,...} and its value, or a histogram's count.
func (tm *telemetry) series(tb testing.TB) map[string]int64 {
	tb.Helper()
	var rm metricdata.ResourceMetrics
	if err := tm.reader.Collect(context.Background(), &rm); err != nil {
		tb.Fatal(err)
	}
	all := map[string]int64{}
	for _, scope := range rm.ScopeMetrics {
		for _, m := range scope.Metrics {
			at := func(set attribute.Set) string {
				var parts []string
				for _, kv := range set.ToSlice() {
					if kv.Key != "db.client.connection.pool.name" && kv.Key != "server.address" && kv.Key != "server.port" {
						parts = append(parts, string(kv.Key)+"="+kv.Value.String())
					}
				}
				return m.Name + "{" + strings.Join(parts, ",") + "}"
			}
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					all[at(p.Attributes)] += p.Value
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					all[at(p.Attributes)] += int64(p.Count)
				}
			default:
				tb.Errorf("%s is a %T", m.Name, data)
			}
		}
	}
	return all
}

// tree prints the ended spans, each with its events, below its parent.
func (tm *telemetry) tree() string {
	ended := tm.spans.Ended()
	slices.SortStableFunc(ended, func(a, b trace.ReadOnlySpan) int { return a.StartTime().Compare(b.StartTime()) })
	var out bytes.Buffer
	var below func(parent string, depth int)
	below = func(parent string, depth int) {
		for _, s := range ended {
			if s.Parent().SpanID().String() != parent {
				continue
			}
			indent := strings.Repeat("  ", depth)
			fmt.Fprintf(&out, "%s%s %s %v\n", indent, s.Name(), s.Status().Code, attributes(s.Attributes()))
			for _, e := range s.Events() {
				fmt.Fprintf(&out, "%s  - %s %v\n", indent, e.Name, attributes(e.Attributes))
			}
			below(s.SpanContext().SpanID().String(), depth+1)
		}
	}
	below("0000000000000000", 0)
	return out.String()
}

func attributes(kvs []attribute.KeyValue) string {
	var parts []string
	for _, kv := range kvs {
		parts = append(parts, string(kv.Key)+"="+kv.Value.String())
	}
	return "[" + strings.Join(parts, " ") + "]"
}

func TestTelemetryOfAFailoverAndARotation(t *testing.T) {
	t.Parallel()
	c := startCluster(t)
	tm := newTelemetry(t)
	u, err := url.Parse(c.URL(c.WriterHost()))
	if err != nil {
		t.Fatal(err)
	}
	first, _ := u.User.Password()
	u.User = nil
	srv := secretstest.NewServer(t)
	srv.Put("prod/orders", fmt.Sprintf(`{"username":%q,"password":%q}`, lab.User, first))
	source := secrets.FromManager(srv.Client(), "prod/orders", secrets.Observer(tm.observer))
	pool := newPool(t, u.String(), proxy.WithLookup(c.Lookup), proxy.WithDialer(c.Dial), proxy.WithRootCAs(c.CA()),
		proxy.WithCredentials(source), proxy.WithRetirement(0), proxy.WithMaxConns(2), proxy.WithObserver(tm.observer))
	stop, err := tm.observer.ObservePool(pool)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tm.observer.ObservePool(pool); err == nil {
		t.Error("the pool is observed twice")
	}
	exec(t, pool, "create table placed (id text primary key)")

	// A rotation, a connect that meets the new password, and an old connection that goes.
	if err := srv.Rotate(t.Context(), "prod/orders", secretstest.Rotation{AdminDSN: c.AdminDSN()}); err != nil {
		t.Fatal(err)
	}
	open(t, pool)
	exec(t, pool, "select 1")
	open(t, pool)

	// The writer is lost in the middle of a transaction, and the reader promoted.
	promoted, runs := make(chan error, 1), 0
	ctx, parent := tm.tracers.Tracer("test").Start(t.Context(), "place order")
	err = retry.TxContext(ctx, pool, func(ctx context.Context, tx pgx.Tx) error {
		if runs++; runs == 1 { // with contexts outside of the span: the laboratory has some of its own
			if err := c.Writer().Kill(t.Context()); err != nil {
				return err
			}
			go func() {
				_, err := c.Promote(t.Context())
				promoted <- err
			}()
		}
		_, err := tx.Exec(ctx, "insert into placed values ($1)", "order-1")
		return err
	}, retry.WithPolicy(retry.Failover()), retry.WithObserver(tm.observer))
	parent.End()
	if err != nil {
		t.Fatal(err)
	}
	if err := <-promoted; err != nil {
		t.Fatal(err)
	}

	series := tm.series(t)
	var printed []string
	for name, value := range series {
		printed = append(printed, fmt.Sprintf("%s %d", name, value))
	}
	slices.Sort(printed)
	tree := tm.tree()
	t.Logf("metrics:\n%s\nspans:\n%s", strings.Join(printed, "\n"), tree)
	for _, want := range []struct {
		name  string
		least int64
		most  int64
	}{
		{"db.client.connection.count{db.client.connection.state=used}", 0, 0},
		{"db.client.connection.count{db.client.connection.state=idle}", 1, 2},
		{"db.client.connection.max{}", 2, 2},
		{"db.client.connection.idle.max{}", 2, 2},
		{"db.client.connection.idle.min{}", 0, 0},
		{"db.client.connection.pending_requests{}", 0, 0},
		{"db.client.connection.create_time{}", 4, 6},
		{"db.client.connection.wait_time{}", 6, 20},
		{"db.client.connection.use_time{}", 6, 20},
		{"aurorapgx.connect.attempt.duration{aurorapgx.endpoint.kind=cluster writer}", 4, 6},
		{"aurorapgx.connect.attempt.duration{aurorapgx.endpoint.kind=cluster writer,error.type=rotation-unfinished}", 1, 20},
		{"aurorapgx.credentials.duration{aurorapgx.credentials.source=secret}", 4, 1000},
		{"aurorapgx.secret.read.duration{aurorapgx.secret.name=prod/orders}", 2, 2},
		{"aurorapgx.rotations{}", 1, 1},
		{"aurorapgx.evictions{aurorapgx.eviction.reason=rotated}", 1, 1},
		{"aurorapgx.failovers{aurorapgx.failover.sign=moved}", 1, 1},
		{"aurorapgx.writer.changes{}", 1, 1},
		{"aurorapgx.transaction.duration{}", 1, 1},
		{"aurorapgx.transaction.attempts{aurorapgx.verdict=rolled back}", 1, 1},
		{"aurorapgx.transaction.attempts{aurorapgx.verdict=committed}", 1, 1},
	} {
		if got, ok := series[want.name]; !ok || got < want.least || got > want.most {
			t.Errorf("%s is %d (%v), want %d to %d", want.name, got, ok, want.least, want.most)
		}
	}
	for _, want := range []string{
		"place order Unset []\n  aurorapgx.transaction Unset [db.system.name=postgresql aurorapgx.attempts=2]\n",
		"error.type=rotation-unfinished", "- credentials rotated", "- secret read", "- writer changed", "- failover noticed",
	} {
		if !strings.Contains(tree, want) {
			t.Errorf("no span says %q", want)
		}
	}
	for _, secret := range []string{first, "order-1", "insert into"} {
		if strings.Contains(tree, secret) {
			t.Errorf("%q is in a span", secret)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, ok := tm.series(t)["db.client.connection.max{}"]; ok {
		t.Error("the pool is still observed")
	}
}

// What proxytest pins, an observer sees.
func TestTelemetryOfAPin(t *testing.T) {
	t.Parallel()
	tm := newTelemetry(t)
	px, url, _ := startProxy(t, proxytest.WithObserver(tm.observer))
	exec(t, newPool(t, url, signedBy(px)), "set statement_timeout = 1000")
	if got := tm.series(t)["aurorapgx.pins{aurorapgx.pin.rule="+px.Pins()[0].Rule+"}"]; got != 1 {
		t.Errorf("%d pins: %v", got, tm.series(t))
	}
}

// A query without an observer allocates what it does with plain pgxpool.
func TestNobodyObservesForNothing(t *testing.T) {
	dsn := database(t, shared)
	plain, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(plain.Close)
	ours := newPool(t, dsn)
	allocations := func(pool *pgxpool.Pool) float64 {
		query := selectOne(pool)
		return testing.AllocsPerRun(500, func() {
			if err := query(); err != nil {
				t.Error(err)
			}
		})
	}
	if o, p := allocations(ours), allocations(plain); o != p {
		t.Errorf("%v allocations, and %v with pgxpool", o, p)
	}
}

// BenchmarkQueryObserved: the cost of one query with OpenTelemetry on, beside the same pool
// without: metrics and spans of the otel module, and the pool's statistics; the same with
// otelpgx, whose spans and metrics for each statement are its own; and two pools without any of
// it, which tells how far the figures of this machine can be trusted.
//
// One iteration is 50 pairs of 20 queries, on connections of their own: which core a server's
// process is on makes more of a difference than what is measured here, and stays for as long as
// the connection does.
func BenchmarkQueryObserved(b *testing.B) {
	for _, name := range []string{"otel", "otel and otelpgx", "nothing"} {
		b.Run(name, func(b *testing.B) {
			dsn := database(b, shared)
			tm := newTelemetry(b)
			cfg, err := pgxpool.ParseConfig(dsn)
			if err != nil {
				b.Fatal(err)
			}
			options := []proxy.Option{proxy.WithMaxConns(4)}
			if name != "nothing" {
				options = append(options, proxy.WithObserver(tm.observer))
			}
			if name == "otel and otelpgx" { // its spans go nowhere: a recorder would keep them all
				cfg.ConnConfig.Tracer = otelpgx.NewTracer(
					otelpgx.WithTracerProvider(trace.NewTracerProvider()), otelpgx.WithMeterProvider(tm.meters))
			}
			if err := proxy.Configure(cfg, options...); err != nil {
				b.Fatal(err)
			}
			observed, err := pgxpool.NewWithConfig(b.Context(), cfg)
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(observed.Close)
			if name != "nothing" {
				stop, err := tm.observer.ObservePool(observed)
				if err != nil {
					b.Fatal(err)
				}
				b.Cleanup(func() {
					if err := stop(); err != nil {
						b.Error(err)
					}
				})
			}
			comparePools(b, observed, newPool(b, dsn, proxy.WithMaxConns(4)))
		})
	}
}

func comparePools(b *testing.B, observed, plain *pgxpool.Pool) {
	b.Helper()
	const pairs, block = 50, 20
	timed := func(f func() error, cpu *[]float64) float64 {
		used, start := processorTime(b), time.Now()
		for range block {
			if err := f(); err != nil {
				b.Fatal(err)
			}
		}
		took := float64(time.Since(start)) / block
		*cpu = append(*cpu, float64(processorTime(b)-used)/block)
		return took
	}
	ours, theirs := selectOne(observed), selectOne(plain)
	var ratios, oursTook, plainTook, oursUsed, plainUsed, ignored []float64
	for i := 0; b.Loop(); i++ {
		observed.Reset()
		plain.Reset()
		timed(ours, &ignored)
		timed(theirs, &ignored)
		var o, p []float64
		for pair := range pairs {
			if (i+pair)%2 == 0 {
				o, p = append(o, timed(ours, &oursUsed)), append(p, timed(theirs, &plainUsed))
			} else {
				p, o = append(p, timed(theirs, &plainUsed)), append(o, timed(ours, &oursUsed))
			}
		}
		ratios = append(ratios, median(o)/median(p))
		oursTook, plainTook = append(oursTook, o...), append(plainTook, p...)
	}
	slices.Sort(ratios)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(oursTook), "observed-ns")
	b.ReportMetric(median(plainTook), "plain-ns")
	b.ReportMetric(median(oursUsed), "observed-cpu-ns")
	b.ReportMetric(median(plainUsed), "plain-cpu-ns")
	b.ReportMetric(median(ratios), "observed/plain")
	b.ReportMetric(ratios[len(ratios)/4], "quarter-below")
	b.ReportMetric(ratios[3*len(ratios)/4], "quarter-above")
	b.ReportMetric(testing.AllocsPerRun(500, func() { _ = ours() }), "observed-allocs")
	b.ReportMetric(testing.AllocsPerRun(500, func() { _ = theirs() }), "plain-allocs")
}

// processorTime is what this process has used of the processors. Unlike the time that passes, it
// does not depend on who else uses them.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
