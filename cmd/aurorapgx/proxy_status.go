package main

// The status address of the verb proxy: a page for people, figures for Prometheus, and pins for the
// tests of other languages. It is read only, and on this machine unless the settings say otherwise.

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

//go:embed proxy_status.html
var statusHTML string

// statusServer is what serves; its zero value serves nothing.
type statusServer struct {
	addr   string
	failed chan error // why it stopped serving, other than for close
	server *http.Server
	done   chan struct{}
}

const (
	statusTimeout = 5 * time.Second // for a request to arrive, and for the last ones to be answered
	statusIdle    = time.Minute
)

func (r *runningProxy) serveStatus(ctx context.Context) (*statusServer, error) {
	s := &statusServer{failed: make(chan error, 1), done: make(chan struct{})}
	if !r.s.hasStatus() {
		close(s.done)
		return s, nil
	}
	listener, err := listen(ctx, "status", r.s.Status)
	if err != nil {
		return nil, err
	}
	s.addr = listener.Addr().String()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", r.servePage)
	mux.HandleFunc("GET /metrics", r.serveMetrics)
	mux.HandleFunc("GET /pins.json", r.servePins)
	handler := http.Handler(mux)
	if ip := listener.Addr().(*net.TCPAddr).IP; ip.IsLoopback() { //nolint:forcetypeassert // it listens on TCP
		handler = localOnly(mux)
	}
	s.server = &http.Server{Handler: handler, ReadTimeout: statusTimeout, WriteTimeout: 2 * statusTimeout, IdleTimeout: statusIdle}
	go func() {
		defer close(s.done)
		if err := s.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("status %s: %w", s.addr, err)
		}
	}()
	return s, nil
}

// localOnly refuses requests that name another host: a page on the web whose name suddenly leads to this
// machine could read the answers otherwise.
func localOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if host != "localhost" && !net.ParseIP(strings.Trim(host, "[]")).IsLoopback() {
			http.Error(w, "ask for localhost, or give --status an address that others may use", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// close lets requests that are being answered come to their end.
func (s *statusServer) close() error {
	if s.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
	defer cancel()
	err := s.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.server.Close())
	}
	<-s.done
	return err
}

// pinGroup is a statement that has pinned sessions.
type pinGroup struct {
	Times   int       `json:"times"`
	Now     int       `json:"sessionsPinnedNow"`
	Rule    string    `json:"rule"`
	Digest  string    `json:"digest"`
	Reason  string    `json:"reason"`
	Instead string    `json:"instead"`
	Caller  string    `json:"caller,omitempty"`
	User    string    `json:"user"`
	Data    string    `json:"database"`
	Last    time.Time `json:"last"`
}

// groupPins gathers pins by what has to be mended, the latest first.
func groupPins(pins []proxytest.Pin, clients []proxytest.ClientConnection) []*pinGroup {
	pinned := map[uint64]bool{}
	for _, c := range clients {
		pinned[c.ID] = c.Pinned
	}
	instead := map[string]string{}
	for _, r := range proxytest.Rules() {
		instead[r.Name] = r.Instead
	}
	type key struct{ rule, digest, caller, user, database string }
	index := map[key]*pinGroup{}
	groups := []*pinGroup{}
	for _, pin := range pins {
		pin.Caller.Doubt = "" // it is about callers in this process, and there are none
		k := key{pin.Rule, pin.Digest, pin.Caller.String(), pin.User, pin.Database}
		g := index[k]
		if g == nil {
			g = &pinGroup{Rule: k.rule, Digest: k.digest, Caller: k.caller, User: k.user, Data: k.database, Reason: pin.Reason, Instead: instead[pin.Rule]}
			index[k] = g
			groups = append(groups, g)
		}
		g.Times++
		g.Last = pin.Time
		if pinned[pin.ClientConnection] {
			g.Now++
		}
	}
	slices.SortStableFunc(groups, func(a, b *pinGroup) int { return b.Last.Compare(a.Last) })
	return groups
}

func (r *runningProxy) servePins(w http.ResponseWriter, _ *http.Request) {
	body, err := json.MarshalIndent(groupPins(r.px.Pins(), r.px.ClientConnections()), "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	send(w, "application/json", append(body, '\n'))
}

func send(w http.ResponseWriter, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(body)
}

// serveMetrics writes the text format of
// https://prometheus.io/docs/instrumenting/exposition_formats/: CloudWatch's figures under their own
// names, and what CloudWatch does not have under names of ours.
func (r *runningProxy) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	send(w, "text/plain; version=0.0.4; charset=utf-8", metricsText(r.px.Stats()))
}

func metricsText(st proxytest.Stats) []byte {
	var b bytes.Buffer
	write := func(name, kind, help string, value float64) {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n%s %s\n", name, help, name, kind, name, strconv.FormatFloat(value, 'f', -1, 64))
	}
	for _, m := range st.Metrics() {
		kind, help := "gauge", "As in CloudWatch."
		switch {
		case m.Total:
			kind, help = "counter", "As in CloudWatch, but counted from the start."
		case m.Unit != proxytest.Count:
			help = "As in CloudWatch, in " + strings.ToLower(string(m.Unit)) + ": the average from the start."
		}
		write(m.Name, kind, help, m.Value)
	}
	for _, m := range []struct {
		name, kind, help string
		value            float64
	}{
		{"aurorapgx_pinned_sessions_total", "counter", "Sessions that were pinned.", float64(st.PinnedSessions)},
		{"aurorapgx_session_leaks_total", "counter", "Session state left behind, found with strict sessions.", float64(st.SessionLeaks)},
		{"aurorapgx_borrow_requests_total", "counter", "Requests for a database connection.", float64(st.DatabaseConnectionsBorrowRequests)},
		{"aurorapgx_borrow_waiting", "gauge", "Requests that wait for a database connection.", float64(st.DatabaseConnectionsBorrowWaiting)},
		{"aurorapgx_borrow_timeouts_total", "counter", "Requests that waited in vain.", float64(st.DatabaseConnectionsBorrowTimeouts)},
		{"aurorapgx_borrow_aborted_total", "counter", "Requests whose client went away while they waited.", float64(st.DatabaseConnectionsBorrowRequestsAborted)},
		{"aurorapgx_borrow_latency_seconds_total", "counter", "Time spent waiting for a database connection.", st.DatabaseConnectionsBorrowLatency.Seconds()},
		{"aurorapgx_borrow_latency_max_seconds", "gauge", "The longest wait for a database connection.", st.DatabaseConnectionsBorrowLatencyMax.Seconds()},
		{"aurorapgx_statements_total", "counter", "Query and Execute messages.", float64(st.Statements)},
		{"aurorapgx_cancel_requests_total", "counter", "CancelRequests, which are ignored.", float64(st.CancelRequests)},
	} {
		write(m.name, m.kind, m.help, m.value)
	}
	return b.Bytes()
}

// maxRows bounds each table of the page.
const maxRows = 100

// statusPage is what the page shows.
type statusPage struct {
	Host, Addr, Backend, Database string
	Since, Now                    time.Time
	Stats                         proxytest.Stats
	Latency                       time.Duration // of a borrow, on average
	Tiles                         []tile
	Pins                          []*pinGroup
	MorePins                      int
	Databases                     []databaseRow
	MoreDatabases                 int
	Clients                       []proxytest.ClientConnection
	MoreClients                   int
	Strict                        bool
	Leaks                         []proxytest.Leak
	MoreLeaks                     int
}

type tile struct{ Name, Value, Note, Class string }

type databaseRow struct {
	proxytest.DatabaseConnection

	Pinned, InTransaction bool
}

// page gathers what the page shows, at this moment.
func (r *runningProxy) page() statusPage {
	st, clients := r.px.Stats(), r.px.ClientConnections()
	p := statusPage{
		Host: r.px.Host(), Addr: r.px.Addr(), Backend: backendName(r), Database: cmp.Or(r.s.database.Database, r.s.database.User),
		Since: r.since, Now: time.Now(), Stats: st, Strict: r.s.StrictSessions,
	}
	if n := st.DatabaseConnectionsBorrowRequests - st.DatabaseConnectionsBorrowRequestsAborted - st.DatabaseConnectionsBorrowTimeouts; n > 0 {
		p.Latency = st.DatabaseConnectionsBorrowLatency / time.Duration(n)
	}
	borrowers := map[uint64]proxytest.ClientConnection{}
	for _, c := range clients {
		borrowers[c.ID] = c
		if len(p.Clients) < maxRows {
			p.Clients = append(p.Clients, c)
		}
	}
	p.MoreClients = len(clients) - len(p.Clients)
	databases := r.px.DatabaseConnections()
	for _, db := range databases[:min(len(databases), maxRows)] {
		row := databaseRow{DatabaseConnection: db}
		if c, ok := borrowers[db.ClientConnection]; ok && c.DatabaseConnection == db.ID {
			row.Pinned, row.InTransaction = c.Pinned, c.InTransaction
		}
		p.Databases = append(p.Databases, row)
	}
	p.MoreDatabases = len(databases) - len(p.Databases)
	p.Pins = groupPins(r.px.Pins(), clients)
	p.MorePins = max(0, len(p.Pins)-maxRows)
	p.Pins = p.Pins[:min(len(p.Pins), maxRows)]
	if p.Strict {
		p.Leaks = r.px.Leaks()
		slices.Reverse(p.Leaks)
		p.MoreLeaks = max(0, len(p.Leaks)-maxRows)
		p.Leaks = p.Leaks[:min(len(p.Leaks), maxRows)]
	}
	p.Tiles = p.tiles()
	return p
}

func (p statusPage) tiles() []tile {
	st := p.Stats
	bad := func(n int64, class string) string {
		if n > 0 {
			return class
		}
		return ""
	}
	tiles := []tile{
		{"clients", strconv.FormatInt(st.ClientConnections, 10), fmt.Sprintf("%d signed in so far, %d refused", st.ClientConnectionsSetupSucceeded, st.ClientConnectionsSetupFailedAuth), ""},
		{"backends", fmt.Sprintf("%d of %d", st.DatabaseConnections, st.MaxDatabaseConnectionsAllowed), fmt.Sprintf("%d borrowed, %d in a transaction", st.DatabaseConnectionsCurrentlyBorrowed, st.DatabaseConnectionsCurrentlyInTransaction), ""},
		{"pinned now", strconv.FormatInt(st.DatabaseConnectionsCurrentlySessionPinned, 10), fmt.Sprintf("%d since the start", st.PinnedSessions), bad(st.PinnedSessions, "warn")},
		{"waiting now", strconv.FormatInt(st.DatabaseConnectionsBorrowWaiting, 10), fmt.Sprintf("%d timed out, %d given up by the client", st.DatabaseConnectionsBorrowTimeouts, st.DatabaseConnectionsBorrowRequestsAborted), bad(st.DatabaseConnectionsBorrowTimeouts, "bad")},
		{"borrow wait", short(p.Latency), short(st.DatabaseConnectionsBorrowLatencyMax) + " at most, " + strconv.FormatInt(st.DatabaseConnectionsBorrowRequests, 10) + " borrows", ""},
		{"statements", strconv.FormatInt(st.Statements, 10), fmt.Sprintf("%d simple queries", st.QueryRequests), ""},
	}
	if p.Strict {
		tiles = append(tiles, tile{"state left behind", strconv.FormatInt(st.SessionLeaks, 10), "found by strict sessions", bad(st.SessionLeaks, "bad")})
	}
	return tiles
}

// short is a duration for people.
func short(d time.Duration) string {
	switch {
	case d <= 0:
		return "0"
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%.3g ms", float64(d)/float64(time.Millisecond))
	case d < time.Minute:
		return fmt.Sprintf("%.3g s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	}
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}

var statusTemplate = template.Must(template.New("status").Funcs(template.FuncMap{
	"short": short,
	"ago": func(now, then time.Time) string {
		if then.IsZero() {
			return "–"
		}
		return short(now.Sub(then).Truncate(time.Second)) + " ago"
	},
	"clock":     func(t time.Time) string { return t.UTC().Format("15:04:05") },
	"last":      func(list []string) string { return list[len(list)-1] },
	"plainFrom": func(c proxytest.Caller) string { c.Doubt = ""; return c.String() },
}).Parse(statusHTML))

func (r *runningProxy) servePage(w http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer
	if err := statusTemplate.Execute(&b, r.page()); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	send(w, "text/html; charset=utf-8", b.Bytes())
}
