package otelaurora_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/aurorapgx/aurorapgx/observe"
	otelaurora "github.com/aurorapgx/aurorapgx/otel"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

type fixture struct {
	*otelaurora.Observer

	reader *metric.ManualReader
	spans  *tracetest.SpanRecorder
}

func newFixture(opts ...otelaurora.Option) *fixture {
	f := &fixture{reader: metric.NewManualReader(), spans: tracetest.NewSpanRecorder()}
	f.Observer = otelaurora.NewObserver(append([]otelaurora.Option{
		otelaurora.WithMeterProvider(metric.NewMeterProvider(metric.WithReader(f.reader))),
		otelaurora.WithTracerProvider(trace.NewTracerProvider(trace.WithSpanProcessor(f.spans))),
	}, opts...)...)
	return f
}

// series are the metrics' points in words.
func (f *fixture) series(t *testing.T) (all []string) {
	t.Helper()
	var rm metricdata.ResourceMetrics
	if err := f.reader.Collect(t.Context(), &rm); err != nil {
		t.Fatal(err)
	}
	for _, scope := range rm.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					all = append(all, fmt.Sprintf("%s%s %d", m.Name, words(p.Attributes.ToSlice()), p.Value))
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					all = append(all, fmt.Sprintf("%s%s %d, %gs", m.Name, words(p.Attributes.ToSlice()), p.Count, p.Sum))
				}
			default:
				t.Errorf("%s is a %T", m.Name, data)
			}
		}
	}
	slices.Sort(all)
	return all
}

func words(kvs []attribute.KeyValue) string {
	var parts []string
	for _, kv := range kvs {
		parts = append(parts, string(kv.Key)+"="+kv.Value.String())
	}
	return "{" + strings.Join(parts, " ") + "}"
}

func (f *fixture) tree() string {
	var b strings.Builder
	for _, s := range f.spans.Ended() {
		fmt.Fprintf(&b, "%s %s %q %s\n", s.Name(), s.Status().Code, s.Status().Description, words(s.Attributes()))
		for _, e := range s.Events() {
			fmt.Fprintf(&b, "- %s %s\n", e.Name, words(e.Attributes))
		}
	}
	return b.String()
}

func compare(t *testing.T, what, got, want string) {
	t.Helper()
	if strings.TrimSpace(got) != strings.TrimSpace(want) {
		t.Errorf("%s:\n%s\nwant:\n%s", what, got, want)
	}
}

const (
	pool     = "h.example.com:5432/orders"
	endpoint = "h.example.com:5432"
)

func TestAConnectThatIsGivenUp(t *testing.T) {
	t.Parallel()
	f := newFixture(otelaurora.WithPoolName("reports"))
	ctx := f.Start(t.Context(), observe.Operation{Name: observe.Connect, Pool: pool, Endpoint: endpoint, Kind: "proxy"})
	f.Observe(ctx, observe.CredentialsFetched{Pool: pool, Endpoint: endpoint, Source: "iam", User: "app", Took: time.Millisecond, Err: context.DeadlineExceeded})
	f.Observe(ctx, observe.ConnectAttempt{
		Pool: pool, Endpoint: endpoint, Kind: "proxy", Number: 1, Took: time.Second, Err: errors.New("x"), Cause: proxy.ErrTooManyConnections, Case: "full",
	})
	f.Observe(ctx, observe.ConnectFailed{Pool: pool, Endpoint: endpoint, Kind: "proxy", Attempts: 1, Err: errors.New("all of it"), Cause: proxy.ErrTooManyConnections, Case: "full"})
	compare(t, "spans", f.tree(), `
aurorapgx.connect Error "all of it" {server.address=h.example.com server.port=5432 db.system.name=postgresql db.client.connection.pool.name=reports aurorapgx.endpoint.kind=proxy db.namespace=orders aurorapgx.attempts=1 error.type=full}
- credentials {aurorapgx.credentials.source=iam aurorapgx.duration=0.001 error.type=timeout}
- attempt {server.address=h.example.com server.port=5432 aurorapgx.attempt=1 aurorapgx.duration=1 error.type=full aurorapgx.pause=0 aurorapgx.cause=too many connections}`)
	compare(t, "metrics", strings.Join(f.series(t), "\n"), `
aurorapgx.connect.attempt.duration{aurorapgx.endpoint.kind=proxy db.client.connection.pool.name=reports error.type=full server.address=h.example.com server.port=5432} 1, 1s
aurorapgx.connect.failures{db.client.connection.pool.name=reports error.type=full} 1
aurorapgx.credentials.duration{aurorapgx.credentials.source=iam db.client.connection.pool.name=reports error.type=timeout} 1, 0.001s`)
}

func TestATransactionInDoubt(t *testing.T) {
	t.Parallel()
	f := newFixture()
	quoting := &pgconn.PgError{Severity: "ERROR", Code: "40001", Message: "Key (card)=(4111-1111) conflicts"}
	ctx := f.Start(t.Context(), observe.Operation{Name: observe.Transaction})
	f.Observe(ctx, observe.TransactionAttempt{Number: 1, Err: quoting, Verdict: "rolled back", Reason: "why", Pause: time.Second})
	f.Observe(ctx, observe.CommitInDoubt{Err: io.ErrUnexpectedEOF})
	f.Observe(ctx, observe.CommitSettled{How: "xid", Settlement: "unsettled", Took: time.Second, Err: errors.New("no answer")})
	doubt := &retry.AmbiguousCommitError{Err: quoting}
	f.Observe(ctx, observe.TransactionAttempt{Number: 2, Err: doubt, Verdict: "ambiguous", Reason: "not answered", Settlement: "unsettled", Last: true})
	f.Observe(ctx, observe.TransactionEnded{Attempts: 2, Elapsed: 3 * time.Second, Err: doubt, Verdict: "ambiguous"})
	tree := f.tree()
	compare(t, "spans", tree, `
aurorapgx.transaction Error "ambiguous" {db.system.name=postgresql aurorapgx.attempts=2 aurorapgx.verdict=ambiguous error.type=commit-in-doubt}
- attempt {aurorapgx.attempt=1 aurorapgx.duration=0 aurorapgx.verdict=rolled back aurorapgx.reason=why error.type=40001 aurorapgx.pause=1}
- commit in doubt {error.type=connection-lost}
- commit settled {aurorapgx.settlement=unsettled aurorapgx.settlement.evidence=xid aurorapgx.duration=1}
- attempt {aurorapgx.attempt=2 aurorapgx.duration=0 aurorapgx.verdict=ambiguous aurorapgx.reason=not answered error.type=commit-in-doubt aurorapgx.pause=0 aurorapgx.settlement=unsettled}`)
	compare(t, "metrics", strings.Join(f.series(t), "\n"), `
aurorapgx.commits.in_doubt{} 1
aurorapgx.commits.settled{aurorapgx.settlement=unsettled} 1
aurorapgx.transaction.attempts{aurorapgx.verdict=ambiguous} 1
aurorapgx.transaction.attempts{aurorapgx.verdict=rolled back} 1
aurorapgx.transaction.duration{error.type=commit-in-doubt} 1, 3s`)
	if strings.Contains(tree, "4111") {
		t.Error("a value is in a span")
	}
}

// What the package's documentation lists is what there is.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	f := newFixture()
	cfg, err := pgxpool.ParseConfig("host=localhost user=app database=orders")
	if err != nil {
		t.Fatal(err)
	}
	p, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	stop, err := f.ObservePool(p)
	if err != nil {
		t.Fatal(err)
	}
	failure := errors.New("failure")
	for _, e := range []observe.Event{
		observe.ConnectAttempt{}, observe.Connected{}, observe.ConnectFailed{Err: failure}, observe.CredentialsFetched{}, observe.SecretRead{},
		observe.Rotated{}, observe.Evicted{}, observe.FailoverNoticed{}, observe.WriterChanged{}, observe.TransactionAttempt{},
		observe.TransactionEnded{}, observe.CommitInDoubt{}, observe.CommitSettled{}, observe.Pinned{},
	} {
		f.Observe(t.Context(), e)
	}
	// A caller who waits in vain. Those who wait and get a connection need a server: see
	// internal/integration.
	ctx, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	f.TraceAcquireEnd(f.TraceAcquireStart(ctx, p, pgxpool.TraceAcquireStartData{}), p, pgxpool.TraceAcquireEndData{Err: ctx.Err()})
	measured := map[string]bool{"db.client.connection.wait_time": true, "db.client.connection.use_time": true}
	for _, s := range f.series(t) {
		name, _, _ := strings.Cut(s, "{")
		measured[name] = true
	}
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(doc), "# Spans")
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^//\t((?:db|aurorapgx)\.[a-z_.]+)  `).FindAllStringSubmatch(before, -1) {
		if documented[m[1]] = true; !measured[m[1]] {
			t.Errorf("%s is documented, and nothing measures it", m[1])
		}
	}
	for name := range measured {
		if !documented[name] {
			t.Errorf("%s is not documented", name)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Errorf("the second time: %v", err)
	}
}

// A span that ended with an error is marked so, and one of somebody else's is left alone.
func TestOtherSpansAreLeftAlone(t *testing.T) {
	t.Parallel()
	f := newFixture()
	tracer := trace.NewTracerProvider(trace.WithSpanProcessor(f.spans)).Tracer("application")
	ctx, span := tracer.Start(t.Context(), "request")
	f.Observe(ctx, observe.Evicted{Pool: pool, Reason: observe.EvictedClosed})
	inside := f.Start(ctx, observe.Operation{Name: observe.Transaction})
	within, statement := tracer.Start(inside, "statement")
	f.Observe(within, observe.TransactionEnded{Attempts: 1})
	statement.End()
	span.End()
	var got []string
	for _, s := range f.spans.Ended() {
		got = append(got, fmt.Sprintf("%s %d %v", s.Name(), len(s.Events()), s.Status().Code == codes.Error))
	}
	if strings.Join(got, ", ") != "aurorapgx.transaction 0 false, statement 0 false, request 0 false" {
		t.Error(got)
	}
}
