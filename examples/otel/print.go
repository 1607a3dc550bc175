package main

// Metrics as a table, and spans as trees.

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/sdk/trace"
)

// same are attributes that are the same everywhere here.
var same = map[attribute.Key]bool{
	"db.client.connection.pool.name": true, "server.address": true, "server.port": true, "db.system.name": true, "db.namespace": true,
	"aurorapgx.secret.version": true,
}

// ours names what this library's module reports; the rest is otelpgx's.
const ours = "github.com/aurorapgx/aurorapgx/otel"

func printMetrics(ctx context.Context, out io.Writer, reader *metric.ManualReader) error {
	var collected metricdata.ResourceMetrics
	if err := reader.Collect(ctx, &collected); err != nil {
		return err
	}
	var (
		lines  []line
		others []string
	)
	for _, scope := range collected.ScopeMetrics {
		for _, m := range scope.Metrics {
			if scope.Scope.Name != ours {
				others = append(others, m.Name)
				continue
			}
			lines = append(lines, points(m)...)
		}
	}
	slices.SortFunc(lines, func(a, b line) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.attributes, b.attributes))
	})
	_, _ = fmt.Fprintln(out, "metrics")
	for _, l := range lines {
		_, _ = fmt.Fprintln(out, strings.TrimRight(fmt.Sprintf("  %-37s %5d  %-10s %s", l.name, l.value, l.mean, l.attributes), " "))
	}
	slices.Sort(others)
	_, err := fmt.Fprintf(out, "  of otelpgx: %s\n", strings.Join(slices.Compact(others), ", "))
	return err
}

// line is one set of a metric's attributes, and its value; a histogram's is how many there were, and
// it has a mean.
type line struct {
	name, attributes string
	value            int64
	mean             string
}

func points(m metricdata.Metrics) (lines []line) {
	switch data := m.Data.(type) {
	case metricdata.Sum[int64]:
		for _, p := range data.DataPoints {
			lines = append(lines, line{name: m.Name, attributes: shown(p.Attributes.ToSlice()), value: p.Value})
		}
	case metricdata.Histogram[float64]:
		for _, p := range data.DataPoints {
			mean := time.Duration(p.Sum / float64(p.Count) * float64(time.Second))
			lines = append(lines, line{m.Name, shown(p.Attributes.ToSlice()), int64(p.Count), rounded(mean).String()})
		}
	}
	return lines
}

func shown(kvs []attribute.KeyValue) string {
	var parts []string
	for _, kv := range kvs {
		if same[kv.Key] {
			continue
		}
		value := kv.Value.String()
		if kv.Value.Type() == attribute.FLOAT64 {
			value = rounded(time.Duration(kv.Value.AsFloat64() * float64(time.Second))).String()
		}
		parts = append(parts, strings.TrimPrefix(string(kv.Key), "aurorapgx.")+"="+value)
	}
	return strings.Join(parts, ", ")
}

func rounded(d time.Duration) time.Duration { return d.Round(10 * time.Microsecond) }

// printSpans prints each trace as a tree, in the order of time. Spans of otelpgx are their names.
func printSpans(out io.Writer, spans []trace.ReadOnlySpan) error {
	slices.SortStableFunc(spans, func(a, b trace.ReadOnlySpan) int { return a.StartTime().Compare(b.StartTime()) })
	lines := []string{"", "spans"}
	var below func(parent trace.ReadOnlySpan, depth int)
	below = func(parent trace.ReadOnlySpan, depth int) {
		indent := strings.Repeat("  ", depth)
		for _, s := range spans {
			if parent == nil && s.Parent().IsValid() || parent != nil && s.Parent().SpanID() != parent.SpanContext().SpanID() {
				continue
			}
			if parent == nil && s.InstrumentationScope().Name != "orders" {
				continue // the making of the table
			}
			lines = append(lines, fmt.Sprintf("%s%s (%s)%s", indent, s.Name(), rounded(s.EndTime().Sub(s.StartTime())), details(s)))
			for _, e := range events(s) {
				lines = append(lines, indent+"    - "+e)
			}
			below(s, depth+1)
		}
	}
	below(nil, 1)
	_, err := fmt.Fprintln(out, strings.Join(lines, "\n"))
	return err
}

func details(s trace.ReadOnlySpan) string {
	if s.InstrumentationScope().Name != ours {
		return ""
	}
	if text := shown(s.Attributes()); text != "" {
		return ": " + text
	}
	return ""
}

// events are a span's, those of the same kind together.
func events(s trace.ReadOnlySpan) (lines []string) {
	if s.InstrumentationScope().Name != ours {
		return nil
	}
	count := map[string]int{}
	for _, e := range s.Events() {
		kept := slices.DeleteFunc(slices.Clone(e.Attributes), func(kv attribute.KeyValue) bool {
			return kv.Value.Type() == attribute.FLOAT64 || kv.Key == "aurorapgx.attempt"
		})
		line := e.Name
		if text := shown(kept); text != "" {
			line += ": " + text
		}
		if count[line]++; count[line] == 1 {
			lines = append(lines, line)
		}
	}
	for i, line := range lines {
		lines[i] = fmt.Sprintf("%d x %s", count[line], line)
	}
	return lines
}
