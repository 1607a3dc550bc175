package proxy

// The connection string, read before pgx reads it: so that a mistake gets an error
// that names where it came from, that no password ends up in that error, and that
// the PG* environment cannot change what the string says.

import (
	"cmp"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	fromConnString = "connection string"
	fromDefault    = "default"
)

// setting is one value with the place it came from, for errors.
type setting struct{ value, source string }

// settings are libpq's parameter keywords, pgx's and our own.
type settings map[string]setting

func (s settings) get(key string) string { return s[key].value }

// has reports whether key was given a value, be it from the string or the environment.
func (s settings) has(key string) bool { return s[key].value != "" }

// parseConnString reads either form of a connection string, without looking at the
// environment. Like libpq, the last of repeated keys wins, except for hosts.
func parseConnString(connString string) (settings, error) {
	trimmed := strings.TrimSpace(connString)
	if trimmed == "" {
		return nil, badString("it is empty", "set it, for example postgres://app@app.proxy-abc.eu-west-1.rds.amazonaws.com/orders; an unset DATABASE_URL looks like this")
	}
	if strings.ContainsRune(trimmed, 0) {
		return nil, badString("it contains a NUL byte", "check where it is read from")
	}
	var (
		s   settings
		err error
	)
	if rest, ok := cutScheme(trimmed); ok {
		s, err = parseURL(rest)
	} else if scheme, _, ok := strings.Cut(trimmed, "://"); ok && !strings.ContainsAny(scheme, " =") {
		return nil, badString("the scheme "+quote(scheme)+" is not PostgreSQL's", "begin it with postgres:// or postgresql://")
	} else {
		s, err = parseKeywordValue(trimmed)
	}
	if err != nil {
		return nil, err
	}
	return s, s.checkKeys()
}

func badString(problem, fix string) error {
	return &ConfigError{Source: fromConnString, Problem: problem, Fix: fix}
}

// bothOf is the error for two ways to log in.
func bothOf(problem string) error {
	return &ConfigError{Source: fromConnString, Problem: problem, Fix: "remove one of the two", trouble: twoLogins}
}

func cutScheme(s string) (string, bool) {
	for _, scheme := range []string{"postgres://", "postgresql://"} {
		if len(s) >= len(scheme) && strings.EqualFold(s[:len(scheme)], scheme) {
			return s[len(scheme):], true
		}
	}
	return s, false
}

// parseURL reads user[:password]@host[:port][,host[:port]...][/database][?key=value&...].
// net/url is not used for the authority: it knows one host, and its errors quote
// the password.
func parseURL(rest string) (settings, error) {
	s := settings{}
	rest, query, _ := strings.Cut(rest, "?")
	authority, database, _ := strings.Cut(rest, "/")
	if !strings.Contains(authority, "@") && strings.Contains(query, "@") && strings.Contains(authority, ":") {
		return nil, badString("there is an @ behind the first question mark", "percent-encode ? as %3F and @ as %40 in user name and password")
	}
	if strings.Contains(database, "@") {
		return nil, badString("there is an @ behind the first slash", "percent-encode / as %2F and @ as %40 in user name and password")
	}
	userinfo, hosts, ok := cutLast(authority, "@")
	if !ok {
		userinfo, hosts = "", authority
	}
	if strings.Contains(userinfo, "@") {
		return nil, badString("user name or password contains an @ as it is", "percent-encode it as %40")
	}
	user, password, _ := strings.Cut(userinfo, ":")
	for key, raw := range map[string]string{"user": user, "password": password, "database": database} {
		if err := s.setEscaped(key, raw); err != nil {
			return nil, err
		}
	}
	if strings.Contains(s.get("database"), "/") {
		return nil, badString("the database name contains a slash", "write host/database?key=value; percent-encode a slash that belongs to the name twice")
	}
	if err := s.setHosts(hosts); err != nil {
		return nil, err
	}
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok && strings.Contains(pair, "@") {
			return nil, badString("there is an @ behind the first question mark", "percent-encode ? as %3F and @ as %40 in user name and password")
		}
		if !ok {
			return nil, badString("the parameter "+quote(key)+" has no value", "write key=value pairs separated by &")
		}
		name, err := url.QueryUnescape(key)
		if err != nil || name == "" {
			return nil, badString("a parameter's name is empty or badly percent-encoded", "write key=value pairs separated by &")
		}
		if err := s.setEscaped(name, value); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// setEscaped stores a percent-encoded value, under libpq's name for it. The error
// does not quote the value: it may be a password.
func (s settings) setEscaped(key, raw string) error {
	value, err := url.PathUnescape(raw)
	if err != nil || strings.ContainsRune(value, 0) {
		return badString("the value of "+quote(key)+" is badly percent-encoded", "encode special characters, a percent sign itself as %25")
	}
	s.set(key, value)
	return nil
}

func (s settings) set(key, value string) {
	switch {
	case key == "dbname":
		key = "database"
	case strings.EqualFold(key, "timezone"): // as pgx names what it takes from PGTZ
		key = "timezone"
	}
	if key == "database" && value == "" {
		return
	}
	s[key] = setting{value, fromConnString}
}

// setHosts splits host:port,host:port; an address in brackets is IPv6.
func (s settings) setHosts(list string) error {
	var hosts, ports []string
	for one := range strings.SplitSeq(list, ",") {
		host, port := one, ""
		if strings.HasPrefix(one, "[") {
			end := strings.IndexByte(one, ']')
			if end < 0 {
				return badString("an IPv6 address lacks its closing bracket", "write [2001:db8::1]:5432")
			}
			host, port = one[1:end], strings.TrimPrefix(one[end+1:], ":")
		} else if h, p, ok := strings.Cut(one, ":"); ok {
			host, port = h, p
			if strings.Contains(p, ":") {
				return badString("host and port contain more than one colon", "write IPv6 addresses in brackets: [2001:db8::1]:5432, and percent-encode a colon in the password as %3A")
			}
		}
		host, err := url.PathUnescape(host)
		if err != nil || strings.ContainsAny(host, "\x00,") {
			return badString("the host is badly percent-encoded", "write the bare name")
		}
		hosts, ports = append(hosts, host), append(ports, port)
	}
	if list != "" {
		s["host"] = setting{strings.Join(hosts, ","), fromConnString}
		if strings.Join(ports, "") != "" {
			s["port"] = setting{strings.Join(ports, ","), fromConnString}
		}
	}
	return nil
}

// parseKeywordValue reads libpq's other form: host=h user='u x'.
// https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-KEYWORD-VALUE
func parseKeywordValue(in string) (settings, error) {
	s := settings{}
	for in = strings.TrimLeft(in, " \t\r\n"); in != ""; in = strings.TrimLeft(in, " \t\r\n") {
		key, rest, ok := strings.Cut(in, "=")
		key = strings.TrimSpace(key)
		if !ok || key == "" || strings.ContainsAny(key, " \t\r\n'\\") {
			return nil, badString("it is neither a URL nor keyword=value pairs", "write postgres://user@host/database, or host=... user=... dbname=...")
		}
		value, rest, err := keywordValue(key, strings.TrimLeft(rest, " \t\r\n"))
		if err != nil {
			return nil, err
		}
		s.set(key, value)
		in = rest
	}
	return s, nil
}

// keywordValue reads one value, quoted or not, and returns what follows it.
func keywordValue(key, in string) (value, rest string, err error) {
	quoted := strings.HasPrefix(in, "'")
	if quoted {
		in = in[1:]
	}
	var b strings.Builder
	for i := 0; i < len(in); i++ {
		switch c := in[i]; {
		case c == '\\' && i+1 < len(in):
			i++
			b.WriteByte(in[i])
		case quoted && c == '\'':
			return b.String(), in[i+1:], nil
		case !quoted && strings.IndexByte(" \t\r\n", c) >= 0:
			return b.String(), in[i:], nil
		default:
			b.WriteByte(c)
		}
	}
	if quoted {
		return "", "", badString("the value of "+quote(key)+" has an opening quote and no closing one", "close it with '; inside quotes write \\' for a quote")
	}
	return b.String(), "", nil
}

// knownKeys are the keywords that are not startup parameters.
var knownKeys = []string{
	"host", "hostaddr", "port", "database", "user", "password", "passfile", "secret", "connect_timeout",
	"sslmode", "sslkey", "sslcert", "sslcertmode", "sslrootcert", "sslnegotiation", "sslpassword", "sslsni",
	"krbspn", "krbsrvname", "target_session_attrs", "min_protocol_version", "max_protocol_version", "channel_binding", "require_auth",
	"pool_max_conns", "pool_min_conns", "pool_min_idle_conns", "pool_max_conn_lifetime", "pool_max_conn_idle_time",
	"pool_health_check_period", "pool_max_conn_lifetime_jitter", "pool_ping_timeout",
	"default_query_exec_mode", "statement_cache_capacity", "description_cache_capacity",
}

// checkKeys catches misspelt keywords. Without it they would become startup
// parameters, which fail later and elsewhere.
func (s settings) checkKeys() error {
	for key := range s {
		if slices.Contains(knownKeys, key) {
			continue
		}
		switch {
		case key == "service" || key == "servicefile":
			return badString(quote(key)+" is not supported", "write the service's settings into the connection string")
		case key == "ssl":
			return badString(`"ssl" is JDBC's keyword`, "write sslmode=verify-full")
		case strings.HasPrefix(key, "ssl") && key != "ssl_renegotiation_limit", strings.HasPrefix(key, "pool_"), strings.HasPrefix(key, "gss"):
			return badString("unknown keyword "+quote(key), "did you mean "+nearest(key)+"?")
		case !validParameterName(key):
			return badString(quote(key)+" is no parameter name", "names consist of letters, digits, underscores and dots")
		}
	}
	return s.checkValues()
}

func validParameterName(name string) bool {
	for i, r := range name {
		letter := r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		inside := '0' <= r && r <= '9' || r == '.'
		if !letter && (i == 0 || !inside) {
			return false
		}
	}
	return name != ""
}

// nearest finds the known keyword that shares most letters' positions with key, by
// edit distance.
func nearest(key string) string {
	return slices.MinFunc(knownKeys, func(a, b string) int { return cmp.Compare(distance(key, a), distance(key, b)) })
}

func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		previous := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := previous
			if a[i] != b[j] {
				cost++
			}
			previous = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// checkValues looks at each value that has a form of its own.
func (s settings) checkValues() error {
	for key, one := range s {
		if one.value == "" {
			continue
		}
		var fix string
		switch key {
		case "port":
			fix = checkEach(one.value, "a port is a number from 1 to 65535", func(v string) bool {
				n, err := strconv.ParseUint(v, 10, 16)
				return v == "" || err == nil && n > 0
			})
		case "hostaddr":
			fix = checkEach(one.value, "hostaddr is a numeric address, as 127.0.0.1; names go into host", func(v string) bool {
				_, err := netip.ParseAddr(v)
				return err == nil
			})
		case "pool_max_conns":
			fix = checkEach(one.value, "write a whole number from 1", atLeast(1))
		case "pool_min_conns", "pool_min_idle_conns", "statement_cache_capacity", "description_cache_capacity", "connect_timeout":
			fix = checkEach(one.value, "write a whole number from 0", atLeast(0))
		case "pool_max_conn_lifetime", "pool_max_conn_idle_time", "pool_health_check_period", "pool_max_conn_lifetime_jitter", "pool_ping_timeout":
			fix = checkEach(one.value, "write a duration with its unit, as 30s or 5m", func(v string) bool {
				d, err := time.ParseDuration(v)
				return err == nil && d >= 0
			})
		default:
			fix = checkEnum(key, one.value)
		}
		if fix != "" {
			shown := key + "=" + quote(one.value)
			if key == "port" {
				shown = "the port" // in a malformed URL the password may have landed here
			}
			return &ConfigError{Source: one.source, Problem: shown + " is not valid", Fix: fix}
		}
	}
	return nil
}

// enums are the keywords with a closed list of values.
var enums = map[string][]string{
	"sslmode":                 {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"},
	"sslnegotiation":          {"postgres", "direct"},
	"sslcertmode":             {"disable", "allow", "require"},
	"sslsni":                  {"0", "1"},
	"channel_binding":         {"disable", "prefer", "require"},
	"target_session_attrs":    {"any", "read-write", "read-only", "primary", "standby", "prefer-standby"},
	"min_protocol_version":    {"3.0", "3.2", "latest"},
	"max_protocol_version":    {"3.0", "3.2", "latest"},
	"default_query_exec_mode": {"cache_statement", "cache_describe", "describe_exec", "exec", "simple_protocol"},
}

func checkEnum(key, value string) (fix string) {
	allowed, ok := enums[key]
	if !ok || slices.Contains(allowed, value) {
		return ""
	}
	return "write one of " + strings.Join(allowed, ", ")
}

func checkEach(list, fix string, ok func(string) bool) string {
	for v := range strings.SplitSeq(list, ",") {
		if !ok(v) {
			return fix
		}
	}
	return ""
}

func atLeast(least int64) func(string) bool {
	return func(v string) bool {
		n, err := strconv.ParseInt(v, 10, 32)
		return err == nil && n >= least
	}
}

// keywordValue writes the settings in the form that pgx parses without surprises.
func (s settings) keywordValue() string {
	keys := make([]string, 0, len(s))
	for key := range s {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	escape := strings.NewReplacer(`\`, `\\`, `'`, `\'`)
	var b strings.Builder
	for _, key := range keys {
		b.WriteString(key + "='" + escape.Replace(s.get(key)) + "' ")
	}
	return b.String()
}
