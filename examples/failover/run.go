package main

// One run: the clients work, the fault happens, and it is noted when each of them commits
// again.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	workFor    = 700 * time.Millisecond // before the fault
	afterwards = time.Second            // when all are back
	patience   = 15 * time.Second       // until all are back, beside the lag
	thinkTime  = 20 * time.Millisecond  // between a worker's transactions
)

// result is what became of one fault, over all runs.
type result struct {
	fault fault
	lag   time.Duration
	runs  []*oneRun
}

// oneRun is one run. Times are since the fault.
type oneRun struct {
	accepts, dns, ended time.Duration
	tracks              []*track
}

func (r *oneRun) brief() string {
	var parts []string
	for _, t := range r.tracks {
		parts = append(parts, fmt.Sprintf("%s %s (%d)", t.client, r.firstCommit(t), len(t.errors)))
	}
	return strings.Join(parts, " · ")
}

// track is what one client noticed. Times are since the fault.
type track struct {
	client  string
	commits []time.Duration
	errors  []time.Duration // attempts that failed
	causes  map[string]int
	failed  int // transactions given up
	back    time.Duration
	doubled int // rows that are there twice
	missing int // transactions that were acknowledged and are not there

	mu     sync.Mutex
	acked  []int64
	newest []time.Duration // of each worker
}

func (t *track) wrong() int { return t.doubled + t.missing }

// wait is how long somebody waited: until it was over or, if open, until nobody watched any more.
type wait struct {
	length time.Duration
	open   bool
}

func (w wait) String() string {
	if w.open {
		return "> " + shown(w.length)
	}
	return shown(w.length)
}

func compareWaits(a, b wait) int { return cmp.Compare(a.length, b.length) }

// firstCommit is how long after writes were accepted a client's first commit came.
func (r *oneRun) firstCommit(t *track) wait {
	for _, at := range t.commits {
		if at >= r.accepts {
			return wait{length: at - r.accepts}
		}
	}
	return wait{length: r.ended - r.accepts, open: true}
}

// once goes through a fault.
func (b *bench) once(ctx context.Context, f fault) (*oneRun, error) {
	b.cluster.SettleDNS()
	b.cluster.SetDNSLag(f.lagOf(b.settings))
	open := b.directClients
	if f.proxied {
		open = b.proxiedClients
		if err := b.proxy.FinishFailover(b.cluster.AppDSN(b.cluster.Writer())); err != nil {
			return nil, err
		}
	}
	if err := b.clear(ctx); err != nil {
		return nil, err
	}
	clients, err := open(ctx)
	if err != nil {
		return nil, err
	}
	defer closeAll(clients)
	w := startWork(ctx, clients, b.settings.workers)
	defer w.abandon()
	if err := w.everybodyWorks(ctx); err != nil {
		return nil, err
	}
	if err := sleep(ctx, workFor); err != nil {
		return nil, err
	}
	fault := time.Now()
	accepts, err := f.do(ctx, b)
	if err != nil {
		return nil, err
	}
	dns := accepts.Add(f.lagOf(b.settings))
	w.awaitAll(ctx, accepts, f.lagOf(b.settings)+patience)
	if err := sleep(ctx, afterwards); err != nil {
		return nil, err
	}
	ended := time.Since(fault)
	w.finish()
	one := &oneRun{accepts: accepts.Sub(fault), dns: dns.Sub(fault), ended: ended, tracks: w.since(fault, accepts, ended)}
	if err := b.audit(ctx, one.tracks); err != nil {
		return nil, err
	}
	if b.settings.verbose {
		for _, t := range one.tracks {
			for cause, n := range t.causes {
				b.say("  %-26s %4d × %s", t.client, n, cause)
			}
		}
	}
	b.cluster.SetDNSLag(0)
	return one, f.undo(ctx, b)
}

// admin runs something at the writer, past everything.
func (b *bench) admin(ctx context.Context, do func(conn *pgx.Conn) error) (err error) {
	conn, err := pgx.Connect(ctx, b.cluster.AdminDSN())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	return do(conn)
}

func (b *bench) clear(ctx context.Context) error {
	return b.admin(ctx, func(conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "truncate work")
		return err
	})
}

// audit holds what the clients were told against what is there.
func (b *bench) audit(ctx context.Context, tracks []*track) error {
	return b.admin(ctx, func(conn *pgx.Conn) error {
		for i, t := range tracks {
			rows, _ := conn.Query(ctx, "select id, count(*) from work where client = $1 group by id", i)
			there := map[int64]int{}
			var id int64
			var n int
			if _, err := pgx.ForEachRow(rows, []any{&id, &n}, func() error {
				there[id] = n
				t.doubled += n - 1
				return nil
			}); err != nil {
				return err
			}
			for _, id := range t.acked {
				if there[id] == 0 {
					t.missing++
				}
			}
		}
		return nil
	})
}

// work is all clients' workers.
type work struct {
	ctx     context.Context
	cancel  context.CancelFunc
	stop    chan struct{}
	start   time.Time
	tracks  []*track
	workers int
	wg      sync.WaitGroup
}

func startWork(ctx context.Context, clients []*client, workers int) *work {
	w := &work{stop: make(chan struct{}), start: time.Now(), workers: workers}
	w.ctx, w.cancel = context.WithCancel(ctx)
	for number, c := range clients {
		t := &track{client: c.name, causes: map[string]int{}, newest: make([]time.Duration, workers)}
		w.tracks = append(w.tracks, t)
		for worker := range workers {
			w.wg.Go(func() { w.run(c, number, worker, t) })
		}
	}
	return w
}

func (w *work) run(c *client, number, worker int, t *track) {
	for id := int64(worker); ; id += int64(w.workers) {
		select {
		case <-w.stop:
			return
		case <-w.ctx.Done():
			return
		default:
		}
		err := c.perform(w.ctx, unit{number, id}, func(err error) { t.failure(time.Since(w.start), err) })
		switch {
		case err == nil:
			t.commit(time.Since(w.start), id, worker)
		case w.ctx.Err() == nil:
			t.gaveUp(err)
		}
		_ = sleep(w.ctx, thinkTime)
	}
}

func (t *track) commit(at time.Duration, id int64, worker int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.commits = append(t.commits, at)
	t.acked = append(t.acked, id)
	t.newest[worker] = at
}

func (t *track) failure(at time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.errors = append(t.errors, at)
	t.causes[brief(err)]++
}

func (t *track) gaveUp(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed++
	t.causes["given up: "+brief(err)]++
}

var addresses = regexp.MustCompile(`\d+\.\d+\.\d+\.\d+:\d+`)

func brief(err error) string {
	const most = 110
	text := addresses.ReplaceAllString(strings.Join(strings.Fields(err.Error()), " "), "ADDRESS")
	if len(text) > most {
		text = text[:most] + "..."
	}
	return text
}

// allSince reports whether every worker has committed since a moment.
func (t *track) allSince(moment time.Duration) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Min(t.newest) > moment
}

// everybodyWorks waits for the first commit of each worker.
func (w *work) everybodyWorks(ctx context.Context) error {
	const most = time.Minute
	if !w.awaitAll(ctx, w.start, most) {
		return fmt.Errorf("not all clients worked within %s: %w", most, context.Cause(ctx))
	}
	return nil
}

// awaitAll waits until every worker has committed since a moment, but no longer than limit.
func (w *work) awaitAll(ctx context.Context, moment time.Time, limit time.Duration) bool {
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); {
		if !slices.ContainsFunc(w.tracks, func(t *track) bool { return !t.allSince(moment.Sub(w.start)) }) {
			return true
		}
		if sleep(ctx, 10*time.Millisecond) != nil {
			return false
		}
	}
	return false
}

// finish lets the workers finish what they are at.
func (w *work) finish() {
	const grace = 10 * time.Second
	close(w.stop)
	timer := time.AfterFunc(grace, w.cancel)
	defer timer.Stop()
	w.wg.Wait()
}

// abandon ends the work at once, if it is not over.
func (w *work) abandon() {
	w.cancel()
	w.wg.Wait()
}

// since has the tracks' times count from the fault. What the workers finished later than ended is no
// part of the picture: some had nothing left to do by then.
func (w *work) since(fault, accepts time.Time, ended time.Duration) []*track {
	offset := fault.Sub(w.start)
	shift := func(times []time.Duration) []time.Duration {
		slices.Sort(times)
		for i := range times {
			times[i] -= offset
		}
		return slices.DeleteFunc(times, func(at time.Duration) bool { return at > ended })
	}
	for _, t := range w.tracks {
		t.commits, t.errors = shift(t.commits), shift(t.errors)
		t.back = t.lastFailure(accepts.Sub(fault))
	}
	return w.tracks
}

// lastFailure is the end of the trouble: how long after writes were accepted again the last
// attempt failed; 0 if none did.
func (t *track) lastFailure(accepts time.Duration) time.Duration {
	last := accepts
	for _, at := range t.errors {
		last = max(last, at)
	}
	return last - accepts
}
