package proxy

// The connect loop: everything between pgx asking for a connection and the server
// being ready for a query, including the attempts that fail on the way.

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/aurorapgx/aurorapgx/observe"
	"github.com/aurorapgx/aurorapgx/retry"
)

// target is one server to connect to.
type target struct {
	endpoint Endpoint
	port     uint16
	addr     string // numeric address that replaces DNS, or ""
	tls      *tls.Config
	writer   bool          // a server in recovery is not what is asked for
	hold     time.Duration // how long to wait on a reader for its promotion
}

// hostPort is what IAM tokens are signed for.
func (t target) hostPort() string {
	return net.JoinHostPort(t.endpoint.Host, strconv.Itoa(int(t.port)))
}

// connector opens connections for one pool or one Connect. It is safe for concurrent
// use and holds no connection itself.
type connector struct {
	targets   []target
	addr      string         // of the first, as pgconn asks for it
	base      *pgconn.Config // what every attempt starts from; holds no credentials
	login     login
	lookup    func(ctx context.Context, host string) ([]string, error)
	dialNet   pgconn.DialFunc
	gate      *gate
	log       *slog.Logger // for what is no event
	events    *events
	observers []observe.Observer
	attempt   time.Duration
	budget    time.Duration

	generations generations
	doubt       doubt
	topology    *topology // nil unless asked for
}

// The pauses between attempts. They are short because only one connect per pool
// makes attempts while the endpoint does not answer, so that an outage costs the
// server about eight logins a second from each pool, and a pool notices within a
// quarter of a second that it is over. Where nothing listens nobody is burdened, and the
// pauses of direct endpoints are shorter.
const (
	pauseBase  = 50 * time.Millisecond
	pauseCap   = 250 * time.Millisecond
	quickPause = 50 * time.Millisecond // the mean
)

var (
	errBudget  = errors.New("the connect budget is used up")
	errSilent  = errors.New("no answer from the server")
	errUnasked = errors.New("not tried for the pool's minimum while connects fail")
)

// dial is a pgconn.DialFunc that returns an established, authenticated connection,
// ready to be taken for a fresh one by pgconn.
func (c *connector) dial(ctx context.Context, who login) (*handedConn, *target, error) {
	// A connect may always be repeated, whatever the caller has said of its own work.
	ctx, cancel := context.WithTimeoutCause(retry.Idempotent(ctx), c.budget, errBudget)
	defer cancel()
	through := &pass{g: c.gate, unasked: who.unasked}
	defer through.done()

	policy, direct := c.policy(who)
	var (
		conn  *handedConn
		last  error
		found finding
		to    *target
		start = time.Now()
		tries = &attempts{login: who}
	)
	if who.unasked { // one that is not let through is not told of
		if err := through.enter(ctx); err != nil {
			return nil, nil, c.failed(nil, tries, start, finding{}, err)
		}
	}
	ctx = c.events.start(ctx)
	var took time.Duration // of the attempt; 0 if none was made, for lack of leave or of other credentials
	if c.events.on() {
		made := 0
		policy.OnAttempt = func(ctx context.Context, a retry.Attempt) {
			if took > 0 {
				made++
				a.Number = made
				c.events.attempted(ctx, to, a, took, found)
			}
		}
	}
	err := retry.Do(ctx, policy, func(ctx context.Context) error {
		took = 0
		if err := through.enter(ctx); err != nil {
			if last != nil {
				err = fmt.Errorf("%w; the last attempt: %w", err, last)
			}
			return err
		}
		var (
			f     finding
			err   error
			begun = time.Now()
			count = tries.count
		)
		if c.topology != nil {
			conn, to, f, err = c.seek(ctx, tries, through.scout)
		} else {
			conn, to, f, err = c.tryTargets(ctx, tries)
		}
		if tries.count > count {
			took = max(time.Since(begun), 1)
		}
		if err == nil {
			conn.expects(who)
			tries.opened(ctx, conn, to)
			through.leave(nil)
			return nil
		}
		if last == nil || ctx.Err() == nil { // of an attempt that was cut off, the one before tells more
			last, found = err, f
		}
		if errors.Is(ctx.Err(), context.Canceled) { // which says nothing of the endpoint
			through.release()
		} else {
			through.leave(c.describe(to, tries, start, found, last))
		}
		if direct || found.slow {
			found.pause(ctx)
		}
		return retry.Mark(last, found.verdict)
	})
	if err == nil {
		c.events.connected(ctx, to, conn, tries.count, time.Since(start))
		return conn, to, nil
	}
	failed := c.failed(to, tries, start, found, err)
	c.events.connectFailed(ctx, to, failed)
	return nil, nil, failed
}

// policy says how often a connect is tried and with which pauses, and whether it goes straight to a cluster.
func (c *connector) policy(who login) (p retry.Policy, direct bool) {
	direct = c.targets[0].endpoint.Kind.IsRDS() && !c.targets[0].endpoint.Kind.IsProxy()
	p = retry.Policy{Attempts: math.MaxInt, Base: pauseBase, Cap: pauseCap}
	if direct {
		p.Base, p.Cap = quickPause, 2*quickPause
	}
	if who.unasked || who.once {
		p.Attempts = 1
	}
	return p, direct
}

// pause is what a failure calls for on top of the pauses of policy.
func (f finding) pause(ctx context.Context) {
	switch {
	case !f.verdict.Retryable():
	case f.slow: // the server is overloaded
		pause(ctx, 500*time.Millisecond+rand.N(time.Second))
	case !errors.Is(f.cause, ErrUnreachable): // it has answered, and should not have to all the time
		pause(ctx, rand.N(pauseCap-2*quickPause))
	}
}

// pause reports whether it ran its course.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// tryTargets is one attempt: each host in turn, until one takes the connection. A server that
// target_session_attrs=prefer-standby does not prefer is kept for the case that there is no other. The
// first host's failure is reported, unless a later one gives reason to try again.
func (c *connector) tryTargets(ctx context.Context, tries *attempts) (*handedConn, *target, finding, error) {
	tries.count++
	var (
		errs  []error
		about *target
		found finding
		spare sought
	)
	for i := range c.targets {
		t := &c.targets[i]
		conn, err := c.tryTarget(ctx, t, tries)
		switch {
		case err == nil && !conn.notPreferred:
			if spare.conn != nil {
				spare.conn.discard()
			}
			return conn, t, finding{}, nil
		case err == nil && spare.conn == nil:
			spare = sought{conn: conn, to: t, tries: *tries}
			continue
		case err == nil:
			conn.discard()
			continue
		}
		errs = append(errs, err)
		f := tries.judge(ctx, err, t)
		if about == nil || f.verdict.Retryable() && !found.verdict.Retryable() {
			about, found = t, f
		}
		if f.refused || ctx.Err() != nil { // the other hosts would refuse the same credentials
			about, found = t, f
			break
		}
	}
	if spare.conn != nil {
		*tries = spare.tries
		return spare.conn, spare.to, finding{}, nil
	}
	return nil, about, found, errors.Join(errs...)
}

func (c *connector) tryTarget(ctx context.Context, t *target, tries *attempts) (*handedConn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.attempt)
	defer cancel()
	for {
		addrs, err := c.resolve(ctx, t)
		if err != nil {
			return nil, err
		}
		creds, err := tries.credentials(ctx, *t)
		if err != nil {
			return nil, err
		}
		cfg := c.base.Copy()
		cfg.User, cfg.Password = creds.User, creds.Password
		cfg.Database, cfg.RuntimeParams = tries.login.database, tries.login.params
		conn, err := c.tryAddresses(ctx, cfg, t, addrs)
		switch {
		case err == nil && t.writer: // there is one, so that whatever leads elsewhere leads to no writer
			c.generations.keepOnly(ctx, addrs)
			c.generations.foundWriter(ctx, conn.generation.addr, addrs)
		case errors.Is(err, errMoved) && ctx.Err() == nil:
			continue
		}
		return conn, err
	}
}

func (c *connector) tryAddresses(ctx context.Context, cfg *pgconn.Config, t *target, addrs []string) (*handedConn, error) {
	var errs []error
	for i, addr := range addrs {
		share := c.attempt / time.Duration(len(addrs)-i)            // a silent address leaves time for the next
		if deadline, ok := ctx.Deadline(); ok && i < len(addrs)-1 { // the last one has until the context ends
			share = min(share, time.Until(deadline)/time.Duration(len(addrs)-i))
		}
		conn, err := c.tryAddress(ctx, cfg, *t, addr, share)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
		if !errors.Is(err, errNotThere) || errors.Is(err, errMoved) || ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// resolve asks DNS anew every time, because a cluster endpoint's name follows the
// writer, and starts at a random one of the addresses, because a proxy has one in each
// subnet.
func (c *connector) resolve(ctx context.Context, t *target) ([]string, error) {
	host := t.endpoint.Host
	if t.addr != "" {
		return []string{t.addr}, nil
	}
	if _, err := netip.ParseAddr(host); err == nil || isSocket(host) {
		return []string{host}, nil
	}
	addrs, err := c.lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no address", Name: host, IsNotFound: true}
	}
	if t.endpoint.Kind.IsRDS() {
		rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	}
	return addrs, nil
}

// errNotThere marks failures of one address that say nothing about the next.
var errNotThere = errors.New("address does not answer")

// silence is how long an RDS Proxy may take for the first byte of an answer. It sends
// that byte by itself, without a database; a host that does not is gone, and finding
// out early leaves time for another address.
const silence = 2 * time.Second

// tryAddress makes the connection: TCP, TLS and login by pgconn, watched for silence,
// and then taken over.
func (c *connector) tryAddress(ctx context.Context, cfg *pgconn.Config, t target, addr string, patience time.Duration) (*handedConn, error) {
	begun := time.Now()
	ctx, stop := c.whileNamed(ctx, &t, addr)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if t.endpoint.Kind.IsProxy() {
		patience = min(patience, silence)
	}
	watchdog := time.AfterFunc(patience, func() { cancel(errSilent) })
	defer watchdog.Stop()

	var (
		conn net.Conn
		read *loginReader
	)
	cfg.Host, cfg.Port, cfg.TLSConfig = t.endpoint.Host, t.port, t.tls
	cfg.LookupFunc = func(context.Context, string) ([]string, error) { return []string{addr}, nil }
	cfg.DialFunc = onlyOnce(c.dialNet)
	var notPreferred bool
	if validate := cfg.ValidateConnect; validate != nil {
		cfg.ValidateConnect = func(ctx context.Context, pc *pgconn.PgConn) error {
			err := validate(ctx, pc)
			if _, notPreferred = errors.AsType[*pgconn.NotPreferredError](err); notPreferred {
				return nil // pgconn would look among its hosts for another, and it has only this one
			}
			return err
		}
	}
	cfg.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, nc net.Conn) (net.Conn, error) {
		watchdog.Reset(patience)
		conn = nc
		return nc, nil
	}
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		read = &loginReader{r: r, answered: func() { watchdog.Stop() }}
		return pgproto3.NewFrontend(read, w)
	}
	pc, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		err = unwrapped(err)
		if heard := read != nil && read.answered == nil; !heard && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("%w: %w", errSilent, err)
		}
		return nil, attemptError(ctx, err, conn != nil)
	}
	taken := time.Since(begun)
	g := c.generations.join(addr)
	if err := c.examine(ctx, pc, t, addr, g, read); err != nil {
		_ = pc.Close(ctx)
		return nil, attemptError(ctx, err, true)
	}
	if _, err := pc.Hijack(); err != nil {
		_ = conn.Close()
		return nil, err
	}
	if g.outOfUse() != inUse { // it was a reader's, or somebody has found out something meanwhile
		g = c.generations.join(addr)
	}
	handed := handOver(conn, read)
	handed.generation, handed.deathsSeen, handed.patience = g, g.deaths.Load(), patienceAfter(taken)
	handed.notPreferred = notPreferred
	g.used.Store(true)
	return handed, nil
}

// examine looks at a server that has taken the login: whether it is the one that is asked for,
// and what it knows of its cluster.
func (c *connector) examine(ctx context.Context, pc *pgconn.PgConn, t target, addr string, g *generation, login *loginReader) error {
	if !t.writer {
		return nil
	}
	reader, err := c.isReader(ctx, pc, t, g)
	if err != nil {
		return err
	}
	if c.topology != nil {
		if err := c.topology.learn(ctx, pc, c.log); err != nil {
			return err
		}
	}
	if !reader {
		return nil
	}
	c.generations.retireReader(ctx, addr)
	if t.hold > 0 {
		reader, err = c.awaitPromotion(ctx, pc, t, g)
		if err == nil && !reader {
			return login.setParameter("in_hot_standby", pc.ParameterStatus("in_hot_standby"))
		}
	}
	return cmp.Or[error](err, &readerError{addr: addr})
}

// onlyOnce lets a connect dial and refuses what pgconn dials after it: when a server
// hangs up in mid-login, pgconn opens a second connection for a CancelRequest, with
// nothing to cancel.
func onlyOnce(dial pgconn.DialFunc) pgconn.DialFunc {
	var dialled atomic.Bool
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if dialled.Swap(true) {
			return nil, errNoCancel
		}
		return dial(ctx, network, addr)
	}
}

// attemptError takes the connect error out of pgconn's wrapper, which holds the
// password, and adds what the context knows.
func attemptError(ctx context.Context, err error, reached bool) error {
	err = unwrapped(err)
	if cause := context.Cause(ctx); cause != nil {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	var pgErr *pgconn.PgError
	if !reached && !errors.As(err, &pgErr) {
		err = fmt.Errorf("%w: %w", errNotThere, err)
	}
	return err
}

// unwrapped is the error without pgconn's wrapper.
func unwrapped(err error) error {
	if connectErr, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return connectErr.Unwrap()
	}
	return err
}

// failed makes the error that the caller sees.
func (c *connector) failed(t *target, tries *attempts, start time.Time, f finding, err error) *ConnectError {
	var gaveUp *retry.Error
	if errors.As(err, &gaveUp) && gaveUp.Last != nil {
		err = gaveUp.Last
		if gaveUp.Context != nil && !errors.Is(err, gaveUp.Context) {
			err = fmt.Errorf("%w: %w", gaveUp.Context, err)
		}
	}
	if tries.count == 0 {
		if last := c.gate.lastFailure(); last != nil {
			return last.seenBy(err)
		}
	}
	return c.describe(t, tries, start, f, err)
}

func (c *connector) describe(t *target, tries *attempts, start time.Time, f finding, err error) *ConnectError {
	if t == nil {
		t = &c.targets[0]
	}
	if f.cause == nil {
		f = diagnoseSilence(err, t.endpoint.Kind).found()
	}
	return &ConnectError{
		Endpoint: t.endpoint, User: cmp.Or(tries.last.User, tries.login.user), Attempts: tries.count, Elapsed: time.Since(start),
		Cause: f.cause, Case: f.trouble.entry().name, Hint: f.hint(), found: f, err: err,
	}
}
