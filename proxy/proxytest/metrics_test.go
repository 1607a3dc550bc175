package proxytest

import (
	"reflect"
	"testing"
	"time"
)

// TestMetrics reads each figure back from the field of Stats that has its name.
func TestMetrics(t *testing.T) {
	t.Parallel()
	var s Stats
	v := reflect.ValueOf(&s).Elem()
	for i := range v.NumField() {
		v.Field(i).SetInt(int64(1000 + i))
	}
	s.DatabaseConnectionsBorrowRequests, s.DatabaseConnectionsBorrowRequestsAborted, s.DatabaseConnectionsBorrowTimeouts = 10, 2, 4
	s.DatabaseConnectionsBorrowLatency = 8 * time.Millisecond
	for _, m := range s.Metrics() {
		want := 2000.0 // µs: 8 ms over 10 - 2 - 4 borrows
		if m.Unit == Count {
			want = float64(v.FieldByName(m.Name).Int())
		}
		if m.Value != want {
			t.Errorf("%+v: want %v", m, want)
		}
	}
	if got := (Stats{}).Metrics(); len(got) != 15 {
		t.Errorf("%d metrics", len(got))
	}
}
