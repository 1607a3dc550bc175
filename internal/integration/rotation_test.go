package integration

// Rotation of secrets on a real PostgreSQL: workers go on while the password, or the user,
// changes under them.

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/observe"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
	"github.com/aurorapgx/aurorapgx/secrets"
	"github.com/aurorapgx/aurorapgx/secrets/secretstest"
)

// rotations is how many rotations a test makes, and how long the longest holds its window
// open. AURORAPGX_ROTATIONS=100 is the long version, with windows of up to 5 s.
func rotations(tb testing.TB) (n int, window time.Duration) {
	tb.Helper()
	text := os.Getenv("AURORAPGX_ROTATIONS")
	if text == "" {
		return 10, time.Second
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		tb.Fatalf("AURORAPGX_ROTATIONS=%q is no number of rotations", text)
	}
	return n, 5 * time.Second
}

// rotating is a database whose role's credentials are in a secret.
type rotating struct {
	srv      *secretstest.Server
	id       string
	user     string
	database string
	adminDSN string // the superuser, in the same database
	dsn      string // the role, without its password
}

func newRotating(tb testing.TB) *rotating {
	tb.Helper()
	r := &rotating{srv: secretstest.NewServer(tb), id: "test/" + tb.Name()}
	dsn := database(tb, shared)
	r.database = name(tb, dsn)
	r.user = "rotating_" + strings.ToLower(r.database)
	admin(tb, shared, "create role "+pgx.Identifier{r.user}.Sanitize()+" login password 'first-Passw0rd'")
	tb.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), shared.DSN())
		if err != nil {
			tb.Error(err)
			return
		}
		defer conn.Close(context.Background())
		_, err = conn.Exec(context.Background(), "drop role if exists "+pgx.Identifier{r.user + "_clone"}.Sanitize()+", "+pgx.Identifier{r.user}.Sanitize())
		if err != nil {
			tb.Error(err)
		}
	})
	r.srv.Put(r.id, fmt.Sprintf(`{"username":%q,"password":"first-Passw0rd","engine":"postgres"}`, r.user))
	for _, one := range []struct {
		dsn  string
		user *url.Userinfo
		into *string
	}{{shared.DSN(), nil, &r.adminDSN}, {dsn, url.User(r.user), &r.dsn}} {
		u, err := url.Parse(one.dsn)
		if err != nil {
			tb.Fatal(err)
		}
		if one.user != nil {
			u.User = one.user
		}
		u.Path = "/" + r.database
		*one.into = u.String()
	}
	return r
}

// shortLived is a connection string whose connections live for a second.
func shortLived(dsn string) string {
	return dsn + "&pool_max_conn_lifetime=1s&pool_max_conn_lifetime_jitter=0s"
}

// counted counts the logins that the server refused.
type counted struct{ logins atomic.Int64 }

func (c *counted) option() proxy.Option { return proxy.WithObserver(c) }

func (c *counted) refused() int64 { return c.logins.Load() }

// Start and Observe make it an observer.
func (c *counted) Start(ctx context.Context, _ observe.Operation) context.Context { return ctx }
func (c *counted) Observe(_ context.Context, e observe.Event) {
	if a, ok := e.(observe.ConnectAttempt); ok && errors.Is(a.Cause, proxy.ErrCredentialsRejected) {
		c.logins.Add(1)
	}
}

// load is 32 workers that use a pool until they are told to stop.
type load struct {
	wg               sync.WaitGroup
	stop             chan struct{}
	requests, failed atomic.Int64
	slowest          atomic.Int64
	served           [32]atomic.Int64 // for each worker, when the last request began that was answered
}

func startLoad(tb testing.TB, pool *pgxpool.Pool) *load {
	tb.Helper()
	l := &load{stop: make(chan struct{})}
	for worker := range l.served {
		l.wg.Go(func() {
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				start := time.Now()
				var n int
				err := pool.QueryRow(context.WithoutCancel(tb.Context()), "select $1::int from pg_sleep(0.05)", 42).Scan(&n)
				if took := int64(time.Since(start)); took > l.slowest.Load() {
					l.slowest.Store(took)
				}
				l.served[worker].Store(start.UnixNano())
				l.requests.Add(1)
				if err != nil && l.failed.Add(1) <= 3 {
					tb.Error(err)
				}
			}
		})
	}
	return l
}

func (l *load) finish() {
	close(l.stop)
	l.wg.Wait()
}

// servedSince reports whether every worker has had an answer to a request that began
// after at.
func (l *load) servedSince(at time.Time) bool {
	for i := range l.served {
		if l.served[i].Load() < at.UnixNano() {
			return false
		}
	}
	return true
}

// figures are what one rotation cost.
type figures struct {
	window         time.Duration
	took           time.Duration // until every worker was served again, on new connections
	asked, refused int64
}

// rotateUnderLoad makes the rotations and returns what each of them cost.
func rotateUnderLoad(t *testing.T, r *rotating, strategy secretstest.Strategy, count *counted, l *load) []figures {
	t.Helper()
	n, longest := rotations(t)
	var all []figures
	for i := range n {
		before, refused, begun := r.srv.Stats().GetSecretValue, count.refused(), time.Now()
		window := time.Duration(rand.Int64N(int64(longest)))
		if i == 0 {
			window = longest
		}
		if err := r.srv.Rotate(t.Context(), r.id, secretstest.Rotation{AdminDSN: r.adminDSN, Strategy: strategy, Window: window}); err != nil {
			t.Fatal(err)
		}
		// A second from now the connections of before have ended. What comes after that is served on new ones.
		over := time.Now().Add(1100 * time.Millisecond)
		for !l.servedSince(over) {
			time.Sleep(20 * time.Millisecond)
		}
		all = append(all, figures{window, time.Since(begun), int64(r.srv.Stats().GetSecretValue - before - 1), count.refused() - refused})
	}
	l.finish()
	reportRotations(t, l, all)
	return all
}

func reportRotations(t *testing.T, l *load, all []figures) {
	t.Helper()
	var asked, refused []int64
	var windows time.Duration
	for _, f := range all {
		asked, refused, windows = append(asked, f.asked), append(refused, f.refused), windows+f.window
	}
	slices.Sort(asked)
	slices.Sort(refused)
	t.Logf("%d rotations with windows of %s in the mean: %d requests, %d failed, the slowest took %s; per rotation, median and most: %d and %d reads of the secret, %d and %d refused logins",
		len(all), (windows / time.Duration(len(all))).Round(time.Millisecond), l.requests.Load(), l.failed.Load(), time.Duration(l.slowest.Load()).Round(time.Millisecond),
		asked[len(asked)/2], asked[len(asked)-1], refused[len(refused)/2], refused[len(refused)-1])
	if l.failed.Load() != 0 {
		t.Errorf("%d requests failed", l.failed.Load())
	}
	for _, f := range all {
		// One at once, one or two a second while it lasts; the TTL's.
		if most := 5 + 2*int64(f.took/time.Second+2); f.asked > most {
			t.Errorf("%d reads of the secret in a rotation with a window of %s that was over after %s, more than %d", f.asked, f.window, f.took, most)
		}
		// The connect limit's, then one after 1 s, 2 s and every 4 s.
		if most := 4 + 2 + int64(f.took/(4*time.Second)); f.refused > most {
			t.Errorf("%d refused logins in a rotation with a window of %s that was over after %s, more than %d", f.refused, f.window, f.took, most)
		}
	}
}

func TestSingleUserRotationsDirect(t *testing.T) {
	t.Parallel()
	r, count := newRotating(t), &counted{}
	src := secrets.FromManager(r.srv.Client(), r.id)
	pool := newPool(t, shortLived(r.dsn), count.option(), proxy.WithCredentials(src), proxy.WithMaxConns(32))
	l := startLoad(t, pool)
	rotateUnderLoad(t, r, secretstest.SingleUser, count, l)
}

func TestSingleUserRotationsBehindAProxy(t *testing.T) {
	t.Parallel()
	r, count := newRotating(t), &counted{}
	px := proxytest.NewProxy(t, r.adminDSN, proxytest.WithSecret(r.srv.Credentials(r.id)), proxytest.WithMaxConnections(8), proxytest.WithLogger(slog.New(slog.DiscardHandler)))
	src := secrets.FromManager(r.srv.Client(), r.id)
	pool := newPool(t, shortLived(px.URL("", r.database)), count.option(), proxy.WithCredentials(src), proxy.WithMaxConns(32))
	l := startLoad(t, pool)
	waitFor(t, "the proxy to have its database connections", func() bool { return px.Stats().DatabaseConnections == 8 })
	rotateUnderLoad(t, r, secretstest.SingleUser, count, l)
}

func TestAlternatingRotationsDirect(t *testing.T) {
	t.Parallel()
	r, count := newRotating(t), &counted{}
	src := secrets.FromManager(r.srv.Client(), r.id, secrets.TTL(2*time.Second))
	pool := newPool(t, shortLived(r.dsn), count.option(), proxy.WithCredentials(src), proxy.WithMaxConns(32))
	l := startLoad(t, pool)
	users := map[string]bool{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for l.wait(100 * time.Millisecond) {
			var user string
			if pool.QueryRow(context.Background(), "select current_user").Scan(&user) == nil {
				users[user] = true
			}
		}
	}()
	rotateUnderLoad(t, r, secretstest.AlternatingUsers, count, l)
	<-done
	if len(users) != 2 {
		t.Errorf("the pool logged in as %v", users)
	}
}

// wait reports whether the load goes on, after d.
func (l *load) wait(d time.Duration) bool {
	select {
	case <-l.stop:
		return false
	case <-time.After(d):
		return true
	}
}

// Behind a proxy the same ends sessions, and is called what it is.
func TestAlternatingRotationBehindAProxy(t *testing.T) {
	t.Parallel()
	r := newRotating(t)
	var log syncBuffer
	px := proxytest.NewProxy(t, r.adminDSN, proxytest.WithSecret(r.srv.Credentials(r.id)), proxytest.WithLogger(slog.New(slog.DiscardHandler)))
	src := secrets.FromManager(r.srv.Client(), r.id)
	pool := newPool(t, px.URL("", r.database), proxy.WithCredentials(src), proxy.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var user string
	if err := tx.QueryRow(t.Context(), "select current_user").Scan(&user); err != nil || user != r.user {
		t.Fatalf("as %q: %v", user, err)
	}
	if err := r.srv.Rotate(t.Context(), r.id, secretstest.Rotation{AdminDSN: r.adminDSN, Strategy: secretstest.AlternatingUsers}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the proxy to end the former user's sessions", func() bool { return px.Stats().ClientConnections == 0 })
	if _, err := tx.Exec(t.Context(), "select 1"); err == nil {
		t.Error("the transaction survived")
	} else {
		t.Logf("in the transaction: %v", err)
	}
	_ = tx.Rollback(t.Context())
	if err := pool.QueryRow(t.Context(), "select current_user").Scan(&user); err != nil || user != r.user+"_clone" {
		t.Fatalf("as %q: %v", user, err)
	}
	for _, part := range []string{"level=WARN", "alternating users behind RDS Proxy", "does not work behind RDS Proxy", "single-user strategy"} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("the log does not say %q:\n%s", part, log.String())
		}
	}
}

// A rotation that got stuck between setSecret and finishSecret: AWSPENDING keeps the
// service going, and without it the error tells.
func TestStuckRotation(t *testing.T) {
	t.Parallel()
	r := newRotating(t)
	stuck := secretstest.Rotation{AdminDSN: r.adminDSN, After: func(_ context.Context, step string) error {
		if step == secretstest.TestSecret {
			return fmt.Errorf("the rotation function timed out")
		}
		return nil
	}}
	with := newPool(t, r.dsn, proxy.WithCredentials(secrets.FromManager(r.srv.Client(), r.id, secrets.FallbackStages("AWSPENDING", "AWSPREVIOUS"))))
	without := newPool(t, r.dsn, proxy.WithCredentials(secrets.FromManager(r.srv.Client(), r.id)), proxy.WithConnectBudget(3*time.Second))
	exec(t, with, "select 1")
	exec(t, without, "select 1")
	if err := r.srv.Rotate(t.Context(), r.id, stuck); err == nil {
		t.Fatal("the rotation was to get stuck")
	}
	with.Reset()
	without.Reset()
	exec(t, with, "select 1")
	_, err := without.Exec(t.Context(), "select 1")
	if err == nil || !strings.Contains(err.Error(), "setSecret and finishSecret") {
		t.Errorf("got %v", err)
	}
}

// What happens when the proxy itself has to log in to the database in the window.
func TestColdProxyInTheRotationWindow(t *testing.T) {
	t.Parallel()
	for reply, want := range map[proxytest.StaleSecretReply]string{proxytest.StaleSecretFatal: "XX000", proxytest.StaleSecretWaits: ""} {
		r := newRotating(t)
		px := proxytest.NewProxy(t, r.adminDSN, proxytest.WithSecret(r.srv.Credentials(r.id)), proxytest.WithStaleSecretReply(reply), proxytest.WithLogger(slog.New(slog.DiscardHandler)))
		pool := newPool(t, px.URL("", r.database), proxy.WithCredentials(secrets.FromManager(r.srv.Client(), r.id)))
		result := make(chan error, 1)
		window := func(_ context.Context, step string) error {
			if step == secretstest.SetSecret {
				go func() {
					_, err := pool.Exec(context.WithoutCancel(t.Context()), "select 1")
					result <- err
				}()
			}
			return nil
		}
		if err := r.srv.Rotate(t.Context(), r.id, secretstest.Rotation{AdminDSN: r.adminDSN, Window: time.Second, After: window}); err != nil {
			t.Fatal(err)
		}
		err := <-result
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// A connection of the old user is closed within the time that WithRetirement gives, and
// new ones take its place.
func TestRetirementDrainsTheFormerUser(t *testing.T) {
	t.Parallel()
	r := newRotating(t)
	src := secrets.FromManager(r.srv.Client(), r.id, secrets.TTL(time.Second))
	pool := newPool(t, r.dsn, proxy.WithCredentials(src), proxy.WithMaxConns(8), proxy.WithRetirement(2*time.Second))
	usersOf := func(n int) map[string]int {
		users := map[string]int{}
		var conns []*pgxpool.Conn
		for range n {
			conn, err := pool.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
			var user string
			if err := conn.QueryRow(t.Context(), "select session_user").Scan(&user); err != nil {
				t.Fatal(err)
			}
			users[user]++
		}
		for _, c := range conns {
			c.Release()
		}
		return users
	}
	if users := usersOf(7); users[r.user] != 7 {
		t.Fatalf("%v", users)
	}
	if err := r.srv.Rotate(t.Context(), r.id, secretstest.Rotation{AdminDSN: r.adminDSN, Strategy: secretstest.AlternatingUsers, Window: 1100 * time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	users := usersOf(8)
	t.Logf("right after the rotation: %v", users)
	waitFor(t, "the former user's connections to be gone", func() bool {
		users = usersOf(8)
		return users[r.user] == 0 && users[r.user+"_clone"] == 8
	})
}
