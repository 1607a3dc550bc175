package proxytest

// The linter for pinning: a test fails if something it ran would pin a session to its database
// connection.

import (
	"fmt"
	"strings"
	"testing"
)

// RequireNoPins fails the test for each statement that pins, now for those the proxy has seen and
// when the test ends for those that follow: it may stand anywhere behind [NewProxy], once. The message
// names the statement, the reason, the caller's file and line, and what to do instead. A statement in a
// session that is pinned already counts too, as does one that pins in a test which shares p.
//
//	px := proxytest.NewProxy(t, backendDSN)
//	proxytest.RequireNoPins(t, px, proxytest.AllowRule("listen"))
//	pool, err := proxy.NewPool(ctx, px.URL("app", "orders"), proxy.WithDialer(px.DialContext))
//
// The caller is exact for connections made by [Proxy.DialContext] or known to [Proxy.Trace]; see there
// for others. Programs in
// other languages can put it in a comment of the statement
// (https://google.github.io/sqlcommenter/spec/: file and line, or whatever tags there are), or set
// application_name.
//
// With [WithStrictSessions], what sessions leave behind unnoticed fails the test too.
func RequireNoPins(tb testing.TB, p *Proxy, allowed ...AllowedPin) {
	tb.Helper()
	c := &pinCheck{tb: tb, p: p, allowed: allowed}
	c.check()
	tb.Cleanup(c.check)
}

// An AllowedPin says whether a pin is one that RequireNoPins should not mind. AllowRule,
// AllowStatement and AllowFile make the usual ones; a function of one's own may look at the whole [Pin].
type AllowedPin func(Pin) bool

// AllowRule allows what one of the [Rules] covers, such as "listen".
func AllowRule(name string) AllowedPin {
	return func(pin Pin) bool { return pin.Rule == name }
}

// AllowStatement allows statements whose digest begins with prefix, such as "set search_path", in lower case.
func AllowStatement(prefix string) AllowedPin {
	return func(pin Pin) bool { return strings.HasPrefix(pin.Digest, prefix) }
}

// AllowFile allows statements that come from files whose path ends in suffix, such as "/migrate.go".
func AllowFile(suffix string) AllowedPin {
	return func(pin Pin) bool { return pin.Caller.File != "" && strings.HasSuffix(pin.Caller.File, suffix) }
}

// pinCheck reports each statement once.
type pinCheck struct {
	tb      testing.TB
	p       *Proxy
	allowed []AllowedPin
	seen    int // statements
	leaks   int
}

func (c *pinCheck) check() {
	c.tb.Helper()
	statements := c.p.pins.statementsFrom(c.seen)
	c.seen += len(statements)
	for _, st := range statements {
		if !c.isAllowed(st.Pin) {
			c.tb.Errorf("%s", pinMessage(st))
		}
	}
	leaks := c.p.leaksFrom(c.leaks)
	c.leaks += len(leaks)
	for _, leak := range leaks {
		c.tb.Errorf("%s", leakMessage(leak))
	}
}

func (c *pinCheck) isAllowed(pin Pin) bool {
	for _, allow := range c.allowed {
		if allow(pin) {
			return true
		}
	}
	return false
}

// pinMessage is a paragraph for people.
func pinMessage(st pinStatement) string {
	var b strings.Builder
	b.WriteString("RDS Proxy would pin the session")
	if st.Caller.File != "" {
		fmt.Fprintf(&b, ": %s:%d", st.Caller.File, st.Caller.Line)
	}
	fmt.Fprintf(&b, "\n    statement: %s\n    reason:    %s (rule %s)\n    caller:    %s\n    instead:   %s",
		st.Digest, st.Reason, st.Rule, callerOrHint(st.Caller), instead(st.Pin))
	if st.times > 1 {
		fmt.Fprintf(&b, "\n    times:     %d", st.times)
	}
	return b.String()
}

func leakMessage(leak Leak) string {
	last := len(leak.Digests) - 1
	var b strings.Builder
	fmt.Fprintf(&b, "the session leaves state behind that RDS Proxy does not notice: %s %s\n    statement: %s\n    caller:    %s\n    instead:   %s",
		leak.Kind, leak.Name, leak.Digests[last], callerOrHint(leak.Caller),
		"Have the function restore what it changes, or change it for the transaction only: set_config(…, true), SET LOCAL, "+
			"ON COMMIT DROP, pg_advisory_xact_lock.")
	if last > 0 {
		fmt.Fprintf(&b, "\n    before it: %s", strings.Join(leak.Digests[:last], " | "))
	}
	return b.String()
}

func callerOrHint(c Caller) string {
	if s := c.String(); s != "" {
		return s
	}
	return "unknown: use Proxy.DialContext, Proxy.Trace, a comment like /*file='store.go',line='12'*/, or application_name"
}

// startupParameters may stand in the startup message, where they do not pin
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-connecting.html).
var startupParameters = map[string]string{
	"application_name": "application_name", "client_encoding": "client_encoding", "names": "client_encoding",
	"datestyle": "DateStyle", "timezone": "TimeZone", "time": "TimeZone", "extra_float_digits": "extra_float_digits",
	"search_path": "search_path", "schema": "search_path",
}

// instead is the rule's advice, made sharper for settings by looking at which one is meant.
func instead(pin Pin) string {
	advice := ""
	for _, r := range rules {
		if r.Name == pin.Rule {
			advice = r.Instead
		}
	}
	if pin.Rule != rules[ruleSettings].Name {
		return advice
	}
	name := settingIn(pin.Digest)
	if parameter, ok := startupParameters[name]; ok {
		return fmt.Sprintf("Set %s in the connection string: RDS Proxy takes it at startup without a pin. Or: %s", parameter, advice)
	}
	switch name {
	case "characteristics", "default_transaction_isolation", "transaction_isolation", "default_transaction_read_only":
		return "Say it when the transaction begins (pgx.TxOptions: BEGIN ISOLATION LEVEL …, READ ONLY), or set " +
			"default_transaction_isolation in the proxy's initialization query or with ALTER ROLE … SET."
	case "role", "authorization":
		return "Sign in as that user with a secret of its own, or SET ROLE in the proxy's initialization query; " +
			"SET LOCAL ROLE lasts for one transaction."
	}
	return advice
}

// settingIn is the name of the setting that the first SET or RESET of a digest is about.
func settingIn(digest string) string {
	s := statementScanner{lexer: lexer{text: digest}}
	for t := s.next(); t.kind != tokenEnd; t = s.next() {
		if !s.is(t, "set") && !s.is(t, "reset") {
			continue
		}
		t = s.next()
		if s.is(t, "session") || s.is(t, "local") {
			t = s.next()
		}
		return s.name(t)
	}
	return ""
}
