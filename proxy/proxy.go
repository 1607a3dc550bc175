// Package proxy opens pgx connections to Amazon Aurora PostgreSQL, through RDS Proxy
// or straight to a cluster, in a way that survives cold starts, failovers and
// expiring credentials, and never does what makes the proxy pin a session.
//
//	pool, err := proxy.NewPool(ctx, os.Getenv("DATABASE_URL"))
//
// The host decides what happens. An RDS endpoint without a password in the
// connection string logs in with an IAM token, signed anew for every connection; TLS
// verifies chain and host name. A local server with a password is just that, so the
// same line serves a laptop, a Lambda function and an ECS service.
//
// What comes back is pgx's own *pgxpool.Pool or *pgx.Conn, for sqlc, River, GORM, ent
// and whatever else takes them. The package's work happens below: in the pool's dial
// function, which performs the whole connect, retries included, and hands pgx a
// connection that is ready. No statement is ever sent on its own behalf.
package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"maps"
	"net"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/secrets"
)

// NewPool opens a pool. It checks everything that can be checked without the network
// and fails with a [*ConfigError] that names what is wrong, where it came from and
// what to write instead; it does not wait for the server, so it succeeds while the
// server is still starting.
//
// The pool connects when it is first used. A connect that fails in a way that another
// attempt may cure (nothing listens, no DNS entry yet, a server starting up, a full
// proxy) is tried again until its budget ends ([WithConnectBudget]); callers wait for
// as long as their context lets them. While the endpoint does not answer, one connect
// of the pool goes on trying and the others wait for it. A failure that will not go
// away (a rejected password, an unknown database, a certificate that does not verify)
// is returned at once as a [*ConnectError].
//
// connString is a URL or keyword=value pairs as libpq and pgx take them, with pgx's
// pool_* and cache keywords, and with libpq's hostaddr, which pgx itself does not
// know: an address to dial instead of resolving the host. The environment's PG*
// variables cannot change server, user, database, or weaken anything; where they
// fill a gap they are checked like the string itself.
func NewPool(ctx context.Context, connString string, opts ...Option) (*pgxpool.Pool, error) {
	cfg, err := parse(connString, opts)
	if err != nil {
		return nil, err
	}
	return pgxpool.NewWithConfig(ctx, cfg)
}

// Connect opens a single connection, for work that needs a session of its own, such
// as LISTEN or a migration, preferably on a cluster endpoint: through RDS Proxy such
// a session is pinned. It takes the same connection strings and options as [NewPool]
// and retries the same way, until its budget or ctx ends.
func Connect(ctx context.Context, connString string, opts ...Option) (*pgx.Conn, error) {
	cfg, err := parse(connString, opts)
	if err != nil {
		return nil, err
	}
	cfg.ConnConfig.Tracer = nil // it serves the pool alone
	var failed error
	dial := cfg.ConnConfig.DialFunc
	cfg.ConnConfig.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if network == "tcp" || network == "unix" {
			failed = err
		}
		return conn, err
	}
	conn, err := pgx.ConnectConfig(ctx, cfg.ConnConfig)
	if failed != nil {
		return nil, failed // pgx keeps no more than "timeout" of an error that a deadline is part of
	}
	return conn, err
}

// Configure does to an existing configuration what [NewPool] does to a connection
// string, for callers that set hooks, tracers or limits of their own. Hooks that are
// set are called as before; a BeforeConnect hook that sets user or password decides
// them. A plaintext fallback is removed, and TLS to an RDS endpoint that does not
// verify the server is replaced by TLS that does. Pool limits that have pgxpool's
// default values are replaced by the preset's.
//
// cfg must come from pgxpool.ParseConfig. It is changed in place, and unusable if
// Configure fails. Configure it once.
func Configure(cfg *pgxpool.Config, opts ...Option) error {
	if cfg == nil || cfg.ConnConfig == nil {
		return &ConfigError{Source: "Configure", Problem: "the configuration is nil", Fix: "pass what pgxpool.ParseConfig returns"}
	}
	o, err := collect(opts)
	if err != nil {
		return err
	}
	return configure(cfg, o, settings{})
}

func collect(opts []Option) (*options, error) {
	o := &options{preset: servicePreset}
	for i, opt := range opts {
		if opt == nil {
			o.fail("options", "option "+quote(string(rune('1'+i)))+" is nil", "leave it out")
			continue
		}
		opt(o)
	}
	if o.source != nil && o.iam {
		o.fail("WithIAM", "it excludes WithCredentials", "leave one of the two out")
	}
	return o, errors.Join(o.errs...)
}

// parse reads the connection string, lets the environment fill its gaps, and builds a
// configuration of it.
func parse(connString string, opts []Option) (*pgxpool.Config, error) {
	o, err := collect(opts)
	if err != nil {
		return nil, err
	}
	s, err := parseConnString(connString)
	if err != nil {
		return nil, err
	}
	if err := s.addEnvironment(os.LookupEnv); err != nil {
		return nil, err
	}
	rds, local, err := s.checkHosts(o)
	if err != nil {
		return nil, err
	}
	if !rds && o.source == nil && !o.iam {
		s.addPassword(os.LookupEnv)
	}
	if err := s.checkLogin(o, rds); err != nil {
		return nil, err
	}
	if err := s.checkSSLMode(rds, local, o.iam); err != nil {
		return nil, err
	}
	cfg, err := s.pgxConfig()
	if err != nil {
		return nil, err
	}
	return cfg, configure(cfg, o, s)
}

// pgxConfig lets pgx read the settings. Those that this package sees to itself are
// overridden, so that pgx does not take them from the environment.
func (s settings) pgxConfig() (*pgxpool.Config, error) {
	forPgx := settings{"port": {"5432", ""}, "password": {}, "passfile": {}}
	maps.Copy(forPgx, s)
	if s.get("sslmode") == "verify-full" || s.get("sslmode") == "disable" {
		forPgx["sslrootcert"] = setting{} // see trust
	}
	cfg, err := pgxpool.ParseConfig(forPgx.keywordValue())
	if err != nil {
		return nil, badString("pgx refuses it: "+withoutString(err), "")
	}
	cfg.ConnConfig.User = s.get("user") // where pgx would fall back to PGUSER and the operating system
	return cfg, nil
}

// withoutString is pgx's parse error without the connection string, whose password it
// redacts as well as it can.
func withoutString(err error) string {
	text := err.Error()
	if i := strings.LastIndex(text, "`: "); i >= 0 {
		return text[i+len("`: "):]
	}
	return "it cannot be parsed"
}

// configure wires a connector into cfg.
func configure(cfg *pgxpool.Config, o *options, s settings) error {
	conn := cfg.ConnConfig
	if o.execMode != nil {
		conn.DefaultQueryExecMode = *o.execMode
	}
	addrs := conn.RuntimeParams["hostaddr"]
	delete(conn.RuntimeParams, "hostaddr")
	targets, err := findTargets(&conn.Config, o, s, addrs)
	if err != nil {
		return err
	}
	first := targets[0].endpoint.Kind
	conn.RuntimeParams, err = checkParameters(first, conn.RuntimeParams, s.sourceOf)
	if err != nil {
		return err
	}
	if err := checkProtocol(&conn.Config, first, s); err != nil {
		return err
	}
	c := &connector{
		targets: targets,
		login:   newLogin(&conn.Config, o, first),
		lookup:  conn.LookupFunc,
		dialNet: conn.DialFunc,
		log:     o.logger,
		attempt: orElse(o.attempt, o.preset.attempt),
		budget:  orElse(o.budget, o.preset.budgetFor(first)),
		gate:    newGate(orElse(o.connects, o.preset.connects)),
	}
	if c.login.iam != nil {
		if err := checkIAM(&conn.Config, targets, c.login.iam, s); err != nil {
			return err
		}
	}
	if o.attempt == nil && conn.ConnectTimeout > 0 {
		c.attempt = conn.ConnectTimeout
	}
	if o.lookup != nil {
		c.lookup = o.lookup
	}
	if o.dial != nil {
		c.dialNet = o.dial
	} else if len(s) > 0 { // from a connection string: pgx's own dialer, which nobody chose
		c.dialNet = (&net.Dialer{KeepAliveConfig: keepAlive}).DialContext
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.base = attemptConfig(&conn.Config)
	c.install(cfg)
	o.limit(cfg, first, s)
	return nil
}

// keepAlive notices a dead peer within half a minute, where the kernel's defaults
// take hours on an idle connection.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

func (p preset) budgetFor(k Kind) time.Duration {
	if k.IsRDS() && !k.IsProxy() {
		return p.budgetDirect
	}
	return p.budget
}

// attemptConfig is what the connects themselves use: the user's settings without what
// belongs to the connection that pgx makes of the result.
func attemptConfig(outer *pgconn.Config) *pgconn.Config {
	inner := outer.Copy()
	inner.Password, inner.Fallbacks, inner.ConnectTimeout = "", nil, 0
	inner.AfterConnect, inner.OnNotice, inner.OnNotification = nil, nil, nil
	return inner
}

// newLogin decides where user name and password come from.
func newLogin(cfg *pgconn.Config, o *options, kind Kind) login {
	l := login{user: cfg.User}
	switch {
	case o.source != nil:
		l.source = func(ctx context.Context, _ target, _ string) (secrets.Credentials, error) {
			return o.source.Credentials(ctx)
		}
		if r, ok := o.source.(secrets.Rejected); ok {
			l.rejected = r.Rejected
		}
	case o.iam, kind.IsRDS() && cfg.Password == "":
		l.iam = newIAMSigner(o.awsConfig, o.region)
		l.source = l.iam.token
		l.rejected = func(ctx context.Context, _ secrets.Credentials) { l.iam.invalidate(ctx) }
	default:
		l.source, l.fixed = staticLogin(cfg.User, cfg.Password), true
	}
	return l
}

func staticLogin(user, password string) func(context.Context, target, string) (secrets.Credentials, error) {
	return func(context.Context, target, string) (secrets.Credentials, error) {
		return secrets.Credentials{User: user, Password: password}, nil
	}
}

// install replaces the parts of cfg that open connections, keeping the user's hooks.
func (c *connector) install(cfg *pgxpool.Config) {
	conn := cfg.ConnConfig
	shown := c.targets[0].tls
	password, tracer, before, after := conn.Password, conn.Tracer, cfg.BeforeConnect, conn.AfterNetConnect

	// The login below is one without TLS and password: both are done when pgx sees the
	// connection. The connection's own Config shows the TLS settings that were used.
	conn.TLSConfig, conn.Fallbacks, conn.Password = nil, nil, ""
	conn.ChannelBinding, conn.RequireAuth, conn.SSLCertMode = "", "", ""
	conn.ValidateConnect = nil
	conn.ConnectTimeout = c.budget + time.Second // the loop ends by itself; this is for callers that look
	conn.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	conn.DialFunc = c.dialer(c.login)
	conn.AfterNetConnect = func(ctx context.Context, config *pgconn.Config, nc net.Conn) (net.Conn, error) {
		config.TLSConfig = shown
		if after == nil {
			return nc, nil
		}
		return after(ctx, config, nc)
	}
	if c.targets[0].endpoint.Kind == KindWriter {
		conn.OnPgError = rejectReadOnly(conn.OnPgError)
	}
	cfg.BeforeConnect = func(ctx context.Context, cc *pgx.ConnConfig) error {
		who := c.login
		if before != nil {
			cc.Password = password
			if err := before(ctx, cc); err != nil {
				return err
			}
			who = c.login.changedBy(cc, conn.User, password)
			cc.Password = ""
		}
		_, who.unasked = ctx.Deadline()
		cc.DialFunc = c.dialer(who)
		cc.Tracer = tracer // the pool's tracer below is for Acquire, not for statements
		return nil
	}
	conn.Tracer = c.traceAcquire(tracer)
}

// changedBy is the login after a BeforeConnect hook: a user or password that the hook
// set is used as it is.
func (l login) changedBy(cc *pgx.ConnConfig, user, password string) login {
	if cc.User != user || cc.Password != password {
		l = login{source: staticLogin(cc.User, cc.Password), fixed: true}
	}
	l.user, l.database, l.params = cc.User, cc.Database, cc.RuntimeParams
	return l
}

// rejectReadOnly closes a connection whose server says it is read-only (25006): after
// a failover the old writer answers so for as long as anybody keeps talking to it.
func rejectReadOnly(next pgconn.PgErrorHandler) pgconn.PgErrorHandler {
	return func(pc *pgconn.PgConn, e *pgconn.PgError) bool {
		keep := next == nil || next(pc, e)
		return keep && e.Code != "25006"
	}
}

// dialer is the pgconn.DialFunc for connections of one login.
func (c *connector) dialer(who login) pgconn.DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if network == cancelTCP4 || network == cancelTCP6 || network == cancelUnix {
			return c.dialCancel(ctx, network, addr)
		}
		conn, _, err := c.dial(ctx, who)
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
}

var errNoCancel = errors.New("no CancelRequest is sent here")

// cancelTimeout bounds a CancelRequest, during which the pool counts the connection
// as in use. pgx would wait 15 s.
const cancelTimeout = 2 * time.Second

// dialCancel opens the connection for a CancelRequest: bare, without a login, and
// not at all towards RDS Proxy, which ignores it
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.html).
func (c *connector) dialCancel(ctx context.Context, network, addr string) (net.Conn, error) {
	t := c.targets[0]
	if t.endpoint.Kind.IsProxy() {
		return nil, errNoCancel
	}
	if network == cancelUnix {
		network, addr = pgconn.NetworkAddress(t.endpoint.Host, t.port)
	} else {
		network = "tcp"
	}
	ctx, cancel := context.WithTimeout(ctx, cancelTimeout)
	defer cancel()
	conn, err := c.dialNet(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(cancelTimeout))
	if t.tls == nil {
		return conn, nil
	}
	if err := requestTLS(conn); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return tls.Client(conn, t.tls), nil
}

// requestTLS sends SSLRequest and reads the one-byte answer.
// https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL
func requestTLS(conn net.Conn) error {
	if _, err := conn.Write([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := conn.Read(answer[:]); err != nil {
		return err
	}
	if answer[0] != 'S' {
		return errors.New("server refused TLS connection")
	}
	return nil
}
