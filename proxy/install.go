package proxy

// From a checked configuration to one that connects by way of a connector: which of
// pgx's hooks it takes, and how the user's own stay in place.

import (
	"cmp"
	"context"
	"math"
	"net"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/multitracer"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// configure wires a connector into cfg.
func configure(cfg *pgxpool.Config, o *options, s settings) error {
	_, err := wire(cfg, o, s)
	return err
}

func wire(cfg *pgxpool.Config, o *options, s settings) (*connector, error) {
	conn := cfg.ConnConfig
	if o.execMode != nil {
		conn.DefaultQueryExecMode = *o.execMode
	}
	switch {
	case o.tracer == nil:
	case conn.Tracer == nil:
		conn.Tracer = o.tracer
	default:
		conn.Tracer = multitracer.New(conn.Tracer, o.tracer)
	}
	addrs := conn.RuntimeParams["hostaddr"]
	delete(conn.RuntimeParams, "hostaddr")
	targets, err := findTargets(&conn.Config, o, s, addrs)
	if err != nil {
		return nil, err
	}
	first := targets[0].endpoint.Kind
	conn.RuntimeParams, err = checkParameters(first, conn.RuntimeParams, s.sourceOf)
	if err != nil {
		return nil, err
	}
	if err := checkProtocol(&conn.Config, first, s); err != nil {
		return nil, err
	}
	c := &connector{
		targets:   targets,
		login:     newLogin(&conn.Config, o, first),
		lookup:    conn.LookupFunc,
		dialNet:   conn.DialFunc,
		log:       quietly(o.logger),
		attempt:   orElse(o.attempt, o.preset.attempt),
		budget:    orElse(o.budget, o.preset.budgetFor(first)),
		observers: o.observers,
		gate:      newGate(orElse(o.connects, o.preset.connects)),
	}
	if c.login.iam != nil {
		if err := checkIAM(&conn.Config, targets, c.login.iam, s); err != nil {
			return nil, err
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
		c.dialNet = (&net.Dialer{}).DialContext
	}
	c.dialNet = watched(c.dialNet, orElse(o.failover.peer, peerTimeout))
	c.events = newEvents(o, targets[0], conn.Database)
	c.login.events, c.generations.events = c.events, c.events
	if r := c.login.rotation; r != nil {
		r.log, r.calm, r.events = c.log, c.gate.healthy, c.events
	}
	c.base = attemptConfig(&conn.Config)
	if c.topology, err = newTopology(o.failover, targets); err != nil {
		return nil, err
	}
	c.install(cfg)
	o.limit(cfg, first, s)
	dropUnusable(cfg, c.events)
	return c, nil
}

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

// install replaces the parts of cfg that open connections, keeping the user's hooks.
func (c *connector) install(cfg *pgxpool.Config) {
	conn := cfg.ConnConfig
	user, password, tracer, before := conn.User, conn.Password, conn.Tracer, cfg.BeforeConnect
	ours := c.traceAcquire(tracer, c.observers)
	c.login.database, c.login.params = conn.Database, conn.RuntimeParams
	_, c.addr = pgconn.NetworkAddress(conn.Host, conn.Port)

	// The login that pgx performs below is one without TLS and password: both are done
	// when it sees the connection.
	conn.TLSConfig, conn.Fallbacks, conn.Password = nil, nil, ""
	conn.ChannelBinding, conn.RequireAuth, conn.SSLCertMode = "", "", ""
	conn.ValidateConnect = nil
	conn.ConnectTimeout = c.budget + min(time.Second, math.MaxInt64-c.budget) // the loop ends by itself; this is for callers that look
	conn.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	conn.DialFunc = c.dialer(c.login)
	if c.targets[0].endpoint.Kind.isWriter() {
		conn.OnPgError = c.rejectReadOnly(conn.OnPgError)
	}
	cfg.BeforeConnect = func(ctx context.Context, cc *pgx.ConnConfig) error {
		if before != nil {
			cc.Password = password
			if err := before(ctx, cc); err != nil {
				return err
			}
			if reflect.ValueOf(cc.DialFunc).Pointer() != reflect.ValueOf(conn.DialFunc).Pointer() {
				return changedSince("DialFunc", "pass WithDialer to Configure instead")
			}
		}
		who := c.login.changedBy(cc, user, password)
		cc.Password = ""
		_, who.unasked = ctx.Deadline()
		cc.DialFunc = c.dialer(who)
		if cc.Tracer == ours { // it is for the pool's Acquire, not for the connection
			cc.Tracer = tracer
		}
		return nil
	}
	conn.Tracer = ours
	if r := c.login.rotation; r != nil {
		r.retire(cfg)
	}
}

// dialer is the pgconn.DialFunc for connections of one login.
func (c *connector) dialer(who login) pgconn.DialFunc {
	var last atomic.Pointer[opened] // for its CancelRequest
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if network == cancelTCP4 || network == cancelTCP6 || network == cancelUnix {
			return c.dialCancel(ctx, *cmp.Or(last.Load(), &opened{target: &c.targets[0]}), network, addr)
		}
		if addr != c.addr {
			return nil, changedSince("host, port, Fallbacks or LookupFunc", "connects go to "+c.addr+", and "+addr+" was asked for")
		}
		conn, to, err := c.dial(ctx, who)
		if err != nil {
			return nil, err
		}
		last.Store(&opened{conn, to})
		return conn, nil
	}
}

// opened is a connection and where it went.
type opened struct {
	conn   *handedConn
	target *target
}

// changedSince is the error for a configuration that says something else than when it
// was checked. Ignoring that could mean the wrong server or the wrong database.
func changedSince(what, how string) error {
	return &ConfigError{Source: "ConnConfig", Problem: what + " changed after NewPool or Configure: " + how, Fix: "change the connection string, or the configuration before it is passed to Configure"}
}
