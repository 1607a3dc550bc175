package secrets

import (
	"context"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
)

// counting hands out one secret and counts.
type counting struct{ calls int }

func (c *counting) GetSecretValue(context.Context, *secretsmanager.GetSecretValueInput, ...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error) {
	c.calls++
	text := `{"username":"app","password":"correct-horse"}`
	return &secretsmanager.GetSecretValueOutput{SecretString: &text}, nil
}

// A Lambda environment that was frozen: the wall clock has gone on, the monotonic clock
// has not, and by that one a time.Time compares.
func TestAFreezeEndsTheCachedValue(t *testing.T) {
	t.Parallel()
	client := &counting{}
	m := FromManager(client, "prod/orders")
	var jump time.Duration
	begin := time.Now()
	m.now = func() time.Time { return wallClockSet(t, begin, jump) }
	ask := func(want int) {
		t.Helper()
		if _, err := m.Credentials(t.Context()); err != nil {
			t.Fatal(err)
		}
		if client.calls != want {
			t.Errorf("after %s: %d requests, want %d", jump, client.calls, want)
		}
	}
	ask(1)
	ask(1)
	jump = 3 * time.Hour
	ask(2)
	ask(2)
	jump = 0 // set back by hand, by hours
	ask(3)
	jump = -30 * time.Second // corrected by NTP
	ask(3)
}

// wallClockSet is t with another reading of the wall clock and the same of the
// monotonic one, which package time has no way to make: a Time with both keeps the
// seconds of the first above its 30 bits of nanoseconds.
func wallClockSet(tb testing.TB, t time.Time, by time.Duration) time.Time {
	tb.Helper()
	moved := t
	*(*uint64)(unsafe.Pointer(&moved)) += uint64(int64(by/time.Second)) << 30
	if moved.Sub(t) != 0 || moved.Round(0).Sub(t.Round(0)) != by {
		tb.Fatalf("the clocks moved by %s and %s, and not by 0s and %s", moved.Sub(t), moved.Round(0).Sub(t.Round(0)), by)
	}
	return moved
}

// BenchmarkHit is the cost of credentials that are in the cache, beside what a plain map
// with a mutex would cost.
func BenchmarkHit(b *testing.B) {
	ctx := context.Background()
	b.Run("manager", func(b *testing.B) {
		m := FromManager(&counting{}, "prod/orders")
		b.ReportAllocs()
		for b.Loop() {
			if _, err := m.Credentials(ctx); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("clock-alone", func(b *testing.B) { // which the wall clock's reading costs anybody
		var n int64
		for b.Loop() {
			n += time.Now().UnixNano()
		}
		_ = n
	})
	b.Run("map-and-mutex", func(b *testing.B) {
		type entry struct {
			c     Credentials
			until time.Time
		}
		var mu sync.Mutex
		cache := map[string]entry{"prod/orders": {Credentials{"app", "correct-horse"}, time.Now().Add(time.Hour)}}
		b.ReportAllocs()
		for b.Loop() {
			mu.Lock()
			e := cache["prod/orders"]
			mu.Unlock()
			if time.Now().After(e.until) {
				b.Fatal(e.c)
			}
		}
	})
	b.Run("manager-parallel", func(b *testing.B) {
		m := FromManager(&counting{}, "prod/orders")
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := m.Credentials(ctx); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
}
