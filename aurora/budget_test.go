package aurora

import (
	"fmt"
	"strings"
	"testing"
)

// The figures of AWS's table, the cap, and what lies between.
func TestMaxConnections(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		min, max   float64
		want       int
		documented bool
	}{
		{1, 1, 189, true}, {1, 4, 823, true}, {1, 8, 1669, true}, {1, 16, 3360, true}, {1, 32, 5000, true}, {1, 33, 5000, true}, {8, 256, 5000, true},
		{0.5, 1, 189, true}, {0.5, 8, 1669, true}, {0, 2, 400, false},
		{0.5, 16, 2000, true}, {0, 256, 2000, true}, {0.5, 9.5, 1986, false}, {0.5, 10, 2000, false},
		{1, 1.5, 294, false}, {1, 2, 400, false}, {1, 6, 1246, false}, {1, 24, 4180, false}, {1, 31.5, 4948, false},
	} {
		got, documented := MaxConnections(Capacity{Min: tt.min, Max: tt.max})
		if got != tt.want || documented != tt.documented {
			t.Errorf("%g to %g ACU: %d, documented %v; want %d, %v", tt.min, tt.max, got, documented, tt.want, tt.documented)
		}
	}
	last := 0
	for acu := 1.0; acu <= 256; acu += 0.5 {
		n, _ := MaxConnections(Capacity{Min: 1, Max: acu})
		if n < last || n > 5000 {
			t.Fatalf("%g ACU: %d after %d", acu, n, last)
		}
		last = n
	}
}

func TestConnectionBudget(t *testing.T) {
	t.Parallel()
	growth := Spec{Capacity: Capacity{Min: 2, Max: 16}, Readers: []Reader{{}, {}}} // 3,360 each, 90 % of which is 3,024
	for _, tt := range []struct {
		name    string
		spec    Spec
		clients []Client
		want    string // connections/usable/demand of writer and readers, MaxConns of clients
	}{
		{"nobody", growth, nil, "3024/2326/0 6048/4652/0 []"},
		{"one", growth, []Client{{"api", 20, 0, false}}, "3024/2326/2320 6048/4652/0 [116]"},
		{"two sides", growth, []Client{{"api", 10, 0, false}, {"report", 3, 4, true}}, "3024/2326/2320 6048/4652/12 [232 4]"},
		{"the rest", growth, []Client{{"api", 10, 20, false}, {"job", 4, 0, false}, {"fn", 100, 0, false}}, "3024/2326/2280 6048/4652/0 [20 20 20]"},
		{"a function with many environments", growth, []Client{{"fn", 3000, 0, false}}, "3024/2326/3000 tight 6048/4652/0 [1]"},
		{"too many", growth, []Client{{"fn", 4000, 0, false}}, "3024/2326/4000 over 6048/4652/0 [1]"},
		{"too large pools", growth, []Client{{"api", 100, 40, false}}, "3024/2326/4000 over 6048/4652/0 [40]"},
		{"capped", Spec{}, []Client{{"api", 10, 0, false}}, "1800/1384/1380 1800/1384/0 [138]"},
		{"no proxy", Spec{Capacity: Capacity{Min: 0.5, Max: 2}, WriterOnly: true, Proxy: Proxy{Off: true}}, []Client{{"dev", 2, 0, false}}, "360/276/276 0/0/0 [138]"},
	} {
		b, err := ConnectionBudget(tt.spec, tt.clients...)
		if err != nil {
			t.Error(err)
			continue
		}
		got := ""
		for _, s := range []Supply{b.Writer, b.Readers} {
			got += fmt.Sprintf("%d/%d/%d ", s.Connections, s.Usable, s.Demand)
			switch {
			case s.Oversubscribed && s.Tight:
				got += "over "
			case s.Tight:
				got += "tight "
			}
		}
		conns := []int{}
		for _, c := range b.Clients {
			conns = append(conns, c.MaxConns)
		}
		if got += fmt.Sprint(conns); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestConnectionBudgetRefuses(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]Client{
		`client "api" has 0 tasks`:                                {"api", 0, 1, false},
		`client "api" has MaxConns -1`:                            {"api", 1, -1, false},
		`client "api" connects to readers, and the spec has none`: {"api", 1, 1, true},
	} {
		if _, err := ConnectionBudget(Spec{WriterOnly: true}, c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
