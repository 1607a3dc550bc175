package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy"
)

// What WithTopology and WithPeerTimeout cannot work with is said before anything is dialled.
func TestFailoverOptionsAreChecked(t *testing.T) {
	t.Parallel()
	const (
		cluster  = "postgres://app:x@orders.cluster-abc.eu-west-1.rds.amazonaws.com/orders"
		reader   = "postgres://app:x@orders.cluster-ro-abc.eu-west-1.rds.amazonaws.com/orders"
		throughP = "postgres://app@orders.proxy-abc.eu-west-1.rds.amazonaws.com/orders"
		custom   = "postgres://app:x@db.example.com/orders"
		two      = "postgres://app:x@a.cluster-abc.eu-west-1.rds.amazonaws.com,b.cluster-abc.eu-west-1.rds.amazonaws.com/orders"
	)
	writer := proxy.WithEndpointKind(proxy.KindWriter)
	for name, c := range map[string]struct {
		url  string
		opts []proxy.Option
		want string // in the error; "" for none
	}{
		"cluster":               {cluster, []proxy.Option{proxy.WithTopology()}, ""},
		"named instances":       {cluster, []proxy.Option{proxy.WithTopology("orders-1.abc.eu-west-1.rds.amazonaws.com", "orders-2.abc.eu-west-1.rds.amazonaws.com")}, ""},
		"proxy":                 {throughP, []proxy.Option{proxy.WithTopology()}, "leave it out for a proxy"},
		"reader":                {reader, []proxy.Option{proxy.WithTopology()}, "cluster endpoint"},
		"custom domain":         {custom + "?sslmode=verify-full", []proxy.Option{proxy.WithTopology("?.example.com")}, "WithEndpointKind"},
		"custom domain, writer": {custom, []proxy.Option{proxy.WithTopology("?.example.com"), writer}, ""},
		"no pattern to derive":  {custom, []proxy.Option{proxy.WithTopology(), writer}, "give the pattern"},
		"two hosts":             {two, []proxy.Option{proxy.WithTopology()}, "several hosts"},
		"hostaddr":              {cluster + "?hostaddr=10.0.0.1", []proxy.Option{proxy.WithTopology()}, "hostaddr"},
		"two patterns":          {cluster, []proxy.Option{proxy.WithTopology("?.a.example.com", "?.b.example.com")}, "more than one pattern"},
		"no host name":          {cluster, []proxy.Option{proxy.WithTopology("orders-1:5432")}, "no host name"},
		"peer timeout":          {cluster, []proxy.Option{proxy.WithPeerTimeout(time.Second)}, ""},
		"peer timeout, short":   {cluster, []proxy.Option{proxy.WithPeerTimeout(5)}, "at least a second"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pool, err := proxy.NewPool(t.Context(), c.url, c.opts...)
			if err == nil {
				pool.Close()
			}
			var cfgErr *proxy.ConfigError
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && !errors.As(err, &cfgErr):
				t.Errorf("%v is no ConfigError", err)
			case c.want != "" && !strings.Contains(err.Error(), c.want):
				t.Errorf("%v does not say %q", err, c.want)
			}
		})
	}
}

// writerOf is a server that says it is the writer, and answers the question for the cluster's instances,
// which is all that it is asked, in its own way.
func writerOf(instances func(d *dialogue)) func(*dialogue) {
	return func(d *dialogue) {
		if !d.letIn(standby("off")) {
			return
		}
		for {
			msg, err := d.Receive()
			if _, ok := msg.(*pgproto3.Query); !ok || err != nil {
				return
			}
			d.server.statements.Add(1)
			instances(d)
		}
	}
}

// A server that takes longer for the question than anybody waits costs one connection in learnEvery, and
// not each.
func TestASlowAnswerAboutTheInstancesDoesNotKeepAnybodyOut(t *testing.T) {
	t.Parallel()
	trust := trusted(t) // made outside of virtual time
	synctest.Test(t, func(t *testing.T) {
		net := newPipes()
		s := serveScripted(t, net, writerOf(silent))
		pool, err := proxy.NewPool(t.Context(), "postgres://app:"+password+"@"+clusterHost+"/orders", trust,
			proxy.WithTopology(), proxy.WithDialer(net.dial), proxy.WithLookup(loopback))
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		connect := func(asked, accepted int64) {
			t.Helper()
			conn, err := pool.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.Hijack().Close(t.Context())
			if s.statements.Load() != asked || s.accepted.Load() != accepted {
				t.Errorf("%d questions in %d connects, want %d in %d", s.statements.Load(), s.accepted.Load(), asked, accepted)
			}
		}
		connect(1, 2)
		connect(1, 3)
		time.Sleep(time.Minute)
		connect(2, 5)
	})
}

// logFunc is a slog.Handler of one function.
type logFunc func(slog.Record)

func (logFunc) Enabled(context.Context, slog.Level) bool           { return true }
func (f logFunc) Handle(_ context.Context, line slog.Record) error { f(line); return nil }
func (f logFunc) WithAttrs([]slog.Attr) slog.Handler               { return f }
func (f logFunc) WithGroup(string) slog.Handler                    { return f }

// Whoever is told that the instances cannot be learned may use the pool.
func TestTheLogIsWrittenWithoutALock(t *testing.T) {
	t.Parallel()
	s := newScripted(t, writerOf(func(d *dialogue) {
		d.Send(&pgproto3.ErrorResponse{Severity: "ERROR", Code: "42501", Message: "permission denied"})
		d.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		_ = d.Flush()
	}))
	var (
		pool *pgxpool.Pool
		told int
	)
	handler := logFunc(func(line slog.Record) {
		if !strings.Contains(line.Message, "cannot be learned") {
			return
		}
		told++
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		conn, err := pool.Acquire(ctx)
		if err != nil {
			t.Errorf("while the log is written: %v", err)
			return
		}
		conn.Release()
	})
	pool = newPool(t, "postgres://app:"+password+"@"+clusterHost+":"+s.port()+"/orders", trusted(t),
		proxy.WithTopology(), proxy.WithLookup(loopback), proxy.WithLogger(slog.New(handler)))
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	conn.Release()
	if told != 1 {
		t.Errorf("told %d times", told)
	}
}

// The user's own hooks for taking a connection are asked as before, the deprecated one too.
func TestAcquireHooksStay(t *testing.T) {
	t.Parallel()
	for name, set := range map[string]func(cfg *pgxpool.Config, called *int){
		"PrepareConn": func(cfg *pgxpool.Config, called *int) {
			cfg.PrepareConn = func(context.Context, *pgx.Conn) (bool, error) { *called++; return true, nil }
		},
		"BeforeAcquire": func(cfg *pgxpool.Config, called *int) {
			cfg.BeforeAcquire = func(context.Context, *pgx.Conn) bool { *called++; return true } //nolint:staticcheck // deprecated, and in use
		},
		"ShouldPing": func(cfg *pgxpool.Config, called *int) {
			cfg.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { *called++; return false }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, err := pgxpool.ParseConfig(newScripted(t, login).dsn() + "?sslmode=disable")
			if err != nil {
				t.Fatal(err)
			}
			called := 0
			set(cfg, &called)
			if err := proxy.Configure(cfg); err != nil {
				t.Fatal(err)
			}
			pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			conn, err := pool.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			conn.Release()
			if called != 1 {
				t.Errorf("called %d times", called)
			}
		})
	}
}

// A statement on its own that waits for notifications needs a session of its own, straight to the
// cluster: through RDS Proxy it would be pinned. Whoever listens has to connect anew when the
// connection ends, and to look at what it missed meanwhile.
func ExampleConnect_listen() {
	listen := func(ctx context.Context, url string, look func(context.Context, *pgx.Conn) error) error {
		conn, err := proxy.Connect(ctx, url, proxy.WithTopology()) // waits for the writer, also in a failover
		if err != nil {
			return err
		}
		defer conn.Close(context.WithoutCancel(ctx))
		if _, err := conn.Exec(ctx, "listen orders"); err != nil {
			return err
		}
		for {
			if err := look(ctx, conn); err != nil { // first of all, and after each notification
				return err
			}
			// A server that has vanished ends this after five seconds (WithPeerTimeout).
			if _, err := conn.WaitForNotification(ctx); err != nil {
				return err
			}
		}
	}
	run := func(ctx context.Context) {
		for ctx.Err() == nil {
			err := listen(ctx, "postgres://app@orders.cluster-abc.eu-west-1.rds.amazonaws.com/orders",
				func(context.Context, *pgx.Conn) error { return nil }) // select what is new
			log.Print("listening again: ", err)
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
	ended, end := context.WithCancel(context.Background())
	end()
	run(ended)
	fmt.Println("done")
	// Output: done
}
