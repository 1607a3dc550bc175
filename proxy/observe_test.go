package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/observe"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/secrets"
)

// witness notes what a pool tells, and which of it came outside of the context that it gave.
type witness struct {
	mu       sync.Mutex
	events   []observe.Event
	lines    []string
	acquired atomic.Int64
	released atomic.Int64
}

type within struct{}

func (w *witness) Start(ctx context.Context, op observe.Operation) context.Context {
	w.note(nil, "start "+op.Name+" "+op.Kind)
	return context.WithValue(ctx, within{}, true)
}

func (w *witness) Observe(ctx context.Context, e observe.Event) {
	line := strings.TrimPrefix(fmt.Sprintf("%T", e), "observe.")
	switch e := e.(type) {
	case observe.ConnectAttempt:
		line += fmt.Sprintf(" %d %s last=%v", e.Number, e.Case, e.Last)
		if e.Took <= 0 || (e.Err == nil) != (e.Cause == nil) {
			line += fmt.Sprintf(" %+v", e)
		}
	case observe.Connected:
		line += fmt.Sprintf(" %d %s", e.Attempts, e.Address)
	case observe.ConnectFailed:
		line += fmt.Sprintf(" %d %s", e.Attempts, e.Case)
	case observe.Evicted:
		line += " " + e.Reason
	case observe.CredentialsFetched:
		line += " " + e.Source + " " + e.User
	}
	if ctx.Value(within{}) == nil {
		line += " outside"
	}
	w.note(e, line)
}

func (w *witness) note(e observe.Event, line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events, w.lines = append(w.events, e), append(w.lines, line)
}

func (w *witness) TraceAcquireStart(ctx context.Context, _ *pgxpool.Pool, _ pgxpool.TraceAcquireStartData) context.Context {
	return ctx
}

func (w *witness) TraceAcquireEnd(context.Context, *pgxpool.Pool, pgxpool.TraceAcquireEndData) {
	w.acquired.Add(1)
}

func (w *witness) TraceRelease(*pgxpool.Pool, pgxpool.TraceReleaseData) { w.released.Add(1) }

func TestObserverOfConnects(t *testing.T) {
	t.Parallel()
	source := secrets.Func(func(context.Context) (secrets.Credentials, error) {
		return secrets.Credentials{User: "app", Password: password}, nil
	})
	for name, tt := range map[string]struct {
		first func(*dialogue) // the server's answer to the first attempt
		opts  []proxy.Option
		want  []string
	}{
		"at once": {login, nil, []string{
			"start connect other", "CredentialsFetched source app", "ConnectAttempt 1  last=true", "Connected 1 127.0.0.1",
		}},
		"after a start": {refuse("57P03", "the database system is starting up"), nil, []string{
			"start connect other", "CredentialsFetched source app", "ConnectAttempt 1 starting-up last=false",
			"CredentialsFetched source app", "ConnectAttempt 2  last=true", "Connected 2 127.0.0.1",
		}},
		"never": {refuse("3D000", "database does not exist"), nil, []string{
			"start connect other", "CredentialsFetched source app", "ConnectAttempt 1 database-not-found last=true", "ConnectFailed 1 database-not-found",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var attempts atomic.Int64
			s := newScripted(t, func(d *dialogue) {
				if attempts.Add(1) == 1 {
					tt.first(d)
					return
				}
				login(d)
			})
			w := &witness{}
			pool := newPool(t, strings.Replace(s.dsn(), ":"+password+"@", "@", 1), append(tt.opts, proxy.WithObserver(w), proxy.WithCredentials(source))...)
			conn, err := pool.Acquire(t.Context())
			if err == nil {
				conn.Release()
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			if !slices.Equal(w.lines, tt.want) {
				t.Errorf("saw\n%s\nwant\n%s", strings.Join(w.lines, "\n"), strings.Join(tt.want, "\n"))
			}
			for _, e := range w.events {
				if text := fmt.Sprintf("%+v", e); strings.Contains(text, password) {
					t.Errorf("a password: %s", text)
				}
			}
			released := int64(0)
			if err == nil {
				released = 1
			}
			if w.acquired.Load() != 1 || w.released.Load() != released {
				t.Errorf("%d acquires and %d releases", w.acquired.Load(), w.released.Load())
			}
			var failed *proxy.ConnectError
			if last, ok := w.events[len(w.events)-1].(observe.ConnectFailed); ok && (!errors.As(err, &failed) || !errors.Is(last.Err, failed)) {
				t.Errorf("the caller got %v, the observer %v", err, last.Err)
			}
		})
	}
}

// However an idle connection is found to be of no use, it is told once.
func TestObserverOfEvictions(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		then func(*dialogue) // what the server does to the first connection
		idle time.Duration   // before it is used again
		why  string
	}{
		"closed": {func(*dialogue) {}, 50 * time.Millisecond, observe.EvictedClosed},
		"closed with a word": {func(d *dialogue) {
			d.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "57P01", Message: "terminating connection due to administrator command"})
			_ = d.Flush()
		}, 50 * time.Millisecond, observe.EvictedClosed},
		"a ping in vain": {silent, 1100 * time.Millisecond, observe.EvictedUnanswered},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var connects atomic.Int64
			done := make(chan struct{})
			s := newScripted(t, func(d *dialogue) {
				if connects.Add(1) > 1 {
					login(d)
					return
				}
				defer close(done)
				if _, err := d.startup(); err != nil {
					return
				}
				d.Send(&pgproto3.AuthenticationOk{})
				d.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
				_ = d.Flush()
				tt.then(d)
			})
			w := &witness{}
			pool := newPool(t, s.dsn()+"?pool_ping_timeout=100ms", proxy.WithObserver(w))
			acquire := func() {
				t.Helper()
				conn, err := pool.Acquire(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				conn.Release()
			}
			acquire()
			time.Sleep(tt.idle) // which is what is tested
			acquire()
			<-done
			acquire()
			pool.Close()
			w.mu.Lock()
			defer w.mu.Unlock()
			var evicted []string
			for _, line := range w.lines {
				if strings.HasPrefix(line, "Evicted") {
					evicted = append(evicted, line)
				}
			}
			if want := []string{"Evicted " + tt.why + " outside"}; !slices.Equal(evicted, want) {
				t.Errorf("told %q, want %q", evicted, want)
			}
		})
	}
}

func TestObserverMustNotBeNil(t *testing.T) {
	t.Parallel()
	_, err := proxy.NewPool(t.Context(), "postgres://app:password@localhost/app", proxy.WithObserver(nil))
	if e, ok := errors.AsType[*proxy.ConfigError](err); !ok || e.Source != "WithObserver" {
		t.Errorf("got %v", err)
	}
}

// A tracer from an option is pgx's as one from a configuration is, and goes beside it.
func TestWithTracer(t *testing.T) {
	t.Parallel()
	s := newScripted(t, login)
	alone, first, second := &tracer{}, &tracer{}, &tracer{}
	conn, err := proxy.Connect(t.Context(), s.dsn(), proxy.WithTracer(alone))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	cfg, err := pgxpool.ParseConfig(s.dsn() + "?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	cfg.ConnConfig.Tracer = first
	if err := proxy.Configure(cfg, proxy.WithTracer(second)); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for _, db := range []interface {
		Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	}{conn, pool} {
		if _, err := db.Exec(t.Context(), "-- hello"); err != nil {
			t.Fatal(err)
		}
	}
	for name, one := range map[string]*tracer{"of Connect": alone, "of the configuration": first, "of the option": second} {
		if one.connects.Load() != 1 || one.queries.Load() != 1 {
			t.Errorf("the tracer %s saw %d connects, %d queries", name, one.connects.Load(), one.queries.Load())
		}
	}
	if alone.acquires.Load() != 0 || first.acquires.Load() != 1 || second.acquires.Load() != 1 {
		t.Errorf("acquires: %d, %d, %d", alone.acquires.Load(), first.acquires.Load(), second.acquires.Load())
	}
}
