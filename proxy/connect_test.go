package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/secrets"
)

func newPool(t *testing.T, dsn string, opts ...proxy.Option) *pgxpool.Pool {
	t.Helper()
	pool, err := proxy.NewPool(t.Context(), dsn, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

func TestConnectSendsNoStatementAndKeepsWhatTheServerSaid(t *testing.T) {
	t.Parallel()
	s := newScripted(t, login)
	pool := newPool(t, s.dsn())
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	pc := conn.Conn().PgConn()
	if pc.PID() != 42 || pc.ParameterStatus("server_version") != "17.9" || pc.TxStatus() != 'I' {
		t.Errorf("pid %d, version %q, status %c", pc.PID(), pc.ParameterStatus("server_version"), pc.TxStatus())
	}
	if conn.Conn().Config().Password != "" || pool.Config().ConnConfig.Password != "" {
		t.Error("the password is left in a configuration")
	}
	if n := s.statements.Load(); n != 0 {
		t.Errorf("connecting sent %d statements", n)
	}
	if _, err := conn.Exec(t.Context(), "-- hello"); err != nil {
		t.Error(err)
	}
	conn.Release()
	pool.Close()
	for s.open.Load() > 0 { // the server sees Terminate and ends
		time.Sleep(time.Millisecond)
	}
}

// A server may say something right behind its ReadyForQuery. It must reach pgx.
func TestBytesBehindTheLoginAreNotLost(t *testing.T) {
	t.Parallel()
	s := newScripted(t, func(d *dialogue) {
		if _, err := d.startup(); err != nil {
			return
		}
		d.Send(&pgproto3.NoticeResponse{Severity: "NOTICE", Message: "before"})
		d.Send(&pgproto3.AuthenticationOk{})
		d.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		d.Send(&pgproto3.ParameterStatus{Name: "in_hot_standby", Value: "off"})
		d.Send(&pgproto3.NoticeResponse{Severity: "NOTICE", Message: "behind"})
		_ = d.Flush()
		d.serve()
	})
	var notices []string
	cfg, err := pgxpool.ParseConfig(s.dsn() + "?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	cfg.ConnConfig.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Message) }
	if err := proxy.Configure(cfg); err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(t.Context(), cfg.ConnConfig) // as a library would that is given the pool's configuration
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(notices, ","); got != "behind" || conn.PgConn().ParameterStatus("in_hot_standby") != "off" {
		t.Errorf("notices %q, status %q", got, conn.PgConn().ParameterStatus("in_hot_standby"))
	}
	if err := conn.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestASilentPeerCostsTheCallerItsOwnDeadlineAndThePoolNothing(t *testing.T) {
	t.Parallel()
	s := newScripted(t, silent)
	pool := newPool(t, s.dsn(), proxy.WithMaxConns(2), proxy.WithAttemptTimeout(4*time.Second))
	within := func(what string, call func(context.Context) error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		start := time.Now()
		err := call(ctx)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: got %v", what, err)
		}
		took := time.Since(start)
		t.Logf("%s: returned after %s", what, took.Round(time.Millisecond))
		if took > 3*time.Second { // not a benchmark: without the deadline it would be the attempt's 4 s
			t.Errorf("%s: returned after %s", what, took)
		}
	}
	var wg sync.WaitGroup
	for range 4 { // more than there are slots
		wg.Go(func() { within("pool", pool.Ping) })
	}
	wg.Wait()
	within("connect", func(ctx context.Context) error {
		_, err := proxy.Connect(ctx, s.dsn())
		return err
	})
	s.setScript(login)
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := pool.Ping(ctx); err != nil {
		t.Fatalf("the pool is starved: %v", err)
	}
	t.Logf("served again after %s", time.Since(start).Round(time.Millisecond))
}

func TestACancelledQueryGivesItsSlotBackSoon(t *testing.T) {
	t.Parallel()
	s := newScripted(t, func(d *dialogue) {
		msg, err := d.startup()
		if err != nil {
			return
		}
		if _, ok := msg.(*pgproto3.CancelRequest); ok {
			d.server.cancels.Add(1)
			silent(d) // and no answer
			return
		}
		d.Send(&pgproto3.AuthenticationOk{})
		d.Send(&pgproto3.BackendKeyData{ProcessID: 42, SecretKey: []byte{1, 2, 3, 4}})
		d.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		_ = d.Flush()
		silent(d) // neither to the query nor to Terminate
	})
	for _, kind := range []proxy.Kind{proxy.KindOther, proxy.KindInstance, proxy.KindProxy} { // plaintext, TLS, proxy
		before := s.cancels.Load()
		opts := []proxy.Option{proxy.WithMaxConns(1), proxy.WithEndpointKind(kind), trusted(t)}
		want := int64(1)
		if kind.IsProxy() { // RDS Proxy ignores CancelRequest, so none may be sent
			want = 0
		}
		pool := newPool(t, s.dsn(), opts...)
		conn, err := pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err = conn.Exec(ctx, "select pg_sleep(60)")
		cancel()
		if err == nil {
			t.Error("no error")
		}
		conn.Release()
		ctx, cancel = context.WithTimeout(t.Context(), 8*time.Second) // pgx alone: 15 s
		conn, err = pool.Acquire(ctx)
		cancel()
		if err != nil {
			t.Fatalf("%s: the slot is still taken: %v", kind, err)
		}
		conn.Hijack().PgConn().Conn().Close()
		if got := s.cancels.Load() - before; got != want {
			t.Errorf("%s: %d CancelRequests, want %d", kind, got, want)
		}
		pool.Close()
	}
}

func TestOneScoutWhileNothingAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var dials, concurrent, most atomic.Int64
		opts := []proxy.Option{
			proxy.WithMaxConns(25),
			proxy.WithDialer(func(context.Context, string, string) (net.Conn, error) {
				dials.Add(1)
				most.Store(max(most.Load(), concurrent.Add(1)))
				time.Sleep(10 * time.Millisecond)
				concurrent.Add(-1)
				return nil, errors.New("connection refused")
			}),
		}
		pool, err := proxy.NewPool(t.Context(), "postgres://app:x@127.0.0.1/orders", opts...)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		var wg sync.WaitGroup
		start := time.Now()
		for range 100 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				err := pool.Ping(ctx)
				var connectErr *proxy.ConnectError
				if !errors.As(err, &connectErr) || !errors.Is(err, context.DeadlineExceeded) || connectErr.Attempts < 10 {
					t.Errorf("the error does not tell what was tried: %v", err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took != 20*time.Second {
			t.Errorf("callers waited %s", took)
		}
		// Four start before the first fails; from then on there is one, at about eight a second.
		if n := dials.Load(); n > 300 || n < 100 || most.Load() > 4 {
			t.Errorf("%d dials in 20 s, %d at a time", n, most.Load())
		}
	})
}

func TestBudgetEndsAConnectThatNobodyElseEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, err := proxy.Connect(t.Context(), "postgres://app:x@127.0.0.1/orders", proxy.WithDialer(unreachable), proxy.WithConnectBudget(7*time.Second))
		if took := time.Since(start); took != 7*time.Second {
			t.Errorf("took %s", took)
		}
		if !errors.Is(err, proxy.ErrUnreachable) || !strings.Contains(err.Error(), "budget") || !strings.Contains(err.Error(), "refused") {
			t.Errorf("got %v", err)
		}
	})
}

// What a cold start looks like from outside, one after the other: no name, nothing
// listening, a connection that ends in mid-login, a server that says it is starting.
func TestAColdStartIsWaitedFor(t *testing.T) {
	t.Parallel()
	s := newScripted(t, hangUp)
	starting := refuse("57P03", "the database system is starting up")
	var step atomic.Int64
	s.setScript(func(d *dialogue) {
		switch step.Add(1) {
		case 1, 2:
			hangUp(d)
		case 3:
			starting(d)
		case 4:
			refuse("08000", "Timed-out waiting to acquire database connection.")(d)
		default:
			login(d)
		}
	})
	var lookups, dials atomic.Int64
	pool := newPool(t, "postgres://app:"+password+"@"+proxyHost+":"+s.port()+"/orders", trusted(t),
		proxy.WithLookup(func(_ context.Context, host string) ([]string, error) {
			if lookups.Add(1) <= 2 {
				return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
			}
			return []string{"127.0.0.1"}, nil
		}),
		proxy.WithDialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
			if dials.Add(1) <= 2 {
				return unreachable(ctx, network, addr)
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		}))
	if err := pool.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if lookups.Load() != 9 || dials.Load() != 7 || step.Load() != 5 {
		t.Errorf("%d lookups, %d dials, %d connections", lookups.Load(), dials.Load(), step.Load())
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	tests := []struct {
		code, message string
		kind          proxy.Kind
		cause         error
		permanent     bool
	}{
		{"28P01", `password authentication failed for user "app"`, proxy.KindOther, proxy.ErrCredentialsRejected, true},
		{"28000", "This RDS proxy has no credentials for the role app. Check the credentials for this role and try again.", proxy.KindProxy, proxy.ErrCredentialsRejected, true},
		{"28000", "Enable IAM authentication for the client connection to the proxy and try again.", proxy.KindProxy, proxy.ErrCredentialsRejected, true},
		{"28000", "This RDS Proxy requires TLS connections.", proxy.KindProxy, proxy.ErrTLSRefused, true},
		{"28000", `no pg_hba.conf entry for host "10.0.0.1", user "app", database "orders", no encryption`, proxy.KindOther, proxy.ErrNotPermitted, true},
		{"28000", `no pg_hba.conf entry for host "10.0.0.1", user "app", database "orders", SSL encryption`, proxy.KindInstance, proxy.ErrStartingUp, false},
		{"0A000", "Feature not supported: RDS Proxy currently doesn’t support the option statement_timeout.", proxy.KindProxy, proxy.ErrStartupParameter, true},
		{"3D000", `database "orders" does not exist`, proxy.KindOther, proxy.ErrDatabaseNotFound, true},
		{"42501", "permission denied for database", proxy.KindOther, proxy.ErrNotPermitted, true},
		{"53300", "sorry, too many clients already", proxy.KindOther, proxy.ErrTooManyConnections, false},
		{"53300", "The IAM authentication failed because of too many competing requests.", proxy.KindProxy, proxy.ErrTooManyConnections, false},
		{"28000", "The IAM authentication failed because of too many competing requests.", proxy.KindProxy, proxy.ErrTooManyConnections, false},
		{"57P03", "the database system is starting up", proxy.KindOther, proxy.ErrStartingUp, false},
		{"08000", "Timed-out waiting to acquire database connection.", proxy.KindProxy, proxy.ErrBorrowTimeout, false},
		{"XX000", "Unknown error.", proxy.KindProxy, proxy.ErrUnreachable, false},
		{"XX000", `Request returned an error: FATAL: database "orders" does not exist`, proxy.KindProxy, proxy.ErrDatabaseNotFound, true},
		{"42601", "syntax error", proxy.KindOther, proxy.ErrUnexpected, true},
	}
	for _, tt := range tests {
		t.Run(tt.code+" "+tt.message[:min(30, len(tt.message))], func(t *testing.T) {
			t.Parallel()
			s := newScripted(t, refuse(tt.code, tt.message))
			const budget = 3 * time.Second // an overloaded server (53300) is left alone for more than one
			dsn, opts := s.dsn(), []proxy.Option{proxy.WithConnectBudget(budget)}
			if tt.kind != proxy.KindOther {
				opts = append(opts, proxy.WithEndpointKind(tt.kind), trusted(t))
			}
			_, err := proxy.Connect(t.Context(), dsn, opts...)
			if !errors.Is(err, tt.cause) {
				t.Errorf("got %v, want %v", err, tt.cause)
			}
			var pgErr *pgconn.PgError
			if !errors.As(err, &pgErr) || pgErr.Code != tt.code {
				t.Errorf("the server's own error is lost: %v", err)
			}
			if tt.permanent == (s.accepted.Load() > 1) {
				t.Errorf("%d attempts", s.accepted.Load())
			}
			if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), password) {
				t.Error("the error shows the password")
			}
		})
	}
}

func TestASecondSetOfCredentialsIsTriedAndNoThird(t *testing.T) {
	t.Parallel()
	s := newScripted(t, refuse("28P01", "password authentication failed"))
	for _, same := range []bool{false, true} {
		calls := 0
		src := secrets.Func(func(context.Context) (secrets.Credentials, error) {
			calls++
			if same {
				return secrets.Credentials{User: "app", Password: password}, nil
			}
			return secrets.Credentials{User: "app", Password: fmt.Sprint(password, calls)}, nil
		})
		before := s.accepted.Load()
		_, err := proxy.Connect(t.Context(), "postgres://app@127.0.0.1:"+s.port()+"/orders", proxy.WithCredentials(src))
		want := int64(2)
		if same {
			want = 1 // logging in again with what was refused helps nobody
		}
		if got := s.accepted.Load() - before; got != want || calls != 2 || !errors.Is(err, proxy.ErrCredentialsRejected) {
			t.Errorf("same=%v: %d logins with %d fetches: %v", same, got, calls, err)
		}
	}
}

func TestErrorsAndLogsHoldNoSecret(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	creds := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: password, SessionToken: "session-" + password}, nil
	})
	s := newScripted(t, func(d *dialogue) {
		if _, err := d.startup(); err != nil {
			return
		}
		d.Send(&pgproto3.AuthenticationCleartextPassword{})
		_ = d.Flush()
		_ = d.SetAuthType(pgproto3.AuthTypeCleartextPassword)
		if _, err := d.Receive(); err != nil {
			return
		}
		d.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "28P01", Message: "The IAM authentication failed for the role app."})
		_ = d.Flush()
	})
	dsn := "postgres://app@" + proxyHost + ":" + s.port() + "/orders"
	pool := newPool(t, dsn, proxy.WithAWSConfig(aws.Config{Credentials: creds}), proxy.WithLogger(logger), trusted(t), proxy.WithLookup(loopback))
	err := pool.Ping(t.Context())
	if !errors.Is(err, proxy.ErrCredentialsRejected) {
		t.Fatalf("got %v", err)
	}
	if !strings.Contains(err.Error(), "rds-db:connect") {
		t.Errorf("%v does not name the likely cause", err)
	}
	shown := fmt.Sprintf("%v|%+v|%#v|%s", err, err, err, log.String())
	if connectErr, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		shown += fmt.Sprintf("%+v %#v", connectErr.Config, connectErr.Config)
	}
	for _, secret := range []string{password, "X-Amz-Signature", "session-"} {
		if strings.Contains(shown, secret) {
			t.Errorf("%q is shown in: %s", secret, shown)
		}
	}
}

// loopback is a DNS in which every name is this machine.
func loopback(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
