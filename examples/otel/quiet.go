package main

// What otelpgx tells too much of: it puts an error's whole text into a span, and PostgreSQL quotes
// values in its errors. otelpgx 0.13 has no option against that.

import (
	"context"
	"slices"

	"go.opentelemetry.io/otel/sdk/trace"
)

// withoutErrorTexts is an exporter that gets otelpgx's spans without the texts of their errors. That
// they failed, and the SQLSTATE, stays.
type withoutErrorTexts struct{ trace.SpanExporter }

func (e withoutErrorTexts) ExportSpans(ctx context.Context, spans []trace.ReadOnlySpan) error {
	spans = slices.Clone(spans) // other exporters may have the same slice
	for i, s := range spans {
		if s.InstrumentationScope().Name == "github.com/exaring/otelpgx" {
			spans[i] = textless{s}
		}
	}
	return e.SpanExporter.ExportSpans(ctx, spans)
}

// textless is a span without the texts of its errors.
type textless struct{ trace.ReadOnlySpan }

func (s textless) Status() trace.Status { return trace.Status{Code: s.ReadOnlySpan.Status().Code} }

func (s textless) Events() []trace.Event {
	return slices.DeleteFunc(slices.Clone(s.ReadOnlySpan.Events()), func(e trace.Event) bool { return e.Name == "exception" })
}
