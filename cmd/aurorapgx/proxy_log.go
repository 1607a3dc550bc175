package main

// What the verb proxy says: a summary at the start, and then a log that looks like RDS Proxy's
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.troubleshooting.html).

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
)

// proxyLog is a slog.Handler that writes one line a record: time (UTC), level, message. Attributes
// have no place in it.
type proxyLog struct {
	mu    *sync.Mutex
	w     io.Writer
	level slog.Level
}

func newProxyLog(w io.Writer, level slog.Level) *proxyLog {
	return &proxyLog{new(sync.Mutex), w, level}
}

// Enabled is slog's.
func (l *proxyLog) Enabled(_ context.Context, level slog.Level) bool { return level >= l.level }

// Handle writes the line.
func (l *proxyLog) Handle(_ context.Context, r slog.Record) error {
	message := strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' ' // what a client sent must not look like a line of its own
		}
		return c
	}, r.Message)
	line := r.Time.UTC().Format("2006-01-02T15:04:05") + " [" + r.Level.String() + "] " + message + "\n"
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := io.WriteString(l.w, line)
	return err
}

// WithAttrs is slog's.
func (l *proxyLog) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup is slog's.
func (l *proxyLog) WithGroup(string) slog.Handler { return l }

// proxySummary is what there is to know about a proxy that has started.
type proxySummary struct {
	URL       string            `json:"url"`
	NamedURL  string            `json:"namedUrl"`
	Host      string            `json:"host"`
	Address   string            `json:"address"`
	Port      int               `json:"port"`
	Region    string            `json:"region"`
	Backend   string            `json:"backend"`
	Database  string            `json:"database"`
	Users     map[string]string `json:"users"`
	CAFile    string            `json:"caFile"`
	KeyFile   string            `json:"accessKeyFile,omitempty"`
	IAMToken  string            `json:"iamTokenCommand,omitempty"`
	StatusURL string            `json:"statusUrl,omitempty"`

	names []string // of the users, in order
}

// summary gathers it. The connection strings are the first user's.
func (r *runningProxy) summary() proxySummary {
	db := r.s.database
	sum := proxySummary{
		Host: r.px.Host(), Address: r.px.Addr(), Port: int(r.px.Port()), Region: r.px.Region(),
		Backend: backendName(r), Database: cmp.Or(db.Database, db.User), Users: map[string]string{}, CAFile: r.caFile, KeyFile: r.key.file,
	}
	iam := ""
	for _, u := range r.users() {
		sum.Users[u.Name] = signsInWith(u.Auth)
		sum.names = append(sum.names, u.Name)
		if u.Auth == "iam" {
			iam = cmp.Or(iam, u.Name)
		}
	}
	if named, err := url.Parse(r.px.URL(sum.names[0], sum.Database)); err == nil {
		q := named.Query()
		q.Set("sslrootcert", r.caFile)
		named.RawQuery = readable(q)
		sum.NamedURL = named.String()
		sum.URL = sum.NamedURL
		if ip := net.ParseIP(q.Get("hostaddr")); ip.IsLoopback() { // also if it listens everywhere
			q.Del("hostaddr")
			named.Host, named.RawQuery = net.JoinHostPort("localhost", strconv.Itoa(sum.Port)), readable(q)
			sum.URL = named.String()
		}
	}
	if iam != "" {
		file := ""
		if sum.KeyFile != "" {
			file = "AWS_SHARED_CREDENTIALS_FILE=" + shellWord(sum.KeyFile) + " "
		}
		sum.IAMToken = fmt.Sprintf("%saws rds generate-db-auth-token --hostname %s --port %d --region %s --username %s",
			file, sum.Host, sum.Port, sum.Region, shellWord(iam))
	}
	if r.status.addr != "" {
		sum.StatusURL = "http://" + reachable(r.status.addr) + "/"
	}
	return sum
}

// users are those of the settings, and the backend's own, with how they sign in.
func (r *runningProxy) users() []proxyUser {
	users := slices.Clone(r.s.Users)
	if r.s.EndToEndIAM { // none of them by password
		for i := range users {
			users[i].Auth = "iam"
		}
	}
	for _, u := range users {
		if u.Name == r.s.database.User {
			return users
		}
	}
	return append(users, proxyUser{Name: r.s.database.User, Auth: "iam"})
}

func backendName(r *runningProxy) string {
	if strings.HasPrefix(r.s.database.Host, "/") {
		return r.s.database.Host
	}
	return net.JoinHostPort(r.s.database.Host, strconv.Itoa(int(r.s.database.Port)))
}

// reachable is where something that listens on addr is to be found from this machine.
func reachable(addr string) string {
	if host, port, err := net.SplitHostPort(addr); err == nil && net.ParseIP(host).IsUnspecified() {
		return net.JoinHostPort("localhost", port)
	}
	return addr
}

// readable leaves the slashes of file names alone.
func readable(q url.Values) string { return strings.ReplaceAll(q.Encode(), "%2F", "/") }

// shellWord quotes what a shell would trip over.
func shellWord(s string) string {
	if !strings.ContainsFunc(s, func(c rune) bool {
		return !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune("-_./:@", c)
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// announce prints the summary.
func (r *runningProxy) announce() error {
	sum := r.summary()
	if r.s.json {
		return r.p.printJSON(sum)
	}
	st := r.p.style()
	t := table{}
	t.add("connect", sum.URL)
	if sum.NamedURL != sum.URL {
		t.add("", sum.NamedURL)
	}
	for i, name := range sum.names {
		t.add([]string{"users", ""}[min(i, 1)], name+": "+sum.Users[name])
	}
	if r.s.EndToEndIAM {
		t.add("", "every user: IAM token")
	}
	fate := "removed at the end"
	if r.s.KeepCAFile {
		fate = "kept at the end"
	}
	t.add("CA file", sum.CAFile+" ("+fate+")")
	if sum.IAMToken != "" {
		t.add("IAM token", sum.IAMToken)
	}
	if sum.StatusURL != "" {
		t.add("status", sum.StatusURL)
		t.add("metrics", sum.StatusURL+"metrics")
	}
	lines := []string{
		st.bold("RDS Proxy for tests") + " on " + sum.Address + ", in front of database " + sum.Database + " on " + sum.Backend,
	}
	for _, line := range t.lines() {
		lines = append(lines, "  "+line)
	}
	return printLines(r.p.stdout, lines...)
}
