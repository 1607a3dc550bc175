package page

import "testing"

func TestShape(t *testing.T) {
	t.Parallel()
	for _, pair := range [][2]string{
		{"took 12.5ms\n", "took   7µs"},
		{"1m30.5s of 3", "2s of 10"},
		{"-0.4 ms", "12 ms"},
	} {
		if shape(pair[0]) != shape(pair[1]) {
			t.Errorf("%q and %q differ: %q, %q", pair[0], pair[1], shape(pair[0]), shape(pair[1]))
		}
	}
	if shape("0 failed") == shape("0 passed") {
		t.Error("words count")
	}
}
