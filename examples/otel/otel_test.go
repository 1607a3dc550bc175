package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/aurorapgx/aurorapgx/examples/internal/page"
)

func TestOtel(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), &out)
	t.Logf("\n%s", out.String())
	if err != nil {
		t.Fatal(err)
	}
	page.Check(t, "go run ./otel", out.String())
	for _, secret := range []string{"order-1", "order-2", "insert into", "password="} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("the output says %q", secret)
		}
	}
}

// What the page says of otelpgx: which texts it exports, and how not to.
func TestTextsOfOtelpgx(t *testing.T) {
	t.Parallel()
	const statement, quoted = "select 'secret-1'::int", `invalid input syntax for type integer: "secret-1"`
	for _, quiet := range []bool{false, true} {
		kept := tracetest.NewInMemoryExporter()
		var exporter trace.SpanExporter = kept
		var opts []otelpgx.Option
		if quiet {
			exporter = withoutErrorTexts{kept}
			opts = append(opts, otelpgx.WithDisableSQLStatementInAttributes())
		}
		provider := trace.NewTracerProvider(trace.WithSyncer(exporter))
		tracer := otelpgx.NewTracer(append(opts, otelpgx.WithTracerProvider(provider))...)
		ctx, parent := provider.Tracer("orders").Start(t.Context(), "a request")
		ctx = tracer.TraceQueryStart(ctx, nil, pgx.TraceQueryStartData{SQL: statement})
		tracer.TraceQueryEnd(ctx, nil, pgx.TraceQueryEndData{Err: &pgconn.PgError{Code: "22P02", Message: quoted}})
		parent.End()

		span := kept.GetSpans()[0]
		told := fmt.Sprintf("%+v", span)
		if strings.Contains(told, "secret-1") == quiet {
			t.Errorf("quiet %t: %s", quiet, told)
		}
		if span.Status.Code != codes.Error || !strings.Contains(told, "22P02") {
			t.Errorf("quiet %t: nothing says that it failed: %s", quiet, told)
		}
	}
}
