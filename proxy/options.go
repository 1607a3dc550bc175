package proxy

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/jackc/pgx/v5"

	"github.com/aurorapgx/aurorapgx/observe"
	"github.com/aurorapgx/aurorapgx/secrets"
)

// Option changes how [NewPool], [Connect] and [Configure] work. Options may come in
// any order; of two that set the same thing the later wins, and a single option
// always wins over a preset.
type Option func(*options)

type options struct {
	preset preset

	source    secrets.Source
	iam       bool
	region    string
	awsConfig *aws.Config
	rootCAs   []byte // PEM
	logger    *slog.Logger
	observers []observe.Observer
	tracer    pgx.QueryTracer
	kind      *Kind
	execMode  *pgx.QueryExecMode
	dial      func(ctx context.Context, network, addr string) (net.Conn, error)
	lookup    func(ctx context.Context, host string) ([]string, error)
	maxConns  *int32
	budget    *time.Duration
	attempt   *time.Duration
	connects  *int
	failover  failoverOptions
	errs      []error

	retirement *time.Duration
}

// preset is a set of numbers that belong together. What they nest in, from RDS
// Proxy's defaults: a client connection lives at most 24 h and idles at most 30
// minutes; a borrow waits at most 2 minutes.
// Source: https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-connections.html
type preset struct {
	maxConns       int32
	maxLifetime    time.Duration
	lifetimeJitter time.Duration
	maxIdle        time.Duration
	healthCheck    time.Duration
	pingTimeout    time.Duration
	pingIdleProxy  time.Duration // ping a proxy connection that idled longer; 0 never
	connects       int
	attempt        time.Duration
	budget         time.Duration // through a proxy
	budgetDirect   time.Duration // to an RDS endpoint that may have to resume first
}

// Service is the preset for processes that stay up, on ECS, EKS or EC2, and the
// default:
//
//   - at most 10 connections, of which 4 are opened at a time;
//   - a connection lives 30 minutes plus up to 5 of jitter, so that a fleet does not
//     reconnect in step, and idles 5 minutes, well inside the proxy's 30;
//   - one connect attempt takes at most 5 s. Attempts go on for 30 s, and for 60 s
//     against a cluster or instance endpoint: a paused Aurora Serverless instance
//     needs 15 s to resume, and 30 s or more after a day
//     (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora-serverless-v2-auto-pause.html);
//   - a liveness ping takes at most 2 s; pgxpool has no limit of its own. Connections
//     to a proxy are not pinged but checked locally for a closed socket: the proxy
//     keeps them through a failover, and a ping would wait for the new writer and
//     then destroy them.
func Service() Option {
	return func(o *options) { o.preset = servicePreset }
}

var servicePreset = preset{
	maxConns: 10, maxLifetime: 30 * time.Minute, lifetimeJitter: 5 * time.Minute, maxIdle: 5 * time.Minute,
	healthCheck: 30 * time.Second, pingTimeout: 2 * time.Second, connects: 4,
	attempt: 5 * time.Second, budget: 30 * time.Second, budgetDirect: 60 * time.Second,
}

// Lambda is the preset for AWS Lambda functions, where one environment serves one
// invocation at a time, a thousand of them share the proxy, and the process is
// frozen in between:
//
//   - at most 2 connections, none opened before it is needed;
//   - pings after 10 s of idling, at most 1 s long, because a socket may have died
//     while nobody ran; time in which the environment was frozen counts, although the
//     monotonic clock stood still;
//   - otherwise as [Service].
func Lambda() Option {
	return func(o *options) {
		p := servicePreset
		p.maxConns, p.connects = 2, 2
		p.pingTimeout, p.pingIdleProxy = time.Second, 10*time.Second
		p.healthCheck = time.Minute
		o.preset = p
	}
}

// WithCredentials takes user name and password of each new connection from src. A
// user name it returns replaces the connection string's. It excludes a password or a
// secret in the connection string and [WithIAM].
//
// If the server refuses them, src is asked once more; a source that rotates
// ([secrets.Rotating], as [secrets.FromManager] and [secrets.FromFile] are) is asked until
// the connect's budget ends ([WithConnectBudget]). That is what sits out a rotation, and also
// what a wrong password in such a source takes to be reported.
func WithCredentials(src secrets.Source) Option {
	return func(o *options) {
		if src == nil {
			o.fail("WithCredentials", "the source is nil", "pass a secrets.Source, or leave the option out for IAM")
		}
		o.source = src
	}
}

// WithRetirement says within which time after a rotation the connections are closed
// that were opened with the old credentials, where the credentials come from a source
// that rotates ([secrets.Rotating]). Each is closed at a random moment within d, when it
// would next be handed out, and never while it is in use, nor while connects fail. 0
// closes them the next time. The rotation counts from the first connection with the new
// credentials. Default: 5 minutes. A d longer than connections live leaves them to that.
func WithRetirement(d time.Duration) Option {
	return func(o *options) {
		if d < 0 {
			o.fail("WithRetirement", fmt.Sprintf("%s is no duration to wait for", d), "give 0 or more, as 5*time.Minute")
		}
		o.retirement = &d
	}
}

const defaultRetirement = 5 * time.Minute

// WithIAM signs an IAM token for each new connection, also where the host is not an
// RDS endpoint, and names the region to sign for; "" takes the host's region, or
// the AWS configuration's. RDS hosts use IAM without this option if the connection
// string has no password.
func WithIAM(region string) Option {
	return func(o *options) { o.iam, o.region = true, region }
}

// WithAWSConfig supplies the AWS credentials that tokens are signed with, and the
// region for hosts that do not tell theirs. The default is the SDK's own chain
// (environment, shared files, ECS, EC2), loaded when the first token is signed.
func WithAWSConfig(cfg aws.Config) Option {
	return func(o *options) {
		if cfg.Credentials == nil {
			o.fail("WithAWSConfig", "the configuration has no credentials provider", "pass what config.LoadDefaultConfig returns")
		}
		o.awsConfig = &cfg
	}
}

// WithRootCAs trusts the certificates in pem, in addition to the system's and, for a
// proxy, Amazon's. Cluster and instance endpoints need the RDS bundle,
// https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem; sslrootcert in
// the connection string names the same as a file.
func WithRootCAs(pem []byte) Option {
	return func(o *options) {
		if !x509.NewCertPool().AppendCertsFromPEM(pem) {
			o.fail("WithRootCAs", "there is no certificate in it", "pass the contents of a PEM file")
		}
		o.rootCAs = append(o.rootCAs, pem...)
	}
}

// WithLogger reports connects, failed attempts, failovers, rotations, evictions and ignored
// settings, with the keys of package observe's documentation. The default is silence.
// Passwords and tokens are never logged.
func WithLogger(l *slog.Logger) Option {
	return func(o *options) {
		if l == nil {
			o.fail("WithLogger", "the logger is nil", "pass slog.Default(), or leave the option out for silence")
		}
		o.logger = l
	}
}

// WithObserver tells o what [WithLogger] logs: see [observe.Observer] for what it must bear. If it is
// also a pgxpool.AcquireTracer or a pgxpool.ReleaseTracer, the pool calls it as these. May be
// given more than once, for several of them. The default is nobody, and costs nothing.
func WithObserver(observer observe.Observer) Option {
	return func(o *options) {
		if observer == nil {
			o.fail("WithObserver", "the observer is nil", "leave the option out")
		}
		o.observers = append(o.observers, observer)
	}
}

// WithTracer gives pgx a tracer of statements, such as otelpgx's, beside the one of a configuration
// that has one already. It sees each connect as one; its attempts and what they failed of are for
// [WithObserver]. Default: none.
func WithTracer(t pgx.QueryTracer) Option {
	return func(o *options) {
		if t == nil {
			o.fail("WithTracer", "the tracer is nil", "leave the option out")
		}
		o.tracer = t
	}
}

// WithEndpointKind says what is behind a host whose name does not tell, such as a
// local proxy or a tunnel to one.
func WithEndpointKind(k Kind) Option {
	return func(o *options) { o.kind = &k }
}

// WithExecMode sets pgx's default query execution mode. pgx's own default, which
// caches named prepared statements, works through RDS Proxy without pinning since
// November 2023
// (https://aws.amazon.com/about-aws/whats-new/2023/11/amazon-rds-proxy-postgresql-extended-query-protocol);
// other poolers may need pgx.QueryExecModeCacheDescribe or QueryExecModeExec.
func WithExecMode(m pgx.QueryExecMode) Option {
	return func(o *options) {
		if m < pgx.QueryExecModeCacheStatement || m > pgx.QueryExecModeSimpleProtocol {
			o.fail("WithExecMode", fmt.Sprintf("%d is no query execution mode", m), "use one of pgx's QueryExecMode constants")
		}
		o.execMode = &m
	}
}

// WithDialer replaces the TCP dialer, for tunnels and tests. TLS, authentication and
// retries stay with this package, and so does the watch over a *net.TCPConn that it
// returns: see [WithPeerTimeout].
func WithDialer(dial func(ctx context.Context, network, addr string) (net.Conn, error)) Option {
	return func(o *options) {
		if dial == nil {
			o.fail("WithDialer", "the function is nil", "pass the DialContext method of a net.Dialer")
		}
		o.dial = dial
	}
}

// WithLookup replaces DNS. It returns numeric addresses, without ports. Names are
// looked up anew for every connect attempt.
func WithLookup(lookup func(ctx context.Context, host string) ([]string, error)) Option {
	return func(o *options) {
		if lookup == nil {
			o.fail("WithLookup", "the function is nil", "pass the LookupHost method of a net.Resolver")
		}
		o.lookup = lookup
	}
}

// WithMaxConns bounds the pool. Default: 10, with [Lambda] 2. pool_max_conns in the
// connection string does the same and is overruled by this.
func WithMaxConns(n int32) Option {
	return func(o *options) {
		if n < 1 {
			o.fail("WithMaxConns", fmt.Sprintf("%d connections are too few", n), "give at least 1")
		}
		o.maxConns = &n
	}
}

// WithConnectBudget bounds the time one connect may take with all its attempts.
// Default: 30 s, 60 s for cluster and instance endpoints. The caller's own context
// ends it earlier for [Connect], and for the caller's wait in a pool.
func WithConnectBudget(d time.Duration) Option {
	return func(o *options) {
		o.checkDuration("WithConnectBudget", d)
		o.budget = &d
	}
}

// WithAttemptTimeout bounds a single connect attempt: TCP, TLS, authentication.
// Default: 5 s. connect_timeout in the connection string does the same and is
// overruled by this.
func WithAttemptTimeout(d time.Duration) Option {
	return func(o *options) {
		o.checkDuration("WithAttemptTimeout", d)
		o.attempt = &d
	}
}

// WithConnectLimit bounds how many connects of a pool run at the same time.
// Default: 4, with [Lambda] 2. While the endpoint does not answer it is 1, whatever
// the limit: see [NewPool].
func WithConnectLimit(n int) Option {
	return func(o *options) {
		if n < 1 {
			o.fail("WithConnectLimit", fmt.Sprintf("%d connects at a time are too few", n), "give at least 1")
		}
		o.connects = &n
	}
}

func (o *options) fail(option, problem, fix string) {
	o.errs = append(o.errs, &ConfigError{Source: option, Problem: problem, Fix: fix})
}

func (o *options) checkDuration(option string, d time.Duration) {
	switch {
	case d <= 0:
		o.fail(option, fmt.Sprintf("%s is no duration to wait for", d), "give a positive one, as 30*time.Second")
	case d < time.Millisecond:
		o.fail(option, fmt.Sprintf("%s is too short to connect in", d), "durations are time.Duration: write 5*time.Second, not 5")
	}
}

// orElse is what an option says, or the preset if it says nothing.
func orElse[T any](option *T, preset T) T {
	if option != nil {
		return *option
	}
	return preset
}
