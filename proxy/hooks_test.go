package proxy_test

import (
	"context"
	"crypto/tls"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy"
)

// askPassword lets in whoever sends a password and remembers who that was.
func askPassword(user, password *string) func(*dialogue) {
	return func(d *dialogue) {
		msg, err := d.startup()
		if err != nil {
			return
		}
		startup, ok := msg.(*pgproto3.StartupMessage)
		if !ok {
			return
		}
		*user = startup.Parameters["user"]
		d.Send(&pgproto3.AuthenticationCleartextPassword{})
		_ = d.Flush()
		_ = d.SetAuthType(pgproto3.AuthTypeCleartextPassword)
		if msg, err := d.Receive(); err == nil {
			*password = msg.(*pgproto3.PasswordMessage).Password
		}
		d.Send(&pgproto3.AuthenticationOk{})
		d.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		_ = d.Flush()
		d.serve()
	}
}

// tracer records what pgx tells a tracer.
type tracer struct{ connects, acquires, queries atomic.Int64 }

func (t *tracer) TraceConnectStart(ctx context.Context, _ pgx.TraceConnectStartData) context.Context {
	t.connects.Add(1)
	return ctx
}
func (t *tracer) TraceConnectEnd(context.Context, pgx.TraceConnectEndData) {}
func (t *tracer) TraceAcquireStart(ctx context.Context, _ *pgxpool.Pool, _ pgxpool.TraceAcquireStartData) context.Context {
	t.acquires.Add(1)
	return ctx
}
func (t *tracer) TraceAcquireEnd(context.Context, *pgxpool.Pool, pgxpool.TraceAcquireEndData) {}
func (t *tracer) TraceQueryStart(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryStartData) context.Context {
	t.queries.Add(1)
	return ctx
}
func (t *tracer) TraceQueryEnd(context.Context, *pgx.Conn, pgx.TraceQueryEndData) {}

type wrapped struct{ net.Conn }

func TestHooksOfTheUserStayInPlace(t *testing.T) {
	t.Parallel()
	var user, sent string
	s := newScripted(t, askPassword(&user, &sent))
	cfg, err := pgxpool.ParseConfig(s.dsn() + "?sslmode=verify-full")
	if err != nil {
		t.Fatal(err)
	}
	var afterConnects, validations atomic.Int64
	traced := &tracer{}
	cfg.ConnConfig.Tracer = traced
	cfg.BeforeConnect = func(_ context.Context, cc *pgx.ConnConfig) error {
		if cc.Password != password {
			t.Errorf("the hook does not see the password")
		}
		cc.User, cc.Password = "hooked", "from the hook"
		return nil
	}
	cfg.AfterConnect = func(context.Context, *pgx.Conn) error { afterConnects.Add(1); return nil }
	cfg.ConnConfig.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) { return wrapped{conn}, nil }
	cfg.ConnConfig.ValidateConnect = func(context.Context, *pgconn.PgConn) error { validations.Add(1); return nil }
	if err := proxy.Configure(cfg, trusted(t)); err != nil {
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
	defer conn.Release()
	if user != "hooked" || sent != "from the hook" {
		t.Errorf("logged in as %q with %q", user, sent)
	}
	if _, err := conn.Exec(t.Context(), "-- one"); err != nil {
		t.Error(err)
	}
	if traced.connects.Load() != 1 || traced.acquires.Load() != 1 || traced.queries.Load() != 1 {
		t.Errorf("traced %d connects, %d acquires, %d queries; want 1 each", traced.connects.Load(), traced.acquires.Load(), traced.queries.Load())
	}
	if afterConnects.Load() != 1 || validations.Load() != 1 {
		t.Errorf("%d AfterConnect, %d ValidateConnect; want 1 each", afterConnects.Load(), validations.Load())
	}
	shown := conn.Conn().Config()
	if shown.Password != "" || shown.Tracer != pgx.QueryTracer(traced) {
		t.Errorf("the connection's configuration shows tracer %T, or a password", shown.Tracer)
	}
	outer, ok := conn.Conn().PgConn().Conn().(wrapped)
	if !ok {
		t.Fatalf("the connection is a %T", conn.Conn().PgConn().Conn())
	}
	secured, ok := outer.Conn.(interface{ NetConn() net.Conn }).NetConn().(*tls.Conn)
	if !ok || !secured.ConnectionState().HandshakeComplete {
		t.Errorf("there is no TLS below the connection, but a %T", outer.Conn)
	}
	again, err := pgx.ConnectConfig(t.Context(), shown) // as libraries do that want a connection of their own
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Close(t.Context())
}

func TestHostsAreTriedInTurn(t *testing.T) {
	t.Parallel()
	reader := newScripted(t, login)
	writer := newScripted(t, login)
	cfg, err := pgxpool.ParseConfig("postgres://app:x@127.0.0.1:" + reader.port() + ",127.0.0.1:" + writer.port() + "/orders?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	cfg.ConnConfig.ValidateConnect = func(_ context.Context, pc *pgconn.PgConn) error { // as target_session_attrs does
		if pc.Conn().RemoteAddr().String() == reader.listener.Addr().String() {
			refused++
			return pgconn.ErrReadOnlyConnection
		}
		return nil
	}
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
	defer conn.Release()
	if got := conn.Conn().PgConn().Conn().RemoteAddr().String(); got != writer.listener.Addr().String() || refused != 1 {
		t.Errorf("connected to %s after %d refusals", got, refused)
	}
}

// inRecovery is a server that says whether it is in recovery, t or f, when it is asked.
func inRecovery(is string) func(*dialogue) {
	return func(d *dialogue) {
		if !d.letIn() {
			return
		}
		for {
			msg, err := d.Receive()
			if _, ok := msg.(*pgproto3.Query); !ok || err != nil {
				return
			}
			d.Send(&pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte("pg_is_in_recovery"), DataTypeOID: 16, DataTypeSize: 1}}})
			d.Send(&pgproto3.DataRow{Values: [][]byte{[]byte(is)}})
			d.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
			d.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
			_ = d.Flush()
		}
	}
}

// With target_session_attrs=prefer-standby the primary is what there is if no standby is, and each server
// is logged in to once.
func TestAStandbyIsPreferred(t *testing.T) {
	t.Parallel()
	down := refuse("57P03", "the database system is starting up")
	for name, tt := range map[string]struct {
		servers []func(*dialogue)
		want    int // the server that is taken
		logins  []int64
	}{
		"standby last":     {[]func(*dialogue){inRecovery("f"), inRecovery("t")}, 1, []int64{1, 1}},
		"standby first":    {[]func(*dialogue){inRecovery("t"), inRecovery("f")}, 0, []int64{1, 0}},
		"no standby":       {[]func(*dialogue){inRecovery("f"), inRecovery("f")}, 0, []int64{1, 1}},
		"standby is down":  {[]func(*dialogue){down, inRecovery("f"), down}, 1, []int64{1, 1, 1}},
		"standby is wrong": {[]func(*dialogue){inRecovery("f"), refuse("28P01", "password authentication failed")}, 0, []int64{1, 1}},
		"primary alone":    {[]func(*dialogue){inRecovery("f")}, 0, []int64{1}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var (
				servers []*scripted
				hosts   []string
			)
			for _, script := range tt.servers {
				s := newScripted(t, script)
				servers, hosts = append(servers, s), append(hosts, "127.0.0.1:"+s.port())
			}
			conn, err := proxy.Connect(t.Context(), "postgres://app:"+password+"@"+strings.Join(hosts, ",")+"/orders?target_session_attrs=prefer-standby")
			if err != nil {
				t.Fatal(err)
			}
			if got := conn.PgConn().Conn().RemoteAddr().String(); got != servers[tt.want].listener.Addr().String() {
				t.Fatalf("connected to %s of %q", got, hosts)
			}
			for i, s := range servers {
				if n := s.accepted.Load(); n != tt.logins[i] {
					t.Errorf("%d logins to server %d, want %d", n, i, tt.logins[i])
				}
				for i != tt.want && s.open.Load() > 0 { // what is not used is closed
					time.Sleep(time.Millisecond)
				}
			}
			if _, err := conn.Exec(t.Context(), "select pg_is_in_recovery()", pgx.QueryExecModeSimpleProtocol); err != nil {
				t.Error(err)
			}
			_ = conn.Close(t.Context())
		})
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	s := serveScripted(t, l, login)
	pool := newPool(t, "host="+dir+" user=app dbname=orders")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	conn, err := pool.Acquire(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Conn().PgConn().CancelRequest(ctx); err != nil {
		t.Error(err)
	}
	if s.cancels.Load() != 1 {
		t.Errorf("%d CancelRequests", s.cancels.Load())
	}
	conn.Release()
}

func TestAWriterEndpointThatLeadsToAReader(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	s := newScripted(t, func(d *dialogue) {
		if _, err := d.startup(); err != nil {
			return
		}
		standby := "on"
		if asked.Add(1) > 3 {
			standby = "off"
		}
		d.Send(&pgproto3.AuthenticationOk{})
		d.Send(&pgproto3.ParameterStatus{Name: "in_hot_standby", Value: standby})
		d.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		_ = d.Flush()
		msg, err := d.Receive()
		if _, ok := msg.(*pgproto3.Query); !ok || err != nil {
			return
		}
		d.Send(&pgproto3.ErrorResponse{Severity: "ERROR", Code: "25006", Message: "cannot execute INSERT in a read-only transaction"})
		d.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		_ = d.Flush()
		silent(d)
	})
	dsn := "postgres://app:" + password + "@" + clusterHost + ":" + s.port() + "/orders"
	pool := newPool(t, dsn, trusted(t), proxy.WithLookup(loopback))
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if asked.Load() != 4 {
		t.Errorf("%d connects, want 3 that find a reader and one that does not", asked.Load())
	}
	if _, err := conn.Exec(t.Context(), "insert into t values (1)"); err == nil {
		t.Error("no error")
	}
	if !conn.Conn().IsClosed() {
		t.Error("a connection that turned read-only stays in the pool")
	}
	conn.Release()
}

func TestOfSeveralHostsTheHopefulOneDecides(t *testing.T) {
	t.Parallel()
	denied := newScripted(t, refuse("42501", "permission denied for database"))
	var asked atomic.Int64
	starting := newScripted(t, func(d *dialogue) {
		if asked.Add(1) <= 2 {
			refuse("57P03", "the database system is starting up")(d)
			return
		}
		login(d)
	})
	pool := newPool(t, "postgres://app:x@127.0.0.1:"+denied.port()+",127.0.0.1:"+starting.port()+"/orders")
	if err := pool.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if denied.accepted.Load() != 3 || asked.Load() != 3 {
		t.Errorf("%d and %d attempts, want 3 of each host", denied.accepted.Load(), asked.Load())
	}
}

// slowWrites makes pgconn start its background reader, which it does when a write
// takes longer than 15 ms. The answer arrives meanwhile, and the reader goes on to wait
// for more.
type slowWrites struct{ net.Conn }

func (c slowWrites) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	time.Sleep(40 * time.Millisecond)
	return n, err
}

// A background read that was under way when the connection was handed over must not
// swallow the answers that follow.
func TestNoAnswerIsLostToABackgroundRead(t *testing.T) {
	t.Parallel()
	s := newScripted(t, login)
	pool := newPool(t, s.dsn(), proxy.WithMaxConns(8), proxy.WithConnectLimit(8), proxy.WithDialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		return slowWrites{conn}, err
	}))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			conn, err := pool.Acquire(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Release()
			for range 5 {
				if _, err := conn.Exec(ctx, "-- hello"); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
