package proxy

// The checks between a connection string or configuration and a connector: hosts,
// login, protocol, limits. Nothing here touches the network.

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/retry"
	"github.com/aurorapgx/aurorapgx/secrets"
)

// sourceOf names where a startup parameter came from.
func (s settings) sourceOf(name string) string {
	for key, one := range s {
		if strings.EqualFold(key, name) {
			return one.source
		}
	}
	return "RuntimeParams"
}

// checkHosts looks at the hosts of a connection string: all of RDS's or none, with
// ports and addresses to match.
func (s settings) checkHosts(o *options) (rds, local bool, err error) {
	if !s.has("host") {
		return false, false, badString("it names no host", "write the endpoint: postgres://app@app.proxy-abc.eu-west-1.rds.amazonaws.com/orders; PGHOST is not used")
	}
	hosts := strings.Split(s.get("host"), ",")
	local = true
	count := 0
	for _, host := range hosts {
		e, err := ParseEndpoint(host)
		if err != nil {
			return false, false, err
		}
		if o.kindOf(e).IsRDS() {
			count++
		}
		local = local && isLocal(e.Host)
	}
	if count > 0 && count < len(hosts) {
		return false, false, badString("some of its hosts are RDS endpoints and some are not", "use one connection string for each: they log in differently")
	}
	for _, key := range []string{"port", "hostaddr"} {
		if n := strings.Count(s.get(key), ",") + 1; s.has(key) && n != 1 && n != len(hosts) {
			return false, false, badString(fmt.Sprintf("it has %d hosts and %d values of %s", len(hosts), n, key), "write one for all, or one for each host")
		}
	}
	for addr := range strings.SplitSeq(s.get("hostaddr"), ",") {
		local = local && (addr == "" || isLocal(addr))
	}
	return count > 0, local, nil
}

// kindOf is the endpoint's kind, unless the user knows better.
func (o *options) kindOf(e Endpoint) Kind {
	if o.kind != nil {
		return *o.kind
	}
	return e.Kind
}

// checkLogin finds a user and a database, and one way to log in.
func (s settings) checkLogin(o *options, rds bool) error {
	if !s.has("user") && o.source == nil {
		return badString("it names no user", "write postgres://USER@host/database; PGUSER is not used")
	}
	if !s.has("database") {
		return badString("it names no database", "write postgres://user@host/DATABASE; PGDATABASE is not used")
	}
	if !s.has("user") {
		s["user"] = setting{"", fromConnString}
	}
	if !s.has("password") {
		return nil
	}
	switch {
	case o.source != nil:
		return bothOf("it has a password, and WithCredentials supplies one")
	case o.iam:
		return bothOf("it has a password, and WithIAM signs tokens")
	case rds && isToken(s.get("password")):
		return badString("its password is an IAM token, which is valid for 15 minutes", "leave the password out: a token is signed for each connection")
	}
	return nil
}

// findTargets turns pgconn's host and fallbacks into a list of servers, each with TLS
// settings that hold.
func findTargets(cfg *pgconn.Config, o *options, s settings, addrs string) ([]target, error) {
	hosts := append([]*pgconn.FallbackConfig{{Host: cfg.Host, Port: cfg.Port, TLSConfig: cfg.TLSConfig}}, cfg.Fallbacks...)
	addrList := strings.Split(addrs, ",")
	var targets []target
	for i, h := range hosts {
		e, err := ParseEndpoint(h.Host)
		if err != nil {
			return nil, err
		}
		e.Kind = o.kindOf(e)
		if i > 0 && sameButTLS(hosts[i-1], h) {
			continue
		}
		t := target{endpoint: e, port: h.Port, writer: e.Kind.isWriter(), addr: addrList[min(len(targets), len(addrList)-1)]}
		either := i+1 < len(hosts) && sameButTLS(h, hosts[i+1])
		if t.tls, err = targetTLS(h.TLSConfig, t, either, o, s); err != nil {
			return nil, err
		}
		targets = append(targets, t)
		if e.Kind.IsRDS() != targets[0].endpoint.Kind.IsRDS() {
			return nil, &ConfigError{Source: "host", Problem: "some hosts are RDS endpoints and some are not", Fix: "use one configuration for each: they log in differently"}
		}
	}
	return targets, nil
}

// sameButTLS recognizes sslmode=prefer and allow, which pgx expresses as the same host
// with and without TLS.
func sameButTLS(a, b *pgconn.FallbackConfig) bool {
	return a.Host == b.Host && a.Port == b.Port && (a.TLSConfig == nil) != (b.TLSConfig == nil)
}

// targetTLS is the TLS configuration for one host; nil is plaintext. either says that
// pgx would try with and without TLS.
func targetTLS(cfg *tls.Config, t target, either bool, o *options, s settings) (*tls.Config, error) {
	e := t.endpoint
	mustVerify := e.Kind.IsRDS() || o.iam
	local := isLocal(e.Host) && (t.addr == "" || isLocal(t.addr))
	switch {
	case isSocket(e.Host) && mustVerify:
		return nil, &ConfigError{Source: "WithIAM", Problem: "a unix socket takes no IAM token", Fix: "name the endpoint's host"}
	case cfg == nil && mustVerify:
		return nil, &ConfigError{Source: "TLSConfig", Problem: "an RDS endpoint needs TLS, and it is switched off", Fix: "write sslmode=verify-full, or leave sslmode out", trouble: weakTLS}
	case either && !mustVerify && local:
		return nil, nil // pgx's default, sslmode=prefer, towards this machine
	case cfg == nil && !either:
		return nil, nil
	case either && !mustVerify:
		return nil, &ConfigError{Source: "TLSConfig", Problem: "TLS is optional (pgx's default is sslmode=prefer)", Fix: "write sslmode=verify-full to insist on TLS, or sslmode=disable to do without", trouble: weakTLS}
	}
	if err := checkTLSConfig(e.Kind, cfg); err != nil {
		return nil, err
	}
	cfg = cfg.Clone()
	if mustVerify {
		cfg.InsecureSkipVerify = false // callbacks verify in addition
	}
	if !cfg.InsecureSkipVerify {
		if cfg.ServerName == "" || mustVerify || strings.EqualFold(cfg.ServerName, e.Host) {
			cfg.ServerName = e.Host // lower case, no trailing dot
		}
		if cfg.RootCAs == nil {
			roots, err := trust(e.Kind, s["sslrootcert"], o.rootCAs)
			if err != nil {
				return nil, err
			}
			cfg.RootCAs = roots
		} else if o.rootCAs != nil {
			cfg.RootCAs = cfg.RootCAs.Clone()
			cfg.RootCAs.AppendCertsFromPEM(o.rootCAs)
		}
	}
	if cfg.MinVersion == 0 {
		cfg.MinVersion = tls.VersionTLS12
	}
	return cfg, nil
}

// checkProtocol refuses what RDS Proxy does not speak.
// Source: https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.html (limitations for PostgreSQL)
func checkProtocol(cfg *pgconn.Config, kind Kind, s settings) error {
	if !kind.IsProxy() {
		return nil
	}
	where := func(key, field string) string {
		if one, ok := s[key]; ok {
			return one.source
		}
		return field
	}
	switch {
	case cfg.SSLNegotiation == "direct":
		return &ConfigError{Source: where("sslnegotiation", "SSLNegotiation"), Problem: "RDS Proxy does not support sslnegotiation=direct", Fix: "leave it out", trouble: proxyProtocol}
	case cfg.MinProtocolVersion != "" && cfg.MinProtocolVersion != "3.0":
		return &ConfigError{Source: where("min_protocol_version", "MinProtocolVersion"), Problem: "RDS Proxy speaks protocol version 3.0 only", Fix: "leave min_protocol_version out", trouble: proxyProtocol}
	case cfg.MaxProtocolVersion != "" && cfg.MaxProtocolVersion != "3.0":
		return &ConfigError{Source: where("max_protocol_version", "MaxProtocolVersion"), Problem: "RDS Proxy speaks protocol version 3.0 only", Fix: "leave max_protocol_version out", trouble: proxyProtocol}
	case cfg.ChannelBinding == "require":
		return &ConfigError{Source: where("channel_binding", "ChannelBinding"), Problem: "TLS ends at RDS Proxy, so that channel_binding=require cannot succeed", Fix: "leave channel_binding out", trouble: proxyProtocol}
	}
	return nil
}

// checkIAM refuses what an IAM login cannot work with: a host that no token can be
// signed for, and settings that forbid a cleartext password message inside TLS.
func checkIAM(cfg *pgconn.Config, targets []target, signer *iamSigner, s settings) error {
	for _, t := range targets {
		region, err := signer.region(t.endpoint)
		if err != nil {
			return err
		}
		if region != "" && t.endpoint.Region != "" && region != t.endpoint.Region {
			return &ConfigError{Source: "WithIAM", Problem: fmt.Sprintf("a token for the region %s is refused by an endpoint in %s", region, t.endpoint.Region), Fix: "leave the region out, as WithIAM(\"\"): the host tells it", trouble: iamRegion}
		}
	}
	if cfg.ChannelBinding == "require" {
		return &ConfigError{Source: s.sourceOf("channel_binding"), Problem: "channel_binding=require forbids IAM tokens", Fix: "leave channel_binding out", trouble: iamForbidden}
	}
	if cfg.RequireAuth == "" {
		return nil
	}
	negated := strings.HasPrefix(cfg.RequireAuth, "!")
	named := false
	for method := range strings.SplitSeq(cfg.RequireAuth, ",") {
		named = named || strings.TrimPrefix(strings.TrimSpace(method), "!") == "password"
	}
	if named == negated {
		return &ConfigError{Source: s.sourceOf("require_auth"), Problem: "require_auth=" + quote(cfg.RequireAuth) + " forbids IAM tokens, which travel as a password inside TLS", Fix: "leave require_auth out, or write require_auth=password", trouble: iamForbidden}
	}
	return nil
}

// pgxpool's defaults, which a preset replaces.
// Source: https://github.com/jackc/pgx/blob/v5.12.0/pgxpool/pool.go
const (
	pgxLifetime    = time.Hour
	pgxIdle        = 30 * time.Minute
	pgxHealthCheck = time.Minute
)

// limit sets the pool's numbers, where the user has not.
func (o *options) limit(cfg *pgxpool.Config, kind Kind, s settings) {
	p := o.preset
	fromPreset := func(key string, isDefault bool) bool { return !s.has(key) && isDefault }
	if o.maxConns != nil {
		cfg.MaxConns = *o.maxConns
	} else if fromPreset("pool_max_conns", cfg.MaxConns == defaultMaxConns()) {
		cfg.MaxConns = p.maxConns
	}
	if fromPreset("pool_max_conn_lifetime", cfg.MaxConnLifetime == pgxLifetime) {
		cfg.MaxConnLifetime = p.maxLifetime
	}
	if fromPreset("pool_max_conn_lifetime_jitter", cfg.MaxConnLifetimeJitter == 0) {
		cfg.MaxConnLifetimeJitter = p.lifetimeJitter
	}
	if fromPreset("pool_max_conn_idle_time", cfg.MaxConnIdleTime == pgxIdle) {
		cfg.MaxConnIdleTime = p.maxIdle
	}
	if fromPreset("pool_health_check_period", cfg.HealthCheckPeriod == pgxHealthCheck) {
		cfg.HealthCheckPeriod = p.healthCheck
	}
	if fromPreset("pool_ping_timeout", cfg.PingTimeout == 0) {
		cfg.PingTimeout = p.pingTimeout
	}
	if cfg.ShouldPing == nil {
		cfg.ShouldPing = shouldPing(kind, p.pingIdleProxy)
	}
}

// asCredentialsError says what a failing credential source means. The AWS SDK has
// made its own retries by then; a timeout may still be worth another attempt.
func asCredentialsError(err error, who login) error {
	if _, ok := errors.AsType[*ConfigError](err); ok {
		return err
	}
	var netErr net.Error
	e := &credentialsError{err: err, temporary: retry.Classify(err).Retryable() || errors.As(err, &netErr) || isTemporary(err)}
	e.found = diagnoseSource(err, who)
	return e
}

// isTemporary reports whether a secret could not be read for a reason that passes.
func isTemporary(err error) bool {
	e, ok := errors.AsType[*secrets.Error](err)
	return ok && e.Temporary()
}
