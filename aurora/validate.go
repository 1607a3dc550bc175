package aurora

// What is refused, and why: the mistakes that template checkers let through and that
// show hours later, in a failed deployment or at night.

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Validate finds everything that is wrong with the Spec, overrides included, and
// returns it as one error of joined [*FieldError]; nil means that [Spec.Template]
// renders it. It looks at the rendered template too, so an override can take away
// nothing that a rule protects.
func (s Spec) Validate() error {
	_, err := s.checked()
	return err
}

// checked renders the Spec if nothing is wrong with it.
func (s Spec) checked() (*template, error) {
	s = s.WithDefaults()
	var p problems
	s.checkNames(&p)
	s.checkEngineAndCapacity(&p)
	s.checkUsers(&p)
	s.checkRotation(&p)
	s.checkProxy(&p)
	s.checkNetwork(&p)
	s.checkOperations(&p)
	s.checkAlarms(&p)
	s.checkTags(&p)
	if len(p) > 0 {
		return nil, errors.Join(p...)
	}
	t, err := s.render()
	if err != nil {
		return nil, err
	}
	if err := t.lint(&p); err != nil {
		return nil, err
	}
	return t, errors.Join(p...)
}

var (
	stackName  = regexp.MustCompile(`^[a-z](-?[a-z0-9])*$`)
	identifier = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
)

// reservedWords cannot name a database or an administrator: PostgreSQL's reserved key
// words, and what RDS keeps for itself.
// https://www.postgresql.org/docs/current/sql-keywords-appendix.html
var reservedWords = strings.Fields(`all analyse analyze and any array as asc asymmetric both case cast check collate column constraint
	create current_catalog current_date current_role current_time current_timestamp current_user default deferrable desc distinct do
	else end except false fetch for foreign from grant group having in initially intersect into lateral leading limit localtime
	localtimestamp not null offset on only or order placing primary references returning select session_user some symmetric
	system_user table then to trailing true union unique user using variadic when where window with
	admin template0 template1`)

func (s Spec) checkNames(p *problems) {
	if !stackName.MatchString(s.Name) || len(s.Name) > 40 {
		p.add("Name", RuleName, "%q is no name for a cluster and a proxy; write lower-case letters, digits and single hyphens, a letter first, at most 40", s.Name)
	}
	for field, name := range map[string]string{"Database": s.Database, "MasterUser": s.MasterUser} {
		checkIdentifier(p, field, name)
		if slices.Contains(reservedWords, name) {
			p.add(field, RuleName, "%q is a reserved word, which RDS refuses; write another name", name)
		}
	}
	for i, name := range s.Schemas {
		field := fmt.Sprintf("Schemas[%d]", i)
		checkIdentifier(p, field, name)
		if name == "information_schema" {
			p.add(field, RuleName, "information_schema belongs to PostgreSQL; leave it out")
		}
		if slices.Contains(s.Schemas[:i], name) {
			p.add(field, RuleName, "%q is there twice; write it once", name)
		}
	}
	if s.Auth != IAM && s.Auth != Secrets {
		p.add("Auth", RuleAuth, "it is %q; write %q or %q", s.Auth, IAM, Secrets)
	}
}

// checkIdentifier allows what PostgreSQL, RDS and IAM all take as it is.
func checkIdentifier(p *problems, field, name string) {
	switch {
	case !identifier.MatchString(name) || len(name) > 63:
		p.add(field, RuleName, "%q is not a plain identifier; write lower-case letters, digits and underscores, a letter first, at most 63", name)
	case strings.HasPrefix(name, "pg_"), strings.HasPrefix(name, "rds"):
		p.add(field, RuleName, "names that begin with pg_ or rds belong to PostgreSQL and RDS; write another name than %q", name)
	}
}

func (s Spec) checkEngineAndCapacity(p *problems) {
	v, ok := checkEngine(p, "Engine", s.Engine)
	checkCapacity(p, "Capacity", s.Capacity, !s.Proxy.Off)
	if !ok {
		return
	}
	for _, f := range []struct {
		wanted bool
		field  string
		what   string
		since  map[int]int
	}{
		{s.Capacity.AutoPause != 0, "Capacity.AutoPause", "pause", sinceAutoPause},
		{s.DataAPI, "DataAPI", "offer the Data API, which functions in the template use", sinceDataAPI},
		{s.Capacity.Max > 128, "Capacity.Max", "have more than 128 ACU", since256ACU},
		{s.IOOptimized, "IOOptimized", "use I/O-Optimized storage", sinceIOOptimized},
	} {
		if f.wanted && !v.has(f.since) {
			p.add(f.field, RuleEngineFeature, "Aurora PostgreSQL %s cannot %s; %d.%d and later can", s.Engine, f.what, v.major, f.since[v.major])
		}
	}
}

// checkCapacity looks at a Spec's or a template's capacity.
func checkCapacity(p *problems, field string, c Capacity, proxied bool) {
	if (c.Min == 0 || c.AutoPause != 0) && proxied {
		p.add(field+".AutoPause", RuleAutoPauseBehindProxy, "RDS Proxy keeps a connection open to each instance, so the cluster would never pause, and still be capped at 2,000 connections; take AutoPause away, or switch the proxy off")
	}
	if c.Min != 0 || c.AutoPause == 0 {
		within(p, field+".Min", RuleCapacity, c.Min, 0.5, 256)
	}
	within(p, field+".Max", RuleCapacity, c.Max, 1, 256)
	for name, acu := range map[string]float64{"Min": c.Min, "Max": c.Max} {
		if acu*2 != math.Trunc(acu*2) {
			p.add(field+"."+name, RuleCapacity, "%g ACU is not in steps of 0.5", acu)
		}
	}
	if c.Min > c.Max {
		p.add(field+".Min", RuleCapacity, "the minimum of %g ACU is above the maximum of %g", c.Min, c.Max)
	}
	if c.AutoPause != 0 {
		if c.Min > 0 {
			p.add(field+".Min", RuleAutoPause, "instances that pause have a minimum of 0; take Min or AutoPause away")
		}
		checkSeconds(p, field+".AutoPause", RuleAutoPause, c.AutoPause, 5*time.Minute, 24*time.Hour)
	}
}

// checkSeconds looks at a time that AWS takes in whole seconds.
func checkSeconds(p *problems, field string, rule Rule, d, least, most time.Duration) {
	if d < least || d > most || d%time.Second != 0 {
		p.add(field, rule, "it is %v; write whole seconds from %v to %v", d, least, most)
	}
}

func (s Spec) checkUsers(p *problems) {
	within(p, "Users", RuleUsers, len(s.Users), 1, maxUsers)
	ids := map[string]string{}
	for i, u := range s.Users {
		field := fmt.Sprintf("Users[%d]", i)
		checkIdentifier(p, field+".Name", u.Name)
		id := logicalName(u.Name)
		switch other, taken := ids[id]; {
		case taken:
			p.add(field+".Name", RuleUsers, "%q and %q are too much alike for the template's names; write another name", other, u.Name)
		case u.Name == s.MasterUser:
			p.add(field+".Name", RuleUsers, "%q is the administrator; applications log in as somebody else", u.Name)
		case u.Name == "public" || u.Name == "none":
			p.add(field+".Name", RuleUsers, "%q means something else to PostgreSQL; write another name", u.Name)
		}
		ids[id] = u.Name
		if u.Access != ReadWrite && u.Access != ReadOnly && u.Access != Owner {
			p.add(field+".Access", RuleUsers, "it is %q; write %q, %q or %q", u.Access, ReadWrite, ReadOnly, Owner)
		}
		for j, schema := range u.Schemas {
			if !slices.Contains(s.Schemas, schema) {
				p.add(fmt.Sprintf("%s.Schemas[%d]", field, j), RuleUsers, "%q is not among Schemas; add it there", schema)
			}
			if slices.Contains(u.Schemas[:j], schema) {
				p.add(fmt.Sprintf("%s.Schemas[%d]", field, j), RuleUsers, "%q is there twice; write it once", schema)
			}
		}
		for name, d := range map[string]time.Duration{"StatementTimeout": u.StatementTimeout, "IdleInTransactionTimeout": u.IdleInTransactionTimeout} {
			if d > 0 && (d%time.Millisecond != 0 || d > math.MaxInt32*time.Millisecond) {
				p.add(field+"."+name, RuleTimeout, "it is %v; write whole milliseconds, less than 24 days, or a negative value for none", d)
			}
		}
	}
}

// maxUsers keeps the hand-off within a parameter of 8 KB.
const maxUsers = 20

var functionARN = regexp.MustCompile(`^arn:[a-z-]+:lambda:[a-z0-9-]+:\d{12}:function:[A-Za-z0-9_:-]+$`)

func (s Spec) checkRotation(p *problems) {
	switch s.Rotation.Strategy {
	case "", SingleUser:
	case AlternatingUsers:
		p.add("Rotation.Strategy", RuleAlternatingRotation, "alternating users change the user name in the secret, and RDS Proxy ends the sessions of the other name; write %q", SingleUser)
	default:
		p.add("Rotation.Strategy", RuleRotation, "it is %q; write %q", s.Rotation.Strategy, SingleUser)
	}
	if s.Auth != Secrets {
		return
	}
	if every := s.Rotation.Every; every < 4*time.Hour || every > 999*24*time.Hour || every%time.Hour != 0 {
		p.add("Rotation.Every", RuleRotation, "it is %v; write whole hours from 4h to 999 days", every)
	}
	if arn := s.Rotation.FunctionARN; arn != "" && !functionARN.MatchString(arn) {
		p.add("Rotation.FunctionARN", RuleRotation, "%q is no ARN of a function", arn)
	}
}

var settingName = regexp.MustCompile(`^[a-z_][a-z0-9_.]*$`)

func (s Spec) checkProxy(p *problems) {
	if s.WriterOnly && len(s.Readers) > 0 {
		p.add("WriterOnly", RuleReaders, "there are Readers as well; take one of the two away")
	}
	if len(s.Readers) > 15 {
		p.add("Readers", RuleReaders, "there are %d; a cluster has at most 15", len(s.Readers))
	}
	for i, r := range s.Readers {
		within(p, fmt.Sprintf("Readers[%d].Tier", i), RuleReaders, r.Tier, 1, 15)
	}
	if s.Proxy.Off {
		return
	}
	checkPool(p, "Proxy", s.Proxy.MaxConnectionsPercent, s.Proxy.MaxIdleConnectionsPercent, s.Proxy.BorrowTimeout)
	checkSeconds(p, "Proxy.IdleClientTimeout", RuleProxyTimeout, s.Proxy.IdleClientTimeout, time.Minute, 8*time.Hour)
	for _, name := range slices.Sorted(maps.Keys(s.Proxy.Session)) {
		field := fmt.Sprintf("Proxy.Session[%q]", name)
		if !settingName.MatchString(name) {
			p.add(field, RuleSession, "this is no setting's name; write it as SHOW does, in lower case")
		}
		if strings.ContainsAny(s.Proxy.Session[name], ";\\\x00\n\r$") {
			p.add(field, RuleSession, "the value holds one of ; \\ $ or a line break, which an init query cannot carry safely")
		}
		if slices.Contains(listSettings, name) {
			if _, err := splitNames(s.Proxy.Session[name]); err != nil {
				p.add(field, RuleSession, "%v", err)
			}
		}
	}
}

// checkPool looks at a Spec's or a template's connection pool.
func checkPool(p *problems, field string, maxPercent, idlePercent int, borrow time.Duration) {
	within(p, field+".MaxConnectionsPercent", RuleConnectionsPercent, maxPercent, 1, 100)
	within(p, field+".MaxIdleConnectionsPercent", RuleConnectionsPercent, idlePercent, 0, max(maxPercent, 0))
	checkSeconds(p, field+".BorrowTimeout", RuleBorrowTimeout, borrow, time.Second, 5*time.Minute)
}

var (
	vpcID    = regexp.MustCompile(`^vpc-[0-9a-f]{8,17}$`)
	subnetID = regexp.MustCompile(`^subnet-[0-9a-f]{8,17}$`)
	groupID  = regexp.MustCompile(`^sg-[0-9a-f]{8,17}$`)
	zoneID   = regexp.MustCompile(`^[a-z0-9]+-az\d+$`)
)

// withoutProxy are the availability zones RDS Proxy is not in.
// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.html
var withoutProxy = []string{"use1-az3", "usw1-az2"}

func (s Spec) checkNetwork(p *problems) {
	n := s.Network
	if n.VPC != "" && !vpcID.MatchString(n.VPC) {
		p.add("Network.VPC", RuleNetwork, "%q is no id of a VPC; write vpc-...", n.VPC)
	}
	checkIDs(p, "Network.Subnets", subnetID, "subnet-...", n.Subnets)
	checkIDs(p, "Network.ClientSecurityGroups", groupID, "sg-...", n.ClientSecurityGroups)
	checkIDs(p, "Network.DirectSecurityGroups", groupID, "sg-...", n.DirectSecurityGroups)
	if len(n.Subnets) > 0 {
		checkSubnets(p, "Network.Subnets", n.Subnets)
	}
	if len(n.ZoneIDs) == 0 {
		return
	}
	if len(n.ZoneIDs) != len(n.Subnets) {
		p.add("Network.ZoneIDs", RuleNetwork, "there are %d for %d subnets; write one for each, in the same order", len(n.ZoneIDs), len(n.Subnets))
	}
	if len(slices.Compact(slices.Sorted(slices.Values(n.ZoneIDs)))) < 2 {
		p.add("Network.ZoneIDs", RuleSubnets, "all subnets are in one availability zone; cluster and proxy need two")
	}
	for i, id := range n.ZoneIDs {
		field := fmt.Sprintf("Network.ZoneIDs[%d]", i)
		if !zoneID.MatchString(id) {
			p.add(field, RuleNetwork, "%q is no availability zone id; write it as use1-az1, not as us-east-1a, which means another zone in each account", id)
		}
		if !s.Proxy.Off && slices.Contains(withoutProxy, id) {
			p.add(field, RuleZone, "RDS Proxy is not available in %s; take a subnet in another zone", id)
		}
	}
}

func checkIDs(p *problems, field string, form *regexp.Regexp, example string, ids []string) {
	for i, id := range ids {
		if !form.MatchString(id) {
			p.add(fmt.Sprintf("%s[%d]", field, i), RuleNetwork, "%q is no id; write %s", id, example)
		}
		if slices.Contains(ids[:i], id) {
			p.add(fmt.Sprintf("%s[%d]", field, i), RuleNetwork, "%q is there twice; write it once", id)
		}
	}
}

func checkSubnets[T any](p *problems, field string, subnets []T) {
	if len(subnets) < 2 {
		p.add(field, RuleSubnets, "there is only one subnet; cluster and proxy need two, in different availability zones")
	}
}
