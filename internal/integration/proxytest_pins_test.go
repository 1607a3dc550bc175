package integration

// RequireNoPins and strict mode against a real PostgreSQL: who sent what.

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/aurorapgx/aurorapgx/internal/integration/hiddenset"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

// recorder is a test that notes its failures instead of failing.
type recorder struct {
	testing.TB

	mu       sync.Mutex
	failures []string
	cleanups []func()
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

// finish ends the recorded test and returns its failures.
func (r *recorder) finish() []string {
	for _, f := range slices.Backward(r.cleanups) {
		f()
	}
	return r.failures
}

// marked is file:line of the line of a source file that holds the mark.
func marked(t *testing.T, file, mark string) string {
	t.Helper()
	dir, err := os.Getwd() // the package's, in a test
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, file)
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(string(source), "\n") {
		if strings.Contains(line, mark) && !strings.Contains(line, "marked(") {
			return fmt.Sprintf("%s:%d", path, i+1)
		}
	}
	t.Fatalf("no %q in %s", mark, path)
	return ""
}

// TestHiddenSet runs a small program, with a pool that knows nothing of the test, and with one whose
// dialer tells who wrote. Nothing else runs at the time, or the former could not name one line for sure.
func TestHiddenSet(t *testing.T) { //nolint:paralleltest // see above
	for _, exact := range []bool{false, true} {
		t.Run(fmt.Sprintf("exact=%t", exact), func(t *testing.T) {
			px, url, _ := startProxy(t)
			opts := []proxy.Option{signedBy(px)}
			if exact {
				opts = append(opts, proxy.WithDialer(px.DialContext))
			}
			hiddenSet(t, px, newPool(t, url, opts...), exact)
		})
	}
}

func hiddenSet(t *testing.T, px *proxytest.Proxy, pool *pgxpool.Pool, exact bool) {
	t.Helper()
	tb := &recorder{TB: t}
	proxytest.RequireNoPins(tb, px)
	store, err := hiddenset.New(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := store.Add(t.Context(), "tea"); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := store.Count(t.Context(), "tea"); err != nil || n != 3 {
		t.Fatal(n, err)
	}
	failures := tb.finish()
	if len(failures) != 1 {
		t.Fatalf("%d failures: %q", len(failures), failures)
	}
	t.Log(failures[0])
	for _, want := range []string{
		marked(t, "hiddenset/store.go", "the hidden SET"), "set statement_timeout = $1", "hiddenset.patience",
		"changed session settings", "initialization query",
	} {
		if !strings.Contains(failures[0], want) {
			t.Errorf("no %q in:\n%s", want, failures[0])
		}
	}
	if strings.Contains(failures[0], "makes sure") == exact {
		t.Errorf("sure: %t", exact)
	}
}

// pinSites are statements that pin, each sent from a line of its own in a way of its own.
var pinSites = []struct {
	digest string
	send   func(context.Context, *pgxpool.Pool) error
}{
	{"set work_mem = $1", func(ctx context.Context, pool *pgxpool.Pool) error {
		_, err := pool.Exec(ctx, "set work_mem = '8MB'") // site 0
		return err
	}},
	{"select set_config($2, $1, $3)", func(ctx context.Context, pool *pgxpool.Pool) error {
		rows, err := pool.Query(ctx, "select set_config('work_mem', $1, false)", "8MB") // site 1
		if err == nil {
			rows.Close()
		}
		return err
	}},
	{"select set_config($1, $2 , $3)", func(ctx context.Context, pool *pgxpool.Pool) error {
		_, err := pool.Exec(ctx, "select set_config('work_mem', $1, true)", pgx.QueryExecModeSimpleProtocol, "8MB") // site 2
		return err
	}},
	{"create temp table if not exists t (i int)", func(ctx context.Context, pool *pgxpool.Pool) error {
		var b pgx.Batch
		b.Queue("select 1")
		b.Queue("create temp table if not exists t (i int)")
		return pool.SendBatch(ctx, &b).Close() // site 3
	}},
	{"listen a", func(ctx context.Context, pool *pgxpool.Pool) error {
		return pool.AcquireFunc(ctx, func(c *pgxpool.Conn) error {
			if _, err := c.Conn().Prepare(ctx, "l", "listen a"); err != nil {
				return err
			}
			_, err := c.Exec(ctx, "l") // site 4
			return err
		})
	}},
	{"reset work_mem", func(ctx context.Context, pool *pgxpool.Pool) error {
		db := proxy.OpenDBFromPool(pool)
		defer db.Close()
		_, err := db.ExecContext(ctx, "reset work_mem") // site 5
		return err
	}},
	{"select pg_advisory_lock($1)", func(ctx context.Context, pool *pgxpool.Pool) error {
		db := stdlib.OpenDBFromPool(pool)
		defer db.Close()
		var void string
		return db.QueryRowContext(ctx, "select pg_advisory_lock($1)", 1).Scan(&void) // site 6
	}},
	{"declare c cursor for select $1", func(ctx context.Context, pool *pgxpool.Pool) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "declare c cursor for select 1") // site 7
			return err
		})
	}},
}

// TestCallersAreExact has all of them sent at the same time, many times over.
func TestCallersAreExact(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"Trace", "DialContext"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			exactCallers(t, way)
		})
	}
}

func exactCallers(t *testing.T, way string) {
	t.Helper()
	px, url, _ := startProxy(t, proxytest.WithMaxConnections(16))
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	if way == "Trace" {
		px.Trace(cfg.ConnConfig)
	} else {
		cfg.ConnConfig.DialFunc = px.DialContext
	}
	if err := proxy.Configure(cfg, signedBy(px), proxy.WithMaxConns(8)); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	want := map[string]string{}
	var wg sync.WaitGroup
	for i, site := range pinSites {
		want[site.digest] = marked(t, "proxytest_pins_test.go", fmt.Sprintf("// site %d", i))
		wg.Go(func() {
			for range 20 {
				if err := site.send(t.Context(), pool); err != nil {
					t.Errorf("site %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	tb := &recorder{TB: t}
	proxytest.RequireNoPins(tb, px)
	got := tb.finish()
	if len(got) != len(pinSites) {
		t.Errorf("%d messages for %d places", len(got), len(pinSites))
	}
	for digest, place := range want {
		if !slices.ContainsFunc(got, func(m string) bool {
			return strings.Contains(m, "statement: "+digest+"\n") && strings.Contains(m, "pin the session: "+place+"\n")
		}) {
			t.Errorf("%s does not come from %s in:\n%s", digest, place, strings.Join(got, "\n"))
		}
	}
}

// TestCallersWithoutTrace finds callers by comment, by application_name, and by goroutine. Nothing else
// runs at the time, see TestHiddenSet.
func TestCallersWithoutTrace(t *testing.T) { //nolint:paralleltest // see above
	px, url, _ := startProxy(t)
	pool := newPool(t, url+"&application_name=billing", signedBy(px))
	exec(t, pool, "set work_mem = '8MB' /*controller='orders',action='show',file='app%2Forders.py',line='12'*/")
	exec(t, pool, "-- name: SetTimeout :exec\nset statement_timeout = 0") // by goroutine
	for _, site := range []int{0, 5} {
		if err := pinSites[site].send(t.Context(), pool); err != nil {
			t.Fatal(err)
		}
	}
	tb := &recorder{TB: t}
	proxytest.RequireNoPins(tb, px)
	got := tb.finish()
	for i, want := range [][]string{
		{"pin the session: app/orders.py:12", "controller=orders action=show", `application_name "billing"`},
		{"integration.exec from " + marked(t, "proxytest_pins_test.go", "// by goroutine"), "name=SetTimeout :exec"},
		{"pin the session: " + marked(t, "proxytest_pins_test.go", "// site 0"), "Proxy.Trace"},
		{"pin the session: " + marked(t, "proxytest_pins_test.go", "// site 5")},
	} {
		for _, w := range want {
			if i >= len(got) || !strings.Contains(got[i], w) {
				t.Errorf("no %q in message %d of %s", w, i, strings.Join(got, "\n"))
			}
		}
	}
}

// TestStrictSessions leaves session state behind in ways that RDS Proxy does not see.
func TestStrictSessions(t *testing.T) {
	t.Parallel()
	px, url, _ := startProxy(t, proxytest.WithStrictSessions(), proxytest.WithMaxConnections(1),
		proxytest.WithInitQuery("set work_mem = '6MB'; set lock_timeout = '1s'"))
	pool := newPool(t, url, signedBy(px), proxy.WithMaxConns(1))
	exec(t, pool, `create function tenant() returns void language plpgsql as $$ begin
		perform set_config('app.tenant', '7', false); create temp table if not exists cart (i int); perform pg_advisory_lock(7); end $$`)
	exec(t, pool, "select 1")
	if leaks := px.Leaks(); len(leaks) != 0 {
		t.Fatalf("leaks of nothing: %+v", leaks)
	}
	exec(t, pool, "select tenant() /*file='tenant.go',line='3'*/")
	exec(t, pool, "select tenant()") // nothing new
	exec(t, pool, "do $$ begin execute 'listen inside'; execute 'prepare p as select 1'; perform set_config('work_mem', '7MB', false); end $$")
	exec(t, pool, "begin; savepoint s; set local work_mem = '5MB'; commit") // nothing left
	var got []string
	for _, leak := range px.Leaks() {
		got = append(got, leak.Kind+" "+leak.Name+" "+leak.Digests[len(leak.Digests)-1][:5])
	}
	want := []string{
		"advisory lock 0, 7, ExclusiveLock selec", "setting app.tenant selec", "temporary object cart selec",
		"channel inside do $1", "prepared statement p do $1", "setting work_mem do $1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("leaks\n%q, want\n%q", got, want)
	}
	if n := px.Stats().PinnedSessions; n != 0 {
		t.Errorf("%d pins", n)
	}
	tb := &recorder{TB: t}
	proxytest.RequireNoPins(tb, px)
	if failures := tb.finish(); len(failures) != len(want) || !strings.Contains(failures[0], "tenant.go:3") {
		t.Errorf("%q", failures)
	}
}

// TestStrictSessionsOfARole asks for settings that its role and its database have: nobody left them.
func TestStrictSessionsOfARole(t *testing.T) {
	t.Parallel()
	dsn := database(t, shared)
	admin(t, shared, "alter database "+name(t, dsn)+" set app.region = 'eu'")
	admin(t, shared, "alter role "+appUser+" in database "+name(t, dsn)+" set app.shop = 'books = all'")
	px := proxytest.NewProxy(t, dsn, proxytest.WithStrictSessions(), proxytest.WithMaxConnections(1))
	pool := newPool(t, px.URL(appUser, name(t, dsn)), signedBy(px), proxy.WithMaxConns(1))
	var got string
	err := pool.QueryRow(t.Context(), "select current_setting('app.region') || ' ' || current_setting('app.shop')").Scan(&got)
	if err != nil || got != "eu books = all" {
		t.Errorf("%q, %v", got, err)
	}
	if leaks := px.Leaks(); len(leaks) != 0 {
		t.Errorf("leaks of nothing: %+v", leaks)
	}
	exec(t, pool, "do $$ begin perform set_config('app.region', 'us', false); end $$")
	if leaks := px.Leaks(); len(leaks) != 1 || leaks[0].Name != "app.region" {
		t.Errorf("%+v", leaks)
	}
}

// TestStrictSessionsUnderLoad inspects between transactions that come as fast as they can. Nobody waits
// for ever, nobody sees a stranger's answer, and what leaks once is reported once.
func TestStrictSessionsUnderLoad(t *testing.T) {
	t.Parallel()
	px, url, _ := startProxy(t, proxytest.WithStrictSessions(), proxytest.WithMaxConnections(3))
	pool := newPool(t, url, signedBy(px), proxy.WithMaxConns(8), proxy.WithExecMode(pgx.QueryExecModeCacheStatement))
	var wg sync.WaitGroup
	for worker := range 16 {
		wg.Go(func() {
			for i := range 50 {
				want := worker*1000 + i
				var got, inTx int
				if err := pool.QueryRow(t.Context(), "select $1::int", want).Scan(&got); err != nil || got != want {
					t.Errorf("%d, %v: want %d", got, err, want)
				}
				err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
					if _, err := tx.Exec(t.Context(), "set local work_mem = '5MB'"); err != nil {
						return err
					}
					return tx.QueryRow(t.Context(), "select $1::int", want+1).Scan(&inTx)
				})
				if err != nil || inTx != want+1 {
					t.Errorf("%d, %v: want %d", inTx, err, want+1)
				}
			}
		})
	}
	wg.Wait()
	exec(t, pool, "do $$ begin perform set_config('app.who', 'me', false); end $$")
	if leaks := px.Leaks(); len(leaks) != 1 || leaks[0].Name != "app.who" || px.Stats().SessionLeaks != 1 {
		t.Errorf("%+v", leaks)
	}
	if st := px.Stats(); st.PinnedSessions != 0 || st.DatabaseConnectionsCurrentlyBorrowed != 0 {
		t.Errorf("%+v", st)
	}
}

// BenchmarkStrictSessions is what a transaction costs with and without.
func BenchmarkStrictSessions(b *testing.B) {
	for _, strict := range []bool{false, true} {
		b.Run(fmt.Sprintf("strict=%t", strict), func(b *testing.B) {
			var opts []proxytest.Option
			if strict {
				opts = append(opts, proxytest.WithStrictSessions())
			}
			px, url, _ := startProxy(b, append(opts, proxytest.WithMaxConnections(1))...)
			pool := newPool(b, url, signedBy(px), proxy.WithMaxConns(1))
			for b.Loop() {
				exec(b, pool, "select 1")
			}
		})
	}
}
