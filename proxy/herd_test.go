package proxy_test

// 500 callers through an outage of 30 s, in virtual time: what a server sees of them, by our pool, by
// plain pgxpool with the loop that people write around it, and by retry.Do without a pool. HERD.md shows the
// plot: go test -run TestHerd ./proxy -update.

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
	"github.com/aurorapgx/aurorapgx/retry"
)

var update = flag.Bool("update", false, "write herd.svg anew")

const (
	herdSize   = 500
	herdConns  = 20
	herdOutage = 30 * time.Second
	herdLimit  = 4 // connects at a time, the default
)

// outage is a network whose server is gone for herdOutage, and that keeps the time of each dial.
type outage struct {
	*pipes

	began time.Time
	mu    sync.Mutex
	dials []time.Duration
	now   atomic.Int64 // dials under way
	most  atomic.Int64 // at a time
}

func (o *outage) over() bool { return time.Since(o.began) >= herdOutage }

func (o *outage) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	o.mu.Lock()
	o.dials = append(o.dials, time.Since(o.began))
	o.mu.Unlock()
	o.most.Store(max(o.most.Load(), o.now.Add(1)))
	defer o.now.Add(-1)
	time.Sleep(2 * time.Millisecond) // there and back
	if !o.over() {
		return nil, errors.New("connection refused")
	}
	return o.pipes.dial(ctx, network, addr)
}

// seen is what a herd looked like.
type seen struct {
	title  string
	dials  []time.Duration // since the outage began
	most   int64           // dials at a time
	served []time.Duration // since it ended, for each caller
}

// between counts dials.
func (s seen) between(from, to time.Duration) (n int) {
	for _, at := range s.dials {
		if from <= at && at < to {
			n++
		}
	}
	return n
}

// busiest is the most dials in any stretch of the given length, in whole steps of it.
func (s seen) busiest(step, from, to time.Duration) (most int) {
	for at := from; at < to; at += step {
		most = max(most, s.between(at, at+step))
	}
	return most
}

// herd has all callers ask at once, when the outage begins, and again until they are served.
func herd(t *testing.T, title string, open func(o *outage, px *proxytest.Proxy) (ask func(context.Context) error, done func())) seen {
	t.Helper()
	s := seen{title: title}
	synctest.Test(t, func(t *testing.T) {
		o := &outage{pipes: newPipes(), began: time.Now()}
		px := proxytest.NewProxy(t, "", proxytest.WithListener(o.pipes), proxytest.WithUser("app", password), proxytest.WithIAMUser("app"))
		ask, done := open(o, px)
		defer done()
		var (
			wg sync.WaitGroup
			mu sync.Mutex
		)
		for range herdSize {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 2*herdOutage)
				defer cancel()
				if err := ask(ctx); err != nil {
					t.Errorf("%s: not served: %v", title, err)
					return
				}
				mu.Lock()
				defer mu.Unlock()
				s.served = append(s.served, time.Since(o.began)-herdOutage)
			})
		}
		wg.Wait()
		s.dials, s.most = o.dials, o.most.Load()
	})
	return s
}

// use stands for a statement.
func use(ctx context.Context, pool *pgxpool.Pool) error {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	time.Sleep(5 * time.Millisecond)
	return nil
}

func ourHerd(t *testing.T) seen {
	t.Helper()
	return herd(t, "A pool of package proxy", func(o *outage, px *proxytest.Proxy) (func(context.Context) error, func()) {
		opts := append(o.options(t, px), proxy.WithDialer(o.dial), proxy.WithMaxConns(herdConns), proxy.WithConnectBudget(2*herdOutage))
		pool, err := proxy.NewPool(t.Context(), px.URL("app", "orders"), opts...)
		if err != nil {
			t.Fatal(err)
		}
		return func(ctx context.Context) error { return use(ctx, pool) }, pool.Close
	})
}

func plainHerd(t *testing.T) seen {
	t.Helper()
	return herd(t, "pgxpool, and each caller again after 100 ms", func(o *outage, _ *proxytest.Proxy) (func(context.Context) error, func()) {
		cfg, err := pgxpool.ParseConfig("postgres://app:x@127.0.0.1/orders?sslmode=disable")
		if err != nil {
			t.Fatal(err)
		}
		cfg.MaxConns = herdConns
		cfg.ConnConfig.DialFunc = o.dial
		pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return func(ctx context.Context) error {
			for !o.over() { // proxytest would refuse the login that follows
				_ = use(ctx, pool)
				time.Sleep(100 * time.Millisecond)
			}
			return nil
		}, pool.Close
	})
}

func bareHerd(t *testing.T) seen {
	t.Helper()
	return herd(t, "retry.Do with retry.Failover(), and no pool", func(o *outage, _ *proxytest.Proxy) (func(context.Context) error, func()) {
		ask := func(ctx context.Context) error {
			return retry.Do(ctx, retry.Failover(), func(context.Context) error {
				o.mu.Lock()
				o.dials = append(o.dials, time.Since(o.began))
				o.mu.Unlock()
				if !o.over() {
					return retry.Mark(errors.New("connection refused"), retry.NotExecuted)
				}
				return nil
			})
		}
		return ask, func() {}
	})
}

func TestHerd(t *testing.T) {
	t.Parallel()
	ours, bare := ourHerd(t), bareHerd(t)
	herds := []seen{ours, bare}
	if *update { // it makes 150,000 attempts, and proves nothing of ours
		herds = []seen{ours, plainHerd(t), bare}
	}
	for _, s := range herds {
		t.Logf("%s: %d dials in the outage, %d in its busiest second after the first, at most %d at a time; the last caller was served %s after it",
			s.title, s.between(0, herdOutage), s.busiest(time.Second, time.Second, herdOutage), s.most, latest(s.served).Round(time.Millisecond))
	}
	// Four start before the first fails; from then on one goes on, with a mean pause of an eighth of a second.
	if n := ours.between(0, herdOutage); n < 120 || n > 400 {
		t.Errorf("%d dials in the outage, want about 240", n)
	}
	if ours.most > herdLimit {
		t.Errorf("%d dials at a time", ours.most)
	}
	if n := ours.between(herdOutage, time.Hour); n > herdConns+1 {
		t.Errorf("%d dials for %d connections", n, herdConns)
	}
	if len(ours.served) != herdSize || latest(ours.served) > time.Second {
		t.Errorf("%d of %d callers were served, the last %s after the outage", len(ours.served), herdSize, latest(ours.served))
	}
	// Without a pool everybody tries, at most a second later. With pauses drawn from that second a fifth of
	// them is due within the first tenth.
	if n := bare.busiest(100*time.Millisecond, herdOutage, herdOutage+time.Second); n > 3*herdSize/10 {
		t.Errorf("%d of %d callers came back within a tenth of a second", n, herdSize)
	}
	if *update {
		if err := os.WriteFile("herd.svg", []byte(plot(herds...)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func latest(ds []time.Duration) (last time.Duration) {
	for _, d := range ds {
		last = max(last, d)
	}
	return last
}

// plot draws the herds below each other, each with a scale of its own.
func plot(herds ...seen) string {
	const (
		left, width, height, gap = 56, 640, 110, 64
		step                     = 250 * time.Millisecond
		shown                    = herdOutage + 5*time.Second
	)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="12">
<style>
  svg { --ink: #1f2328; --faint: #d0d7de; --bar: #0969da; --out: #ffebe9; background: #fff }
  @media (prefers-color-scheme: dark) { svg { --ink: #e6edf3; --faint: #30363d; --bar: #58a6ff; --out: #3d1a1d; background: #0d1117 } }
  text { fill: var(--ink) } .title { font-weight: 600; font-size: 13px } .axis { stroke: var(--faint) } .bar { fill: var(--bar) } .out { fill: var(--out) }
</style>
`, left+width+24, len(herds)*(height+gap)+8)
	x := func(at time.Duration) float64 { return left + width*float64(at)/float64(shown) }
	for i, s := range herds {
		top := float64(i*(height+gap) + 34)
		scale := float64(s.busiest(step, 0, shown)) * float64(time.Second/step)
		fmt.Fprintf(&b, `<text class="title" x="%d" y="%.0f">%s</text>`+"\n", left, top-14, s.title)
		fmt.Fprintf(&b, `<rect class="out" x="%d" y="%.0f" width="%.1f" height="%d"/>`+"\n", left, top, x(herdOutage)-left, height)
		fmt.Fprintf(&b, `<text x="%d" y="%.0f" text-anchor="end">%.0f/s</text><text x="%d" y="%.0f" text-anchor="end">0</text>`+"\n", left-6, top+10, scale, left-6, top+height)
		for at := time.Duration(0); at < shown; at += step {
			rate := float64(s.between(at, at+step)) * float64(time.Second/step)
			if h := height * rate / scale; h > 0 {
				fmt.Fprintf(&b, `<rect class="bar" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`+"\n", x(at), top+height-math.Max(h, 0.8), x(step)-left-0.6, math.Max(h, 0.8))
			}
		}
		fmt.Fprintf(&b, `<line class="axis" x1="%d" y1="%.0f" x2="%d" y2="%.0f"/>`+"\n", left, top+height, left+width, top+height)
		for at := time.Duration(0); at <= shown; at += 5 * time.Second {
			fmt.Fprintf(&b, `<text x="%.1f" y="%.0f" text-anchor="middle">%d s</text>`+"\n", x(at), top+height+16, int(at.Seconds()))
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}
