package proxy_test

import (
	"context"
	"crypto/tls"
	"errors"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/secrets"
)

const (
	proxyHost   = "app.proxy-0123456789ab.eu-west-1.rds.amazonaws.com"
	clusterHost = "orders.cluster-0123456789ab.eu-west-1.rds.amazonaws.com"
	// password is what no error may show.
	password = "s3cr3t-hunter2"
)

// noDial fails the test if anything is dialled or looked up.
func noDial(t *testing.T) []proxy.Option {
	t.Helper()
	return []proxy.Option{
		proxy.WithDialer(func(context.Context, string, string) (net.Conn, error) {
			t.Error("dialled")
			return nil, errors.New("dialled")
		}),
		proxy.WithLookup(func(context.Context, string) ([]string, error) {
			t.Error("looked up")
			return nil, errors.New("looked up")
		}),
	}
}

// malformed is one wrong input, with what its error must name.
type malformed struct {
	name   string
	conn   string
	opts   []proxy.Option
	env    map[string]string
	source string // where the error must say it came from
	want   string // and what it must say
}

func malformedInputs(t *testing.T) []malformed {
	t.Helper()
	static := proxy.WithCredentials(secrets.Static("app", password))
	noCA := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(noCA, []byte("nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	iam := "postgres://app@" + proxyHost + "/orders"
	direct := "postgres://app@" + clusterHost + "/orders"
	local := "postgres://app:" + password + "@localhost/orders"
	return []malformed{
		{name: "empty", conn: "", source: "connection string", want: "DATABASE_URL"},
		{name: "blank", conn: " \t\n", source: "connection string", want: "empty"},
		{name: "NUL", conn: local + "\x00", source: "connection string", want: "NUL"},
		{name: "other scheme", conn: "mysql://app:" + password + "@h/orders", source: "connection string", want: "not PostgreSQL's"},
		{name: "no pairs", conn: "orders " + password, source: "connection string", want: "neither a URL nor"},
		{name: "open quote", conn: "host=localhost user=app password='" + password, source: "connection string", want: "closing"},
		{name: "secret, no name", conn: "postgres://" + proxyHost + "/orders?secret=", source: "connection string", want: "secret=prod/orders"},
		{name: "secret, not a name", conn: "postgres://" + proxyHost + "/orders?secret=prod%20orders", source: "connection string", want: "name or the ARN"},
		{name: "secret and password", conn: local + "?secret=prod/orders", source: "connection string", want: "has a password and names a secret"},
		{name: "secret and source", conn: "postgres://" + proxyHost + "/orders?secret=prod/orders", opts: []proxy.Option{static}, source: "connection string", want: "WithCredentials supplies credentials"},
		{name: "secret and IAM", conn: "postgres://" + proxyHost + "/orders?secret=prod/orders", opts: []proxy.Option{proxy.WithIAM("")}, source: "connection string", want: "WithIAM signs tokens"},
		{name: "secret and parameter", conn: "postgres://" + proxyHost + "/orders?secret=prod/orders&statement_timeout=5s", source: "connection string", want: "statement_timeout"},
		{name: "nil Secrets Manager client", conn: "postgres://" + proxyHost + "/orders", opts: []proxy.Option{proxy.WithCredentials(secrets.FromManager(nil, "x"))}, source: "WithCredentials", want: "client is nil"},
		{name: "negative retirement", conn: local, opts: []proxy.Option{proxy.WithRetirement(-1)}, source: "WithRetirement", want: "0 or more"},
		{name: "no host", conn: "postgres:///orders", source: "connection string", want: "names no host"},
		{name: "no user", conn: "postgres://" + proxyHost + "/orders", source: "connection string", want: "names no user"},
		{name: "no database", conn: "postgres://app@" + proxyHost, source: "connection string", want: "names no database"},
		{name: "at sign in password", conn: "postgres://app:p@" + password + "@localhost/orders", source: "connection string", want: "%40"},
		{name: "slash in password", conn: "postgres://app:" + password + "/x@localhost/orders", source: "connection string", want: "%2F"},
		{name: "question mark in password", conn: "postgres://app:x?" + password + "@localhost/orders", source: "connection string", want: "%3F"},
		{name: "no at sign", conn: "postgres://app:" + password, source: "connection string", want: "1 to 65535"},
		{name: "bad escape", conn: "postgres://app:" + password + "%zz@localhost/orders", source: "connection string", want: "percent-encoded"},
		{name: "two colons", conn: "postgres://localhost:" + password + ":5432/orders", source: "connection string", want: "more than one colon"},
		{name: "open bracket", conn: "postgres://app@[2001:db8::1/orders", source: "connection string", want: "bracket"},
		{name: "slash in database", conn: "postgres://app@localhost/orders/archive", source: "connection string", want: "slash"},
		{name: "parameter without value", conn: local + "?application_name", source: "connection string", want: "no value"},
		{name: "port zero", conn: "postgres://app@localhost:0/orders", source: "connection string", want: "1 to 65535"},
		{name: "port too large", conn: "postgres://app@localhost:65536/orders", source: "connection string", want: "1 to 65535"},
		{name: "port no number", conn: "host=localhost port=https user=app dbname=orders", source: "connection string", want: "1 to 65535"},
		{name: "more ports than hosts", conn: "host=a.example,b.example port=1,2,3 user=app dbname=orders", source: "connection string", want: "2 hosts and 3 values of port"},
		{name: "misspelt RDS host", conn: "postgres://app@app.proxy-abc.eu-west-1.rds.amazonaws.con/orders", source: "host", want: "does not end like one"},
		{name: "RDS and other hosts", conn: "postgres://app@" + clusterHost + ",localhost/orders", source: "connection string", want: "some are not"},
		{name: "host with a space", conn: "host='a b' user=app dbname=orders", source: "host", want: "character"},
		{name: "hostaddr a name", conn: iam + "?hostaddr=localhost", source: "connection string", want: "numeric address"},
		{name: "misspelt keyword", conn: local + "?sslmod=disable", source: "connection string", want: "sslmode"},
		{name: "misspelt pool keyword", conn: local + "?pool_max_con=3", source: "connection string", want: "pool_max_conns"},
		{name: "JDBC keyword", conn: local + "?ssl=true", source: "connection string", want: "sslmode=verify-full"},
		{name: "service", conn: "service=orders host=localhost user=app dbname=orders", source: "connection string", want: "not supported"},
		{name: "pool size", conn: local + "?pool_max_conns=0", source: "connection string", want: "from 1"},
		{name: "duration without unit", conn: local + "?pool_max_conn_idle_time=30", source: "connection string", want: "unit"},
		{name: "exec mode", conn: local + "?default_query_exec_mode=fast", source: "connection string", want: "cache_statement"},
		{name: "connect_timeout", conn: local + "?connect_timeout=5s", source: "connection string", want: "whole number"},

		{name: "sslmode unknown", conn: local + "?sslmode=verify", source: "connection string", want: "verify-full"},
		{name: "sslmode prefer", conn: local + "?sslmode=prefer", source: "connection string", want: "falls back to plaintext"},
		{name: "RDS without TLS", conn: iam + "?sslmode=disable", source: "connection string", want: "sslmode=verify-full"},
		{name: "RDS without verification", conn: "postgres://app:" + password + "@" + clusterHost + "/orders?sslmode=require", source: "connection string", want: "prove who answers"},
		{name: "IAM without verification", conn: "postgres://app@db.example.com/orders?sslmode=require", opts: []proxy.Option{proxy.WithIAM("eu-west-1")}, source: "connection string", want: "IAM token"},
		{name: "no CA file", conn: direct + "?sslrootcert=/nonexistent.pem", source: "connection string", want: "cannot be read"},
		{name: "no certificate in CA file", conn: direct + "?sslrootcert=" + noCA, source: "connection string", want: "no certificate"},
		{name: "direct TLS to a proxy", conn: iam + "?sslnegotiation=direct", source: "connection string", want: "does not support"},

		{name: "options", conn: iam + "?options=-c%20statement_timeout%3D5s", source: "connection string", want: "initialization query"},
		{name: "statement_timeout", conn: iam + "?statement_timeout=5s", source: "connection string", want: "ALTER ROLE app SET statement_timeout"},
		{name: "read-only default", conn: iam + "?default_transaction_read_only=on", source: "connection string", want: "pgx.ReadOnly"},
		{name: "replication", conn: iam + "?replication=database", source: "connection string", want: "cluster endpoint"},
		{name: "parameter name", conn: iam + "?bad-name=1", source: "connection string", want: "no parameter name"},
		{name: "protocol 3.2", conn: iam + "?max_protocol_version=3.2", source: "connection string", want: "3.0 only"},
		{name: "channel binding", conn: iam + "?channel_binding=require", source: "connection string", want: "cannot succeed"},
		{name: "require_auth", conn: iam + "?require_auth=scram-sha-256", source: "connection string", want: "forbids IAM tokens"},
		{name: "token as password", conn: "postgres://app:x%2F%3FX-Amz-Signature%3D" + password + "@" + proxyHost + "/orders", source: "connection string", want: "token is signed for each"},

		{name: "PGOPTIONS", conn: iam, env: map[string]string{"PGOPTIONS": "-c statement_timeout=5s"}, source: "PGOPTIONS", want: "initialization query"},
		{name: "PGSSLMODE", conn: iam, env: map[string]string{"PGSSLMODE": "disable"}, source: "PGSSLMODE", want: "verify-full"},
		{name: "PGSSLMODE prefer", conn: "postgres://app:" + password + "@db.example.com/orders", env: map[string]string{"PGSSLMODE": "prefer"}, source: "PGSSLMODE", want: "weaken"},
		{name: "PGSSLMODE require", conn: "postgres://app:" + password + "@db.example.com/orders", env: map[string]string{"PGSSLMODE": "require"}, source: "PGSSLMODE", want: "weaken"},
		{name: "PGSSLMODE unknown", conn: iam, env: map[string]string{"PGSSLMODE": "on"}, source: "PGSSLMODE", want: "not valid"},
		{name: "PGREQUIREAUTH", conn: iam, env: map[string]string{"PGREQUIREAUTH": "scram-sha-256"}, source: "PGREQUIREAUTH", want: "forbids IAM tokens"},
		{name: "PGREQUIREAUTH negated", conn: iam, env: map[string]string{"PGREQUIREAUTH": "!password"}, source: "PGREQUIREAUTH", want: "forbids IAM tokens"},
		{name: "PGCHANNELBINDING", conn: iam, env: map[string]string{"PGCHANNELBINDING": "require"}, source: "PGCHANNELBINDING", want: "cannot succeed"},
		{name: "PGMAXPROTOCOLVERSION", conn: iam, env: map[string]string{"PGMAXPROTOCOLVERSION": "latest"}, source: "PGMAXPROTOCOLVERSION", want: "3.0 only"},
		{name: "PGSERVICE", conn: iam, env: map[string]string{"PGSERVICE": "orders"}, source: "PGSERVICE", want: "override"},
		{name: "PGSSLROOTCERT", conn: direct, env: map[string]string{"PGSSLROOTCERT": "/nonexistent.pem"}, source: "PGSSLROOTCERT", want: "cannot be read"},
		{name: "PGCONNECT_TIMEOUT", conn: iam, env: map[string]string{"PGCONNECT_TIMEOUT": "soon"}, source: "PGCONNECT_TIMEOUT", want: "whole number"},

		{name: "password and source", conn: local, opts: []proxy.Option{static}, source: "connection string", want: "WithCredentials"},
		{name: "password and IAM", conn: local, opts: []proxy.Option{proxy.WithIAM("eu-west-1")}, source: "connection string", want: "WithIAM"},
		{name: "source and IAM", conn: iam, opts: []proxy.Option{static, proxy.WithIAM("")}, source: "WithIAM", want: "excludes"},
		{name: "IAM without a region", conn: "postgres://app@db.example.com/orders", opts: []proxy.Option{proxy.WithIAM("")}, source: "WithIAM", want: "region"},
		{name: "IAM for another region", conn: iam, opts: []proxy.Option{proxy.WithIAM("us-east-1")}, source: "WithIAM", want: "eu-west-1"},
		{name: "IAM over a socket", conn: "host=/run/postgresql user=app dbname=orders", opts: []proxy.Option{proxy.WithIAM("eu-west-1")}, source: "WithIAM", want: "socket"},
		{name: "nil source", conn: iam, opts: []proxy.Option{proxy.WithCredentials(nil)}, source: "WithCredentials", want: "nil"},
		{name: "nil option", conn: iam, opts: []proxy.Option{nil}, source: "options", want: "nil"},
		{name: "AWS config without credentials", conn: iam, opts: []proxy.Option{proxy.WithAWSConfig(aws.Config{Region: "eu-west-1"})}, source: "WithAWSConfig", want: "credentials provider"},
		{name: "no roots", conn: direct, opts: []proxy.Option{proxy.WithRootCAs([]byte("nothing"))}, source: "WithRootCAs", want: "no certificate"},
		{name: "no connections", conn: iam, opts: []proxy.Option{proxy.WithMaxConns(0)}, source: "WithMaxConns", want: "at least 1"},
		{name: "no connects", conn: iam, opts: []proxy.Option{proxy.WithConnectLimit(-1)}, source: "WithConnectLimit", want: "at least 1"},
		{name: "no budget", conn: iam, opts: []proxy.Option{proxy.WithConnectBudget(0)}, source: "WithConnectBudget", want: "positive"},
		{name: "nanoseconds", conn: iam, opts: []proxy.Option{proxy.WithAttemptTimeout(5)}, source: "WithAttemptTimeout", want: "5*time.Second"},
		{name: "exec mode option", conn: iam, opts: []proxy.Option{proxy.WithExecMode(99)}, source: "WithExecMode", want: "99"},
		{name: "nil logger", conn: iam, opts: []proxy.Option{proxy.WithLogger(nil)}, source: "WithLogger", want: "nil"},
	}
}

// clearEnvironment makes the test independent of the PG* variables it was started with.
func clearEnvironment(t *testing.T) {
	t.Helper()
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "PG") {
			t.Setenv(name, "")
		}
	}
}

func TestMalformedInputFailsBeforeAnythingIsDialled(t *testing.T) {
	for _, tt := range malformedInputs(t) {
		t.Run(tt.name, func(t *testing.T) {
			clearEnvironment(t)
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			pool, err := proxy.NewPool(t.Context(), tt.conn, append(tt.opts, noDial(t)...)...)
			if err == nil {
				pool.Close()
				t.Fatal("no error")
			}
			t.Log(err)
			var cfgErr *proxy.ConfigError
			if !errors.As(err, &cfgErr) {
				t.Fatalf("%T is no ConfigError", err)
			}
			if cfgErr.Source != tt.source || cfgErr.Fix == "" || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error does not name %q and %q, or has no fix", tt.source, tt.want)
			}
			if strings.Contains(err.Error(), password) {
				t.Error("the error shows the password")
			}
		})
	}
}

func TestMalformedConfiguration(t *testing.T) {
	clearEnvironment(t)
	const rds = "postgres://app@" + clusterHost + "/orders?sslmode=verify-full"
	const viaProxy = "postgres://app@" + proxyHost + "/orders?sslmode=verify-full"
	tests := []struct {
		name, conn, want string
		change           func(*pgxpool.Config)
	}{
		{"TLS off", rds, "switched off", func(c *pgxpool.Config) { c.ConnConfig.TLSConfig = nil }},
		{"ancient TLS", rds, "older than TLS 1.2", func(c *pgxpool.Config) { c.ConnConfig.TLSConfig = &tls.Config{MaxVersion: tls.VersionTLS11} }},
		{"impossible TLS", rds, "MinVersion", func(c *pgxpool.Config) {
			c.ConnConfig.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS13, MaxVersion: tls.VersionTLS12}
		}},
		{"ECDSA only", viaProxy, "RSA", func(c *pgxpool.Config) {
			c.ConnConfig.TLSConfig = &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}
		}},
		{"post-quantum only", viaProxy, "post-quantum", func(c *pgxpool.Config) {
			c.ConnConfig.TLSConfig = &tls.Config{CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}}
		}},
		{"startup parameter", viaProxy, "statement_timeout", func(c *pgxpool.Config) { c.ConnConfig.RuntimeParams["statement_timeout"] = "5s" }},
		{"pgx's default sslmode", "postgres://app:" + password + "@db.example.com/orders", "sslmode=prefer", func(*pgxpool.Config) {}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg, err := pgxpool.ParseConfig(tt.conn)
			if err != nil {
				t.Fatal(err)
			}
			tt.change(cfg)
			err = proxy.Configure(cfg, noDial(t)...)
			var cfgErr *proxy.ConfigError
			if !errors.As(err, &cfgErr) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error about %q", err, tt.want)
			}
		})
	}
	if err := proxy.Configure(nil); err == nil {
		t.Error("a nil configuration gave no error")
	}
}

func TestConfigureReplacesUnverifiedTLSAndThePlaintextFallback(t *testing.T) {
	clearEnvironment(t)
	cfg, err := pgxpool.ParseConfig("postgres://app@" + proxyHost + "/orders") // sslmode=prefer, says pgx
	if err != nil {
		t.Fatal(err)
	}
	if err := proxy.Configure(cfg); err != nil {
		t.Fatal(err)
	}
	if len(cfg.ConnConfig.Fallbacks) != 0 {
		t.Error("a fallback is left")
	}
}

func TestPresetsAndWhatOverridesThem(t *testing.T) {
	clearEnvironment(t)
	const base = "postgres://app@" + proxyHost + "/orders"
	tests := []struct {
		name     string
		conn     string
		opts     []proxy.Option
		maxConns int32
		idle     time.Duration
		ping     time.Duration
	}{
		{"default", base, nil, 10, 5 * time.Minute, 2 * time.Second},
		{"service", base, []proxy.Option{proxy.Service()}, 10, 5 * time.Minute, 2 * time.Second},
		{"lambda", base, []proxy.Option{proxy.Lambda()}, 2, 5 * time.Minute, time.Second},
		{"string over preset", base + "?pool_max_conns=7&pool_max_conn_idle_time=9m", []proxy.Option{proxy.Lambda()}, 7, 9 * time.Minute, time.Second},
		{"option over preset, before it", base, []proxy.Option{proxy.WithMaxConns(3), proxy.Lambda()}, 3, 5 * time.Minute, time.Second},
		{"option over string", base + "?pool_max_conns=7", []proxy.Option{proxy.WithMaxConns(3)}, 3, 5 * time.Minute, 2 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pool, err := proxy.NewPool(t.Context(), tt.conn, append(tt.opts, noDial(t)...)...)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			cfg := pool.Config()
			if cfg.MaxConns != tt.maxConns || cfg.MaxConnIdleTime != tt.idle || cfg.PingTimeout != tt.ping {
				t.Errorf("%d connections, idle %s, ping %s", cfg.MaxConns, cfg.MaxConnIdleTime, cfg.PingTimeout)
			}
			if cfg.MinConns != 0 || cfg.MaxConnLifetime != 30*time.Minute || cfg.MaxConnLifetimeJitter == 0 {
				t.Errorf("min %d, lifetime %s, jitter %s", cfg.MinConns, cfg.MaxConnLifetime, cfg.MaxConnLifetimeJitter)
			}
			if cfg.ConnConfig.DefaultQueryExecMode != pgx.QueryExecModeCacheStatement {
				t.Error("pgx's statement cache is off")
			}
		})
	}
}

func TestTheEnvironmentCannotRedirectAPool(t *testing.T) {
	clearEnvironment(t)
	for name, value := range map[string]string{
		"PGHOST": "evil.example.com", "PGPORT": "6666", "PGUSER": "mallory", "PGDATABASE": "other",
		"PGPASSWORD": password, "PGPASSFILE": "/dev/null", "PGTZ": "UTC", "PGAPPNAME": "orders-api",
	} {
		t.Setenv(name, value)
	}
	pool, err := proxy.NewPool(t.Context(), "postgres://app@"+proxyHost+"/orders", noDial(t)...)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	cfg := pool.Config().ConnConfig
	if cfg.Host != proxyHost || cfg.Port != 5432 || cfg.User != "app" || cfg.Database != "orders" || cfg.Password != "" {
		t.Errorf("%s:%d as %s to %s", cfg.Host, cfg.Port, cfg.User, cfg.Database)
	}
	if cfg.RuntimeParams["TimeZone"] != "UTC" || cfg.RuntimeParams["application_name"] != "orders-api" || len(cfg.RuntimeParams) != 2 {
		t.Errorf("parameters %v", cfg.RuntimeParams)
	}
}

// The longest duration there is means no limit, and not a wrong one.
func TestTheLongestDurations(t *testing.T) {
	t.Parallel()
	const forever = time.Duration(math.MaxInt64)
	s := newScripted(t, login)
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(password), 0o600); err != nil {
		t.Fatal(err)
	}
	pool := newPool(t, "postgres://app@127.0.0.1:"+s.port()+"/orders", proxy.WithCredentials(secrets.FromFile(path)),
		proxy.WithRetirement(forever), proxy.WithConnectBudget(forever), proxy.WithAttemptTimeout(forever))
	if d := pool.Config().ConnConfig.ConnectTimeout; d != forever {
		t.Errorf("ConnectTimeout is %s", d)
	}
	if err := pool.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}
