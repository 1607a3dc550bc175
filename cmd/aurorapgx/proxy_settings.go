package main

// What the verb proxy is told: flags over a JSON file over defaults, and how that becomes
// options of proxytest.

import (
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

// backendVariable has the DSN of the database, out of sight of the process list.
const backendVariable = "AURORAPGX_BACKEND"

// proxySettings is the JSON file, too. A flag has the name of its field, with dashes.
type proxySettings struct {
	Listen  string `json:"listen"`
	Status  string `json:"status"`
	Backend string `json:"backend"`

	Users     []proxyUser `json:"users"`
	AccessKey string      `json:"accessKey"`

	Host         string `json:"host"`
	Region       string `json:"region"`
	EndpointName string `json:"endpointName"`

	MaxConnections       int      `json:"maxConnections"`
	BorrowTimeout        duration `json:"borrowTimeout"`
	IdleClientTimeout    duration `json:"idleClientTimeout"`
	InitQuery            string   `json:"initQuery"`
	MaxClientConnections int      `json:"maxClientConnections"`
	ClientConnectionRate int      `json:"clientConnectionRate"`
	IAMRate              int      `json:"iamRate"`
	ClockScale           float64  `json:"clockScale"`

	SetLocalPins   bool `json:"setLocalPins"`
	StrictSessions bool `json:"strictSessions"`
	EndToEndIAM    bool `json:"endToEndIam"`
	AllowPlaintext bool `json:"allowPlaintext"`

	CAFile        string `json:"caFile"`
	KeepCAFile    bool   `json:"keepCaFile"`
	LogLevel      string `json:"logLevel"`
	RequireNoPins bool   `json:"requireNoPins"`

	json     bool
	database *pgconn.Config // what Backend says
}

func defaultProxySettings() *proxySettings {
	return &proxySettings{
		Listen: "127.0.0.1:6432", Status: "127.0.0.1:6433", MaxConnections: 10, ClockScale: 1, LogLevel: "info",
		BorrowTimeout: duration(120 * time.Second), IdleClientTimeout: duration(30 * time.Minute),
	}
}

// proxyFlags declares the flags over s, whose values are their defaults.
func (p *program) proxyFlags(s *proxySettings) (f *flags, config *string) {
	f = p.flags("proxy", "--backend DSN [flags]", proxyHelp)
	config = f.String("config", "", "read settings from `FILE`, JSON; - is standard input")
	f.StringVar(&s.Listen, "listen", s.Listen, "the `ADDRESS` for clients")
	f.StringVar(&s.Status, "status", s.Status, "the `ADDRESS` of the status page; off for none")
	f.StringVar(&s.Backend, "backend", s.Backend, "the `DSN` of the database; $"+backendVariable+" if left out")
	for _, auth := range []struct{ flag, name, how string }{
		{"user", "scram", "with its password, by SCRAM-SHA-256"}, {"md5-user", "md5", "with its password, by MD5"}, {"iam-user", "iam", "with an IAM token"},
	} {
		value := "NAME=SOURCE"
		if auth.name == "iam" {
			value = "NAME[=SOURCE]"
		}
		f.Var(&userFlag{&s.Users, auth.name}, auth.flag, "a database user who signs in "+auth.how+", as `"+value+"`;\nSOURCE has the database's password; may be repeated")
	}
	f.StringVar(&s.AccessKey, "access-key", s.AccessKey, "the AWS access key that signs IAM tokens, from `SOURCE`: env takes\n"+
		"$AWS_ACCESS_KEY_ID and $AWS_SECRET_ACCESS_KEY, file:PATH a credentials file, which is made\nif there is none; a random key in a file of its own if left out")
	f.StringVar(&s.Host, "host", s.Host, "the host `NAME` that certificate and IAM tokens are for; one of RDS if left out")
	f.StringVar(&s.Region, "region", s.Region, "the AWS region `NAME`; the one in the host name if left out")
	f.StringVar(&s.EndpointName, "endpoint-name", s.EndpointName, "the `NAME` of the proxy endpoint; the default endpoint if left out")
	f.IntVar(&s.MaxConnections, "max-connections", s.MaxConnections, "`N` database connections at most")
	f.TextVar(&s.BorrowTimeout, "borrow-timeout", s.BorrowTimeout, "how long a statement waits for a database connection, a `TIME`")
	f.TextVar(&s.IdleClientTimeout, "idle-client-timeout", s.IdleClientTimeout, "how long a client may be without a request, a `TIME`; 0s for ever")
	f.StringVar(&s.InitQuery, "init-query", s.InitQuery, "`SQL` that is run on every new database connection")
	f.IntVar(&s.MaxClientConnections, "max-client-connections", s.MaxClientConnections, "`N` client connections at most; 0 for no limit")
	f.IntVar(&s.ClientConnectionRate, "client-connection-rate", s.ClientConnectionRate, "`N` new client connections per second at most; 0 for no limit")
	f.IntVar(&s.IAMRate, "iam-rate", s.IAMRate, "`N` sign-ins with IAM per second at most; 0 for no limit")
	f.Float64Var(&s.ClockScale, "clock-scale", s.ClockScale, "divide idle timeouts and lifetimes by this `FACTOR`, 1 or more")
	f.BoolVar(&s.SetLocalPins, "set-local-pins", s.SetLocalPins, "let SET LOCAL, SET TRANSACTION and SET CONSTRAINTS pin")
	f.BoolVar(&s.StrictSessions, "strict-sessions", s.StrictSessions, "look for session state that functions leave behind for the next client")
	f.BoolVar(&s.EndToEndIAM, "end-to-end-iam", s.EndToEndIAM, "let any database user sign in with an IAM token")
	f.BoolVar(&s.AllowPlaintext, "allow-plaintext", s.AllowPlaintext, "do not require TLS of clients with a password")
	f.StringVar(&s.CAFile, "ca-file", s.CAFile, "write the CA that signed the certificate to `FILE`, as soon as all is ready;\na temporary file if left out")
	f.BoolVar(&s.KeepCAFile, "keep-ca-file", s.KeepCAFile, "leave that file behind at the end")
	f.StringVar(&s.LogLevel, "log-level", s.LogLevel, "the least `LEVEL` that is logged: debug, info or warn")
	f.BoolVar(&s.RequireNoPins, "require-no-pins", s.RequireNoPins, "list at the end what pinned sessions, and exit with 1 if there is any")
	f.BoolVar(&s.json, "json", s.json, "print the start-up summary as JSON, for programs")
	return f, config
}

// proxySettings reads the command line, and the file it names.
func (p *program) proxySettings(args []string) (*proxySettings, error) {
	s := defaultProxySettings()
	f, config := p.proxyFlags(s)
	if _, err := f.parse(args, 0); err != nil {
		return nil, err
	}
	if *config != "" {
		s = defaultProxySettings()
		name, err := p.readProxySettings(*config, s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		f, _ = p.proxyFlags(s)
		if _, err := f.parse(args, 0); err != nil {
			return nil, err
		}
	}
	source := "--backend"
	f.Visit(func(d *flag.Flag) {
		if d.Name == "backend" && hasPassword(s.Backend) {
			_, _ = fmt.Fprintf(p.stderr, "aurorapgx: whoever may list this machine's processes can read the password in --backend; give the DSN as $%s instead\n", backendVariable)
		}
	})
	if s.Backend == "" {
		s.Backend, source = p.getenv(backendVariable), "$"+backendVariable
	}
	if s.Backend == "" {
		return nil, f.wrong("which database? Set $%s to its DSN, as postgres://app:secret@localhost/orders, or give --backend DSN", backendVariable)
	}
	if err := s.parseBackend(); err != nil {
		return nil, f.wrong("%s %v", source, err)
	}
	if wrong := s.check(); wrong != nil {
		return nil, f.wrong("--%s %s", cmp.Or(wrong.flag, flagName(wrong.field)), wrong.problem)
	}
	return s, nil
}

// readProxySettings reads and checks the file, and says what it is called in errors.
func (p *program) readProxySettings(path string, s *proxySettings) (name string, err error) {
	data, name, err := p.readFile(path)
	if err != nil {
		return name, err
	}
	if err := decodeStrict(data, s); err != nil {
		return name, err
	}
	if s.Backend != "" {
		if err := s.parseBackend(); err != nil {
			return name, fmt.Errorf("backend %w", err)
		}
	}
	if wrong := s.check(); wrong != nil {
		return name, fmt.Errorf("%s %s", wrong.field, wrong.problem)
	}
	return name, nil
}

// parseBackend reads the DSN. An error holds nothing that may be part of a password.
func (s *proxySettings) parseBackend() (err error) {
	s.database, err = pgconn.ParseConfig(s.Backend)
	if err == nil {
		return nil
	}
	detail := ""
	if cause := errors.Unwrap(err); cause != nil && !strings.ContainsAny(cause.Error(), "\"`':") {
		detail = " (" + cause.Error() + ")"
	}
	return fmt.Errorf("is no connection string%s; write postgres://USER:PASSWORD@HOST:PORT/DATABASE, with characters such as / @ : %% in the password percent-encoded", detail)
}

// hasPassword looks into both forms of a DSN.
func hasPassword(dsn string) bool {
	_, rest, isURL := strings.Cut(dsn, "://")
	if end := strings.IndexAny(rest, "/?"); end >= 0 {
		rest = rest[:end]
	}
	userinfo, _, hasUser := strings.Cut(rest, "@")
	return isURL && hasUser && strings.Contains(userinfo, ":") || strings.Contains(dsn, "password")
}

// wrongSetting says what is wrong with a field, and what to write instead.
type wrongSetting struct{ field, problem, flag string }

// check looks at the values. Each problem names the field as the JSON file has it.
func (s *proxySettings) check() *wrongSetting {
	for _, n := range []struct {
		field string
		value float64
		least float64
	}{
		{"maxConnections", float64(s.MaxConnections), 1}, {"clockScale", s.ClockScale, 1},
		{"maxClientConnections", float64(s.MaxClientConnections), 0}, {"clientConnectionRate", float64(s.ClientConnectionRate), 0},
		{"iamRate", float64(s.IAMRate), 0},
	} {
		if !(n.value >= n.least) || math.IsInf(n.value, 1) {
			return &wrongSetting{field: n.field, problem: fmt.Sprintf("is %g; write %g or more", n.value, n.least)}
		}
	}
	for _, d := range []struct {
		field string
		value duration
	}{{"borrowTimeout", s.BorrowTimeout}, {"idleClientTimeout", s.IdleClientTimeout}} {
		if d.value < 0 {
			return &wrongSetting{field: d.field, problem: fmt.Sprintf("is %s; write 0s or more", time.Duration(d.value))}
		}
	}
	for _, a := range []struct{ field, addr string }{{"listen", s.Listen}, {"status", s.Status}} {
		if a.field == "status" && !s.hasStatus() {
			continue
		}
		if problem := checkAddress(a.addr); problem != "" {
			return &wrongSetting{field: a.field, problem: problem}
		}
	}
	for _, n := range []struct{ field, name string }{{"host", s.Host}, {"region", s.Region}, {"endpointName", s.EndpointName}} {
		if strings.ContainsAny(n.name, " /:@?[]") {
			return &wrongSetting{field: n.field, problem: fmt.Sprintf("is %q; write the name alone, without scheme and port", n.name)}
		}
	}
	var level slog.Level
	if level.UnmarshalText([]byte(s.LogLevel)) != nil {
		return &wrongSetting{field: "logLevel", problem: fmt.Sprintf("is %q; write debug, info or warn", s.LogLevel)}
	}
	if s.KeepCAFile && s.CAFile == "" {
		return &wrongSetting{field: "keepCaFile", problem: "needs a file to keep; give the CA file a path"}
	}
	if problem := checkKeySource(s.AccessKey); problem != "" {
		return &wrongSetting{field: "accessKey", problem: problem}
	}
	for i, u := range s.Users {
		if problem := u.check(); problem != "" {
			flag := map[string]string{"md5": "md5-user", "iam": "iam-user"}[u.Auth]
			return &wrongSetting{field: fmt.Sprintf("users[%d]", i), problem: problem, flag: cmp.Or(flag, "user")}
		}
	}
	return nil
}

func (s *proxySettings) hasStatus() bool { return s.Status != "" && s.Status != "off" }

func (s *proxySettings) logLevel() slog.Level {
	var level slog.Level
	_ = level.UnmarshalText([]byte(s.LogLevel)) // was checked
	return level
}

func checkAddress(addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Sprintf("is %q; write HOST:PORT, as 127.0.0.1:6432", addr)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n > 65535 {
		return fmt.Sprintf("has port %q; write a number up to 65535, or 0 for a free port", port)
	}
	return ""
}

// onLoopback completes an address that has a port only.
func onLoopback(addr string) string {
	if strings.HasPrefix(addr, ":") {
		return "127.0.0.1" + addr
	}
	return addr
}

// flagName is the flag that sets a field of the file.
func flagName(field string) string {
	var b strings.Builder
	for _, r := range field {
		if unicode.IsUpper(r) {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// options are proxytest's, but for listener, key and logger. Passwords are read now.
func (s *proxySettings) options(getenv func(string) string) ([]proxytest.Option, error) {
	opts := []proxytest.Option{
		proxytest.WithMaxConnections(s.MaxConnections), proxytest.WithBorrowTimeout(time.Duration(s.BorrowTimeout)),
		proxytest.WithIdleClientTimeout(time.Duration(s.IdleClientTimeout)), proxytest.WithInitQuery(s.InitQuery),
		proxytest.WithMaxClientConnections(s.MaxClientConnections), proxytest.WithClientConnectionRate(s.ClientConnectionRate),
		proxytest.WithIAMRate(s.IAMRate), proxytest.WithClockScale(s.ClockScale),
	}
	if s.EndpointName != "" {
		opts = append(opts, proxytest.WithEndpointName(s.EndpointName))
	}
	if s.Host != "" {
		opts = append(opts, proxytest.WithHost(s.Host))
	}
	if s.Region != "" {
		opts = append(opts, proxytest.WithRegion(s.Region))
	}
	for _, choice := range []struct {
		on  bool
		opt func() proxytest.Option
	}{
		{s.SetLocalPins, proxytest.WithSetLocalPins}, {s.StrictSessions, proxytest.WithStrictSessions},
		{s.EndToEndIAM, proxytest.WithEndToEndIAM}, {s.AllowPlaintext, proxytest.WithoutTLSRequired},
	} {
		if choice.on {
			opts = append(opts, choice.opt())
		}
	}
	for _, u := range s.Users {
		more, err := u.options(getenv)
		if err != nil {
			return nil, err
		}
		opts = append(opts, more...)
	}
	return opts, nil
}

// duration is a time.Duration that JSON has as a text, "30s".
type duration time.Duration

// MarshalText is for package flag, which shows defaults.
func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads "30s".
func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is no time; write one such as 30s or 5m", text)
	}
	*d = duration(v)
	return nil
}

// UnmarshalJSON says what to write to somebody who wrote a number.
func (d *duration) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return fmt.Errorf(`%s is no time; write one such as "30s" or "5m"`, data)
	}
	return d.UnmarshalText([]byte(text))
}

// ignoreMissing is for files that may be gone already.
func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// signsInWith describes a way to sign in.
func signsInWith(auth string) string {
	return cmp.Or(map[string]string{"md5": "password (MD5)", "iam": "IAM token"}[auth], "password (SCRAM-SHA-256)")
}
