package integration

import (
	"context"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/rds/auth"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/internal/pgtest"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

// plainPool is what people write by hand: pgxpool with its own settings and a token
// from BeforeConnect.
func plainPool(tb testing.TB, px *proxytest.Proxy, url string, maxConns int32) *pgxpool.Pool {
	tb.Helper()
	withoutHostaddr, _, _ := strings.Cut(url, "?") // pgx does not know hostaddr
	cfg, err := pgxpool.ParseConfig(withoutHostaddr + "?sslmode=verify-full&sslrootcert=" + px.CAFile())
	if err != nil {
		tb.Fatal(err)
	}
	cfg.MaxConns = maxConns
	cfg.ConnConfig.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
	key := credentials.StaticCredentialsProvider{Value: px.Credentials()}
	cfg.BeforeConnect = func(ctx context.Context, cc *pgx.ConnConfig) (err error) {
		_, port, _ := net.SplitHostPort(px.Addr())
		cc.Password, err = auth.BuildAuthToken(ctx, net.JoinHostPort(px.Host(), port), px.Region(), cc.User, key)
		return err
	}
	pool, err := pgxpool.NewWithConfig(tb.Context(), cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(pool.Close)
	return pool
}

// sockets opens all of a pool's connections and returns the client's end of each.
func sockets(tb testing.TB, pool *pgxpool.Pool) map[string]bool {
	tb.Helper()
	found := map[string]bool{}
	var conns []*pgxpool.Conn
	for range pool.Config().MaxConns {
		conn, err := pool.Acquire(tb.Context())
		if err != nil {
			tb.Fatal(err)
		}
		conns = append(conns, conn)
		found[conn.Conn().PgConn().Conn().LocalAddr().String()] = true
	}
	for _, conn := range conns {
		conn.Release()
	}
	return found
}

// pair is a primary with a streaming standby, and a database on it that belongs to the
// application.
func pair(tb testing.TB) (primary, standby *pgtest.Server, dsn string) {
	tb.Helper()
	primary = pgtest.Run(tb, pgtest.WithSetting("wal_level", "replica")) // with a setting, and so not the server of PGTEST_DSN
	if err := createRole(tb.Context(), primary); err != nil {
		tb.Fatal(err)
	}
	dsn = database(tb, primary)
	standby, err := primary.Standby(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := standby.Close(); err != nil {
			tb.Error(err)
		}
	})
	return primary, standby, dsn
}

// on is dsn on another server.
func on(dsn string, s *pgtest.Server) string {
	head, tail, _ := strings.Cut(dsn, "@")
	_, path, _ := strings.Cut(tail, "/")
	_, hostAndPath, _ := strings.Cut(s.DSN(), "@")
	host, _, _ := strings.Cut(hostAndPath, "/")
	return head + "@" + host + "/" + path
}

// A real promotion behind the proxy: the idle connections stay what they are, only
// statements in flight fail, and statements that come during the outage wait and
// succeed. The same for plain pgxpool is printed beside it.
func TestFailoverThroughTheProxy(t *testing.T) {
	t.Parallel()
	const size = 5
	primary, standby, dsn := pair(t)
	px := proxytest.NewProxy(t, dsn, proxytest.WithMaxConnections(8))
	url := px.URL(appUser, name(t, dsn))
	clients := map[string]*pgxpool.Pool{
		"aurorapgx": newPool(t, url, signedBy(px), proxy.WithMaxConns(size)),
		"pgxpool":   plainPool(t, px, url, size),
	}
	exec(t, clients["aurorapgx"], "create table note (id int generated always as identity, text text)")
	before := map[string]map[string]bool{}
	for client, pool := range clients {
		before[client] = sockets(t, pool)
	}

	type result struct{ inFlight, waiting error }
	results := map[string]*result{}
	var wg sync.WaitGroup
	for client, pool := range clients {
		r := &result{}
		results[client] = r
		wg.Go(func() { _, r.inFlight = pool.Exec(t.Context(), "select pg_sleep(60)") })
	}
	waitFor(t, "both statements to be in flight", func() bool { return px.Stats().DatabaseConnectionsCurrentlyBorrowed == 2 })
	time.Sleep(1100 * time.Millisecond) // idle for longer than pgxpool's threshold for a ping

	px.StartFailover()
	if err := primary.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	for client, pool := range clients {
		wg.Go(func() {
			_, results[client].waiting = pool.Exec(t.Context(), "insert into note (text) values ($1)", client)
		})
	}
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := px.FinishFailover(on(dsn, standby)); err != nil {
		t.Fatal(err)
	}
	resumed := time.Now()
	wg.Wait()
	served := time.Since(resumed)

	for client, pool := range clients {
		after := sockets(t, pool)
		kept := maps.Clone(before[client])
		maps.DeleteFunc(kept, func(socket string, _ bool) bool { return !after[socket] })
		t.Logf("%-9s %d of %d connections kept; in flight: %v; during the outage: %v", client, len(kept), size, results[client].inFlight, results[client].waiting)
		if client != "aurorapgx" {
			continue
		}
		if len(kept) != size-1 {
			t.Errorf("%d connections survived, want all %d but the one in flight", len(kept), size-1)
		}
		if results[client].inFlight == nil || results[client].waiting != nil {
			t.Errorf("in flight: %v; waiting: %v", results[client].inFlight, results[client].waiting)
		}
	}
	t.Logf("the waiting statements were served %s after the proxy had its new backend", served.Round(time.Millisecond))
	exec(t, clients["aurorapgx"], "insert into note (text) values ('afterwards')")
}
