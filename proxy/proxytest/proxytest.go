// Package proxytest runs an RDS Proxy inside a test, in front of a real PostgreSQL,
// as net/http/httptest runs an HTTP server.
//
//	px := proxytest.NewProxy(t, "postgres://app:secret@localhost/orders")
//	conn, err := proxy.Connect(ctx, px.URL("app", "orders"), ...)
//
// It exists because the things that go wrong behind RDS Proxy do not go wrong in front of a
// plain PostgreSQL: a startup parameter is refused, a session is pinned, a statement waits for
// a connection that never comes, a failover takes one connection and leaves the next.
//
// # What is emulated
//
//   - TLS: RSA certificate from a private CA, no post-quantum key exchange, refusal of plaintext
//     and of direct TLS negotiation, N for GSSENCRequest.
//   - The startup packet: protocol 3.0 only, the eight parameters RDS Proxy accepts, the proxy's
//     own refusals word for word, all before authentication.
//   - Authentication: IAM tokens checked as AWS checks them (signature, host, port, region, user,
//     age) and SCRAM-SHA-256 against a registered secret. The backend login uses the secret.
//   - No BackendKeyData, and CancelRequest that does nothing.
//   - Transaction-level multiplexing with a bounded pool, lazy and first come first served
//     borrowing, the borrow timeout, and prepared statements that follow the client from one
//     database connection to the next.
//   - Pinning, decided by a lexer on the statement, with the log line RDS Proxy writes. RULES.md, beside
//     this file, lists each rule with its source and how sure it is; [Rules] has the same.
//   - Secrets that rotate ([WithSecret]): only the current version counts, and only its user.
//   - Failover: idle client connections live on, the others are cut, new requests wait. Blue/green
//     switchover ([Proxy.Switchover]), and read-only endpoints ([WithReaders]).
//   - Limits on the number and rate of client connections, and of IAM sign-ins; sign-in with MD5, and end-to-end IAM.
//   - The reset of database connections that were pinned ([WithSessionReset]).
//   - A client that goes away in mid-request: its database connection is closed, its query is not
//     cancelled.
//
// # What pins, and who did it
//
// [RequireNoPins] makes a test fail for each statement that would pin a session, and says which it was,
// why, from which file and line it came, and what to do instead. [WithStrictSessions] looks for what RDS
// Proxy does not see: session state that a function left behind for the next client.
//
// # What is not
//
//   - SCRAM-SHA-256-PLUS, and Secrets Manager itself (see package secretstest).
//   - TLS 1.3 with ChaCha20 is accepted if the client insists (Go cannot switch it off).
//   - SASLprep: keep passwords to ASCII, which is what RDS Proxy asks for as well.
//   - SQL text that names a protocol-level prepared statement (EXECUTE, DEALLOCATE name): the
//     proxy keeps protocol-level statements under names of its own on the database.
//   - A COPY FROM STDIN that fails after a Sync in front of its data, as libpq's PQexecParams sends
//     one: whether it is answered depends on how early the COPY failed, which no message tells. The
//     proxy expects that it was not, and closes the database connection instead of lending it on.
//
// # Where the real behaviour is not known
//
// AWS documents what clients see but not every detail. These are choices, made so that code
// which passes here passes either way: startup parameter names must be spelled as documented,
// case included; the order of the startup checks is TLS, protocol version, replication, options,
// other parameters, user name; a borrow timeout answers as [WithBorrowTimeoutReply] says; SET LOCAL
// does not pin unless [WithSetLocalPins] says so; a ping ("-- ping") borrows a connection as any
// statement does.
//
// The behaviour follows https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.html
// and the pages below it.
package proxytest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"crypto/x509"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/jackc/pgx/v5/pgconn"
)

// A Proxy is a running RDS Proxy. [NewProxy] and [Start] make one; its methods may be called from
// any goroutine.
type Proxy struct {
	cfg        config
	listener   net.Listener
	port       uint16
	certs      *certificates
	tls        *tls.Config
	iam        *tokenVerifier
	users      *userDirectory
	pool       *connPool
	counters   counters
	pins       pinLog
	calls      callLog
	goroutines goroutineSearch
	inspecting atomic.Int64 // database connections, in strict mode
	log        *proxyLog
	windows    bufferPool // of client sessions that read much

	connectRate, iamRate rate

	statementPrefix string // of the names that statements have on the database; nobody guesses it

	ctx       context.Context
	cancel    context.CancelFunc
	stopWatch func() bool // of the context given to Start
	wg        sync.WaitGroup

	mu       sync.Mutex
	sessions map[*clientSession]struct{}
	closed   bool

	nextClient    atomic.Uint64
	nextStatement atomic.Uint64

	closeOnce sync.Once
	closeErr  error
}

// NewProxy starts a proxy for the length of a test: it is closed by tb.Cleanup, and what goes
// wrong at the start ends the test. Unless [WithLogger] is given, warnings (that is: pins) go to
// the test's own output.
func NewProxy(tb testing.TB, backendDSN string, opts ...Option) *Proxy {
	tb.Helper()
	logger := slog.New(slog.NewTextHandler(tb.Output(), &slog.HandlerOptions{
		Level: slog.LevelWarn,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
	p, err := Start(context.WithoutCancel(tb.Context()), backendDSN, append([]Option{WithLogger(logger)}, opts...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := p.Close(); err != nil {
			tb.Errorf("close RDS Proxy: %v", err)
		}
	})
	return p
}

// Start starts a proxy in front of the PostgreSQL that backendDSN names; host, port and TLS
// settings of its connections come from there. It runs until [Proxy.Close] or until ctx is done.
//
// The database is not contacted by Start. With an empty backendDSN there is none: clients can
// sign in, and their statements wait until the borrow timeout.
func Start(ctx context.Context, backendDSN string, opts ...Option) (*Proxy, error) {
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, fmt.Errorf("start RDS Proxy: %w", err)
	}
	backend, err := parseBackend(backendDSN)
	if err != nil {
		return nil, fmt.Errorf("start RDS Proxy: %w", err)
	}
	dsns := []string{backendDSN}
	if cfg.readOnly {
		dsns = cfg.readers
		if backend == nil && len(dsns) > 0 {
			backend, err = parseBackend(dsns[0])
		}
	}
	targets, targetsErr := newTargets(dsns)
	if err := errors.Join(err, targetsErr); err != nil {
		return nil, fmt.Errorf("start RDS Proxy: %w", err)
	}
	p := &Proxy{
		cfg: cfg, sessions: make(map[*clientSession]struct{}), windows: bufferPool{size: clientWindow},
		statementPrefix: "px" + rand.Text()[:10] + "_",
	}
	p.log = &proxyLog{logger: cfg.logger, endpoint: cfg.endpointName}
	p.users = newUserDirectory(cfg, backend)
	if p.certs, err = newCertificates(cfg.host); err != nil {
		return nil, fmt.Errorf("start RDS Proxy: %w", err)
	}
	if err := p.listen(ctx); err != nil {
		return nil, fmt.Errorf("start RDS Proxy: %w", errors.Join(err, p.certs.remove()))
	}
	p.tls = p.certs.serverConfig()
	p.iam = &tokenVerifier{
		endpoint: net.JoinHostPort(cfg.host, strconv.FormatUint(uint64(p.port), 10)), region: cfg.region, key: cfg.accessKey,
	}
	p.ctx, p.cancel = context.WithCancel(context.WithoutCancel(ctx))
	p.pool = newConnPool(p, targets, cfg.maxConnections)
	p.followSecrets()
	p.wg.Go(p.accept)
	p.mu.Lock()
	p.stopWatch = context.AfterFunc(ctx, func() { _ = p.Close() })
	p.mu.Unlock()
	return p, nil
}

// listen takes the listener it was given or opens one on the loopback interface.
func (p *Proxy) listen(ctx context.Context) error {
	p.listener = p.cfg.listener
	if p.listener == nil {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		p.listener = l
	}
	p.port = 5432 // the only port RDS Proxy has, and the one to sign for when there is no TCP
	if a, ok := p.listener.Addr().(*net.TCPAddr); ok {
		p.port = uint16(a.Port)
	}
	return nil
}

func (p *Proxy) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			if p.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			select { // out of file descriptors, most likely: try again, not at once
			case <-p.ctx.Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		s := newClientSession(p, quicken(conn))
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			_ = conn.Close()
			return
		}
		p.sessions[s] = struct{}{}
		p.wg.Go(s.run)
		p.mu.Unlock()
	}
}

// forget takes a finished session off the list of those that Close has to end.
func (p *Proxy) forget(s *clientSession) {
	p.calls.forget(s.remote)
	p.mu.Lock()
	delete(p.sessions, s)
	p.mu.Unlock()
}

// Close ends every client connection and every database connection, waits for the proxy's
// goroutines and removes the CA file. Further calls do nothing and return the same error.
func (p *Proxy) Close() error {
	p.closeOnce.Do(func() {
		p.mu.Lock()
		p.stopWatch()
		p.mu.Unlock()
		p.cancel()
		err := p.listener.Close()
		if errors.Is(err, net.ErrClosed) {
			err = nil
		}
		p.mu.Lock()
		p.closed = true
		for s := range p.sessions {
			_ = s.raw.Close()
		}
		p.mu.Unlock()
		p.pool.close()
		p.wg.Wait()
		p.closeErr = errors.Join(err, p.certs.remove())
	})
	return p.closeErr
}

// Host is the host name the proxy stands for: the one its certificate carries and IAM tokens must
// be signed for. See [WithHost].
func (p *Proxy) Host() string { return p.cfg.host }

// Addr is the address the proxy listens on, such as "127.0.0.1:54321".
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Port is the TCP port the proxy listens on, or 5432 if its listener is not a TCP one.
func (p *Proxy) Port() uint16 { return p.port }

// Region is the AWS region IAM tokens must be signed for. See [WithRegion].
func (p *Proxy) Region() string { return p.cfg.region }

// URL is the connection string for a user and a database: verify-full against the proxy's CA file,
// with hostaddr (as libpq understands it) leading Host to the listener. Without a TCP listener
// there is no hostaddr.
func (p *Proxy) URL(user, database string) string {
	q := url.Values{}
	if a, ok := p.listener.Addr().(*net.TCPAddr); ok {
		ip := a.IP
		if ip.IsUnspecified() {
			ip = net.IPv4(127, 0, 0, 1)
		}
		q.Set("hostaddr", ip.String())
	}
	q.Set("sslmode", "verify-full")
	q.Set("sslrootcert", p.certs.file)
	u := url.URL{
		Scheme: "postgres", User: url.User(user), Path: "/" + database,
		Host: net.JoinHostPort(p.cfg.host, strconv.FormatUint(uint64(p.port), 10)), RawQuery: q.Encode(),
	}
	return u.String()
}

// CAFile is a PEM file with the CA that signed the proxy's certificate. Close removes it.
func (p *Proxy) CAFile() string { return p.certs.file }

// RootCAs is a pool that holds the CA that signed the proxy's certificate and no other.
func (p *Proxy) RootCAs() *x509.CertPool { return p.certs.pool() }

// Credentials is the AWS access key whose signatures the proxy accepts: random for each proxy, or
// the one given to [WithAccessKey].
func (p *Proxy) Credentials() aws.Credentials { return p.cfg.accessKey }

// parseBackend reads the backend's DSN; nil stands for "no database".
func parseBackend(dsn string) (*pgconn.Config, error) {
	if dsn == "" {
		return nil, nil
	}
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("backend DSN: %w", err)
	}
	return cfg, nil
}
