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
// What comes back is pgx's own *pgxpool.Pool or *pgx.Conn, for sqlc, River, pgxlisten and
// whatever else takes them. GORM, Bun and ent want a *sql.DB: [OpenDB] makes one, and
// [OpenDBFromPool] one over a pool, where pgx's stdlib would let database/sql run a
// statement again that the server may have received.
//
// The package's work happens below: in the pool's dial function, which performs the
// whole connect, retries included, and hands pgx a connection that is ready. No
// statement is ever sent on its own behalf to a proxy. A cluster's instance may be
// asked for its role, where it does not tell by itself (before PostgreSQL 14, and for
// a minute after a write was refused as read-only), and, with [WithTopology], for the
// other instances.
//
// # Straight to a cluster
//
// A pool on a cluster endpoint uses connections to the writer and no others. A server in
// recovery is not taken; a write that is refused as read-only (25006), or a writer that is found
// elsewhere, costs the idle connections to the old one before a statement fails on them. A peer
// that vanishes without a word is given up after 5 s ([WithPeerTimeout]), a name that leads
// elsewhere while a connect waits is followed at once, and [WithTopology] does not wait for the name.
//
// On a reader endpoint (cluster-ro-) each connect goes to whichever reader the name leads to; AWS
// spreads them, and the pool's limited lifetime spreads them anew when readers come and go. If
// there is no reader the name leads to the writer, and so does the pool
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/Aurora.Overview.Endpoints.html).
// Writes that are refused there are the application's mistake: the connection stays.
//
// # When it does not connect
//
// A [*ConnectError] ends in the likely reason and what to do, and its Case is a name in the
// catalogue, FAILURES.md. [Check] walks the same way step by step, and from a shell
// "aurorapgx check URL" does.
//
// # What it tells
//
// [WithLogger] and [WithObserver] are told of connects and each of their attempts, of credentials and
// rotations, of connections that are dropped and of failovers: see package observe, which also lists the
// keys of what is logged.
package proxy

import (
	"context"
	"errors"
	"maps"
	"net"
	"os"
	"strings"

	"github.com/jackc/pgx/v5"
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
//
// One more keyword takes user name and password from AWS Secrets Manager:
// secret=NAME, or its ARN, as in
//
//	postgres://app.proxy-abc.eu-west-1.rds.amazonaws.com/orders?secret=prod/orders
//	postgres:///?secret=prod/orders
//
// It is read as [secrets.FromManager] does, in the ARN's region, or the host's, or the
// AWS configuration's, and with the credentials of [WithAWSConfig]. If the string lacks
// host or database, as the second one does, they come from the secret, port included.
// Then, and only then, NewPool waits: for that secret, within ctx and for 4 s at most. The
// same holds for [WithCredentials] with a source that knows them.
func NewPool(ctx context.Context, connString string, opts ...Option) (*pgxpool.Pool, error) {
	cfg, err := parse(ctx, connString, opts)
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
	r, err := read(ctx, connString, opts)
	if err != nil {
		return nil, err
	}
	if err := configure(r.cfg, r.options, r.settings); err != nil {
		return nil, err
	}
	return connectThrough(ctx, r.cfg.ConnConfig, r.options.tracer)
}

// connectThrough makes a connection of a configuration that a connector is installed in, with
// the user's tracer: the one in it serves pools alone.
func connectThrough(ctx context.Context, cfg *pgx.ConnConfig, tracer pgx.QueryTracer) (*pgx.Conn, error) {
	cfg.Tracer = tracer
	var failed error
	dial := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if network == "tcp" || network == "unix" {
			failed = err
		}
		return conn, err
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
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
		o.errs = append(o.errs, &ConfigError{Source: "WithIAM", Problem: "it excludes WithCredentials", Fix: "leave one of the two out", trouble: twoLogins})
	}
	if source, ok := o.source.(interface{ Validate() error }); ok {
		if err := source.Validate(); err != nil {
			problem, fix := err.Error(), "correct the source"
			if e, ok := errors.AsType[*secrets.Error](err); ok {
				problem, fix = "secret "+quote(e.Secret)+": "+e.Problem, e.Fix
			}
			o.fail("WithCredentials", problem, fix)
		}
	}
	return o, errors.Join(o.errs...)
}

// parse reads the connection string, lets the environment fill its gaps, and builds a
// configuration of it.
func parse(ctx context.Context, connString string, opts []Option) (*pgxpool.Config, error) {
	r, err := read(ctx, connString, opts)
	if err != nil {
		return nil, err
	}
	return r.cfg, configure(r.cfg, r.options, r.settings)
}

// reading is a connection string that has been read, and is well-formed.
type reading struct {
	options  *options
	settings settings
	cfg      *pgxpool.Config
}

func read(ctx context.Context, connString string, opts []Option) (*reading, error) {
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
	if err := s.takeSecret(o); err != nil {
		return nil, err
	}
	if err := s.fillFromSecret(ctx, o); err != nil {
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
	return &reading{options: o, settings: s, cfg: cfg}, nil
}

// pgxConfig lets pgx read the settings. Those that this package sees to itself are
// overridden, so that pgx does not take them from the environment.
func (s settings) pgxConfig() (*pgxpool.Config, error) {
	forPgx := settings{"port": {"5432", ""}, "passfile": {}}
	maps.Copy(forPgx, s)
	forPgx["password"] = setting{} // pgx would show it in ConnString
	if s.has("password") {
		forPgx["passfile"] = setting{}
	}
	if s.get("sslmode") == "verify-full" || s.get("sslmode") == "disable" {
		forPgx["sslrootcert"] = setting{} // see trust
	}
	cfg, err := pgxpool.ParseConfig(forPgx.keywordValue())
	if err != nil {
		return nil, badString("pgx refuses it: "+withoutString(err), "")
	}
	if s.has("password") {
		cfg.ConnConfig.Password = s.get("password")
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
