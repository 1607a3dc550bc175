package proxytest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aurorapgx/aurorapgx/observe"
)

// An Option changes one thing about a proxy from what [Start] would make it.
type Option func(*config)

// config is what the options add up to.
type config struct {
	host           string
	region         string
	listener       net.Listener
	accessKey      aws.Credentials
	passwords      map[string]string
	iamUsers       map[string]bool
	md5Users       map[string]bool
	clientAuth     ClientAuth
	maxConnections int
	borrowTimeout  time.Duration
	borrowReply    BorrowTimeoutReply
	idleTimeout    time.Duration
	clientLifetime time.Duration
	plaintext      bool
	setLocalPins   bool
	strict         bool
	failoverReply  FailoverReply
	initQuery      string
	dial           pgconn.DialFunc
	logger         *slog.Logger
	observer       observe.Observer
	onLogin        []func(Login)
	secrets        []func() (user, password string)
	secretRefresh  time.Duration
	staleSecret    StaleSecretReply
	reset          SessionReset
	maxClients     int
	clientRate     int
	iamRate        int
	readOnly       bool
	readers        []string
	endToEndIAM    bool
	endpointName   string
	clockScale     float64

	databaseIdle, databaseLifetime time.Duration
}

const defaultHost = "app.proxy-0123456789ab.eu-west-1.rds.amazonaws.com"

func newConfig(opts []Option) (config, error) {
	c := config{
		host:           defaultHost,
		passwords:      map[string]string{},
		iamUsers:       map[string]bool{},
		md5Users:       map[string]bool{},
		maxConnections: 10,
		borrowTimeout:  120 * time.Second,
		borrowReply:    BorrowTimeoutFatal,
		idleTimeout:    1800 * time.Second,
		clientLifetime: 24 * time.Hour,
		endpointName:   "default",
		clockScale:     1,

		databaseIdle: databaseIdleTimeout, databaseLifetime: 24 * time.Hour,
		logger: slog.New(slog.DiscardHandler),
	}
	for _, opt := range opts {
		opt(&c)
	}
	if c.host == "" {
		return c, errors.New("host name is empty")
	}
	if c.maxConnections < 1 {
		return c, fmt.Errorf("%d database connections: at least 1 is needed", c.maxConnections)
	}
	if c.clockScale < 1 {
		return c, fmt.Errorf("clock scale %g: at least 1 is needed", c.clockScale)
	}
	for _, d := range []*time.Duration{&c.idleTimeout, &c.clientLifetime, &c.databaseIdle, &c.databaseLifetime} {
		*d = time.Duration(float64(*d) / c.clockScale)
	}
	if c.region == "" {
		c.region = regionOf(c.host)
	}
	if c.accessKey.AccessKeyID == "" {
		c.accessKey = aws.Credentials{
			AccessKeyID:     "AKIA" + rand.Text()[:16],
			SecretAccessKey: rand.Text() + rand.Text()[:14],
			Source:          "proxytest",
		}
	}
	return c, nil
}

// regionOf reads the region out of an RDS host name (…REGION.rds.amazonaws.com[.cn]); a host that
// is none stands in the default host's region.
func regionOf(host string) string {
	labels := strings.Split(strings.ToLower(host), ".")
	for i, label := range labels {
		if i > 0 && label == "rds" && i+1 < len(labels) && labels[i+1] == "amazonaws" {
			return labels[i-1]
		}
	}
	return "eu-west-1"
}

// WithHost sets the host name the proxy stands for. Certificate and IAM tokens are for this name
// and no other, as a CNAME cannot be used with either
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/UsingWithRDS.IAMDBAuth.Connecting.html).
// The default is app.proxy-0123456789ab.eu-west-1.rds.amazonaws.com.
func WithHost(host string) Option { return func(c *config) { c.host = host } }

// WithRegion sets the AWS region. The default is the one in the host name, or eu-west-1 if the
// host name is not one of RDS.
func WithRegion(region string) Option { return func(c *config) { c.region = region } }

// WithListener makes the proxy accept on l, and close it in the end. An in-memory listener lets
// a test run in a testing/synctest bubble. The default is a free port of 127.0.0.1.
func WithListener(l net.Listener) Option { return func(c *config) { c.listener = l } }

// WithUser registers a secret: clients sign in as name with SCRAM-SHA-256 and this password, and
// the proxy signs in to the database with it. May be given for several users; see also
// [Proxy.SetUser]. By default the one secret is that of the backend DSN's user, who signs in with
// IAM; naming that user here makes it a SCRAM user, unless [WithIAMUser] names it too.
func WithUser(name, password string) Option {
	return func(c *config) { c.passwords[name] = password }
}

// WithIAMUser makes clients sign in to these database users with an IAM token. The proxy signs in
// to the database with the password from [WithUser], or else with the backend DSN's. The default
// is the backend DSN's user.
func WithIAMUser(names ...string) Option {
	return func(c *config) {
		for _, name := range names {
			c.iamUsers[name] = true
		}
	}
}

// WithMD5User makes clients sign in to these database users with an MD5-hashed password
// (ClientPasswordAuthType POSTGRES_MD5,
// https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_UserAuthConfig.html); [WithUser] has
// the password. How the proxy signs in to the database is the database's choice. The default is
// SCRAM-SHA-256.
func WithMD5User(names ...string) Option {
	return func(c *config) {
		for _, name := range names {
			c.md5Users[name] = true
		}
	}
}

// ClientAuth says how clients sign in.
type ClientAuth int

// The ways clients sign in; see [WithClientAuth].
const (
	AuthPerUser ClientAuth = iota // as WithUser and WithIAMUser say
	AuthIAM                       // every user with an IAM token
	AuthSCRAM                     // every user with a password, by SCRAM-SHA-256
	AuthMD5                       // every user with a password, by MD5
)

// WithClientAuth makes all users sign in the same way. The default is [AuthPerUser], since RDS
// Proxy keeps the setting with each secret
// (https://docs.aws.amazon.com/AmazonRDS/latest/APIReference/API_UserAuthConfig.html).
func WithClientAuth(mode ClientAuth) Option { return func(c *config) { c.clientAuth = mode } }

// WithAccessKey sets the AWS access key whose signatures the proxy accepts. If it has a session
// token, IAM tokens must carry that; if it expires, so does every token signed with it. The
// default is a random key for each proxy, without a session token.
func WithAccessKey(key aws.Credentials) Option { return func(c *config) { c.accessKey = key } }

// WithMaxConnections bounds the database connections of the proxy, over all users and databases:
// what MaxConnectionsPercent of max_connections comes to. The default is 10, small enough to meet
// queueing in a test and far below the 100 a fresh PostgreSQL allows.
func WithMaxConnections(n int) Option { return func(c *config) { c.maxConnections = n } }

// WithBorrowTimeout sets how long a statement waits for a database connection
// (ConnectionBorrowTimeout). With 0 it gets one that is ready in the pool, or an error. The
// default is 120 s, as it is with RDS Proxy
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-connections.html).
func WithBorrowTimeout(d time.Duration) Option { return func(c *config) { c.borrowTimeout = d } }

// BorrowTimeoutReply says what a client gets with the 08000 of a borrow timeout.
type BorrowTimeoutReply int

// The answers to a borrow timeout; see [WithBorrowTimeoutReply].
const (
	BorrowTimeoutFatal BorrowTimeoutReply = iota // severity FATAL, then the connection is closed
	BorrowTimeoutClose                           // severity ERROR, then the connection is closed
	BorrowTimeoutError                           // severity ERROR, and the connection can be used again
)

// WithBorrowTimeoutReply sets how a borrow timeout reaches the client. What RDS Proxy does is not
// documented. The default is [BorrowTimeoutFatal]: users report a lost connection and SQLSTATE
// 08000 together, and pgx shows the SQLSTATE of a connection that is closed only if it was FATAL.
func WithBorrowTimeoutReply(r BorrowTimeoutReply) Option {
	return func(c *config) { c.borrowReply = r }
}

// WithIdleClientTimeout sets how long after its previous request was completed a client may be without
// a new one before the proxy closes its connection (IdleClientTimeout); 0 means for ever. A client that waits
// for an answer, or for a database connection, is not idle. The default is 1800 s, as it is with RDS Proxy
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-connections.html).
func WithIdleClientTimeout(d time.Duration) Option { return func(c *config) { c.idleTimeout = d } }

// WithClientLifetime sets how long a client connection may live, busy or not; 0 means for ever.
// The default is 24 h, which RDS Proxy does not let anyone change
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-connections.html).
func WithClientLifetime(d time.Duration) Option { return func(c *config) { c.clientLifetime = d } }

// WithDatabaseIdleTimeout sets how long a database connection that nobody uses is kept; 0 means for
// ever. The default is 5 minutes, about what RDS Proxy does
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-connections.html).
func WithDatabaseIdleTimeout(d time.Duration) Option { return func(c *config) { c.databaseIdle = d } }

// WithDatabaseLifetime sets how old a database connection may be when it is given back, before it is
// closed instead of being lent again; 0 means for ever. The default is 24 h, about what RDS Proxy does
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-connections.html).
func WithDatabaseLifetime(d time.Duration) Option { return func(c *config) { c.databaseLifetime = d } }

// WithClockScale makes the proxy's hours pass faster: the idle timeouts and the lifetimes, those of
// clients and those of database connections, are divided by the factor. With 3600, the 24 h that a client
// connection may live are 24 s. The borrow timeout stays. The default is 1.
func WithClockScale(factor float64) Option { return func(c *config) { c.clockScale = factor } }

// WithEndpointName gives the endpoint a name, as an additional endpoint has one: in the log, and in the
// host name NAME.endpoint.proxy-… unless [WithHost] says another. Tokens have to be signed for that
// host. The default is the default endpoint.
func WithEndpointName(name string) Option {
	return func(c *config) {
		c.endpointName = name
		if rest, ok := strings.CutPrefix(c.host, "app."); ok && c.host == defaultHost {
			c.host = name + ".endpoint." + rest
		}
	}
}

// WithEndToEndIAM makes clients sign in with IAM as any database user, without a secret
// (DefaultAuthScheme IAM_AUTH,
// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-iam-setup.html). RDS Proxy
// signs a token of its own for the database; as no PostgreSQL outside AWS can check one, the proxy
// signs in with the backend DSN's password here, or with the one of [WithUser].
func WithEndToEndIAM() Option { return func(c *config) { c.endToEndIAM = true } }

// WithoutTLSRequired lets clients connect in plaintext, as RequireTLS=false does. IAM tokens are
// still refused outside TLS. The default is to require TLS.
func WithoutTLSRequired() Option { return func(c *config) { c.plaintext = true } }

// WithSetLocalPins makes SET LOCAL, SET TRANSACTION and SET CONSTRAINTS pin the session. AWS says "SET
// commands" pin, and elsewhere that SET LOCAL lasts for the transaction; the default is no pin, as the
// transaction keeps its database connection anyway.
func WithSetLocalPins() Option { return func(c *config) { c.setLocalPins = true } }

// FailoverReply says what a client in mid-transaction gets from a failover.
type FailoverReply int

// The answers to a failover; see [WithFailoverReply].
const (
	FailoverFatal FailoverReply = iota // FATAL 57P01, then the connection is closed
	FailoverClose                      // the connection is closed, no word said
)

// WithFailoverReply sets what clients in mid-transaction or mid-statement get from
// [Proxy.StartFailover]. Both answers have been seen with RDS Proxy; the default is
// [FailoverFatal]. A client that has a part of a message, and waits for the rest, is told nothing in
// either case.
func WithFailoverReply(r FailoverReply) Option { return func(c *config) { c.failoverReply = r } }

// WithInitQuery runs SQL on every new database connection, as the proxy's initialization query
// does: the place for SET statements that would pin a session. The default is none.
func WithInitQuery(sql string) Option { return func(c *config) { c.initQuery = sql } }

// WithBackendDialFunc sets how the proxy dials the database, for tests that make that network
// fail. The default is the backend DSN's.
func WithBackendDialFunc(dial pgconn.DialFunc) Option { return func(c *config) { c.dial = dial } }

// WithLogger sends the proxy's log to l, each message in the words RDS Proxy writes to its
// CloudWatch log group (which are not a contract). No token or password is logged. The default is
// silence with [Start], and warnings to the test's output with [NewProxy].
func WithLogger(l *slog.Logger) Option { return func(c *config) { c.logger = l } }

// WithObserver tells o of each session that is pinned, as an [observe.Pinned], before the statement that
// pinned it is passed on: o must not wait for that client. May be given more than once. The default is
// nobody.
func WithObserver(o observe.Observer) Option {
	return func(c *config) { c.observer = observe.All(c.observer, o) }
}

// WithOnLogin calls f after each attempt to sign in, before the client gets the answer, on the
// client connection's goroutine: f must not wait for that client. May be given more than once. The
// default is nothing.
func WithOnLogin(f func(Login)) Option {
	return func(c *config) { c.onLogin = append(c.onLogin, f) }
}

// A Login tells how one client connection signed in, or did not.
type Login struct {
	ClientConnection uint64    // the number of the client connection, as in the log
	RemoteAddr       string    // where the client is
	User             string    // the database user
	Database         string    // the database
	Method           string    // "IAM", "SCRAM-SHA-256", "MD5", or "" if it was refused before
	SignedAt         time.Time // when the IAM token was signed, if it is one
	TokenHash        string    // SHA-256 of the IAM token, hex: equal for equal tokens, and no secret
	Err              error     // why it was refused, nil if it was not; never sent to the client
}
