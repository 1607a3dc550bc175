package proxytest

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestCommentTags(t *testing.T) {
	t.Parallel()
	tests := []struct {
		sql  string
		want string // tags
		file string
		line int
	}{
		{sql: "select 1"},
		{sql: "select '/*file=''x''*/'"},
		{sql: "select 1 /* just words */ -- and more"},
		{sql: "select 1 /*file='a%2Fb.go',line='7'*/", want: "file=a/b.go line=7", file: "a/b.go", line: 7},
		{sql: "/* route='%2Forders',traceparent='00-5b-9c-01' */ select 1", want: "route=/orders traceparent=00-5b-9c-01"},
		{sql: "select 1 /*application:Shop,controller:orders,line:/app/models/order.rb:12:in `find'*/",
			want: "application=Shop controller=orders line=/app/models/order.rb:12:in `find'", file: "/app/models/order.rb", line: 12},
		{sql: "select 1 /*source_location='app/models/order.rb:12'*/", want: "source_location=app/models/order.rb:12", file: "app/models/order.rb", line: 12},
		{sql: "-- name: GetOrder :one\nselect 1", want: "name=GetOrder :one"},
		{sql: "select 1 /*code.filepath='x.py',code.lineno='3'*/", want: "code.filepath=x.py code.lineno=3", file: "x.py", line: 3},
		{sql: `select 1 /*k='it\'s'*/ /*b='2'*/`, want: "k=it's b=2"},
		{sql: "select 1 /*k='a%0Ab'", want: "k=a_b"},
		{sql: "select 1 /*file='x.go',line='nine'*/", want: "file=x.go line=nine"},
	}
	for _, tt := range tests {
		tags := commentTags(tt.sql)
		file, line := fileAndLine(tags)
		if got := strings.Join(tags, " "); got != tt.want || file != tt.file || line != tt.line {
			t.Errorf("%s:\n got %q, %q, %d\nwant %q, %q, %d", tt.sql, got, file, line, tt.want, tt.file, tt.line)
		}
	}
}

func TestPickFrames(t *testing.T) {
	t.Parallel()
	frame := func(function, file string) runtime.Frame {
		return runtime.Frame{Function: function, File: file, Line: 1}
	}
	stack := []runtime.Frame{
		frame("github.com/jackc/pgx/v5.(*Conn).Exec", "/home/me/go/pkg/mod/github.com/jackc/pgx/v5@v5.12.0/conn.go"),
		frame("database/sql.(*DB).ExecContext", goSource+"database/sql/sql.go"),
		frame("gorm.io/gorm.(*DB).Exec", "/home/me/go/pkg/mod/gorm.io/gorm@v1.31.0/finisher_api.go"),
		frame("example.com/shop/vendor/example.com/lib.Do", "/src/shop/vendor/example.com/lib/do.go"),
		frame("github.com/aurorapgx/aurorapgx/retry.Tx", "/src/aurorapgx/retry/tx.go"),
		frame("example.com/shop/store.Save", "/src/shop/store/save.go"),
		frame("example.com/shop/store.(*Store).Order", "/src/shop/store/order.go"),
		frame("testing.tRunner", goSource+"testing/testing.go"),
	}
	if got := pickFrames(stack); len(got) != 2 || got[0] != stack[5] || got[1] != stack[6] {
		t.Errorf("%+v", got)
	}
	if got := pickFrames(stack[:3]); len(got) != 1 || got[0] != stack[2] {
		t.Errorf("libraries only: %+v", got)
	}
	if got := pickFrames(stack[:2]); len(got) != 0 {
		t.Errorf("pgx only: %+v", got)
	}
	if f := frame("github.com/aurorapgx/aurorapgx/proxy.TestX", "/src/aurorapgx/proxy/x_test.go"); len(pickFrames([]runtime.Frame{f})) != 1 {
		t.Error("a test of this module is nobody's caller")
	}
}

func TestGoroutinesInQuery(t *testing.T) {
	t.Parallel()
	dump := `goroutine 7 [IO wait]:
internal/poll.runtime_pollWait(0x7f, 0x72)
	/usr/local/go/src/runtime/netpoll.go:351 +0x85
github.com/jackc/pgx/v5/pgconn.(*PgConn).peekMessage(0xc000)
	/mod/github.com/jackc/pgx/v5@v5.12.0/pgconn/pgconn.go:600 +0x8c
github.com/jackc/pgx/v5.(*Conn).Exec(0xc000, {0x1, 0x2}, {0x3, 0x4}, {0x0, 0x0, 0x0})
	/mod/github.com/jackc/pgx/v5@v5.12.0/conn.go:420 +0x1c5
example.com/shop/store.(*Store).Save(...)
	/src/shop/store/save.go:12
example.com/shop.main.func1()
	/src/shop/main.go:9 +0x1d
created by example.com/shop.main in goroutine 1
	/src/shop/main.go:8 +0x3b

goroutine 8 [select]:
github.com/jackc/pgx/v5/pgxpool.(*Pool).Acquire(0xc000)
	/mod/github.com/jackc/pgx/v5@v5.12.0/pgxpool/pool.go:600 +0x8c
example.com/shop.main.func2()
	/src/shop/main.go:19 +0x1d

goroutine 9 [IO wait]:
github.com/jackc/pgx/v5/pgconn.(*PgConn).peekMessage(0xc000)
	/mod/github.com/jackc/pgx/v5@v5.12.0/pgconn/pgconn.go:600 +0x8c
github.com/aurorapgx/aurorapgx/proxy/proxytest.(*connPool).connect(0xc000)
	/src/aurorapgx/proxy/proxytest/backend.go:90 +0x1
`
	got := goroutinesInQuery([]byte(dump))
	want := Caller{File: "/src/shop/store/save.go", Line: 12, Function: "example.com/shop/store.(*Store).Save", From: "/src/shop/main.go:9"}
	if len(got) != 1 || got["7"] != want {
		t.Errorf("%+v", got)
	}
}

// fakeTB notes failures.
type fakeTB struct {
	testing.TB

	failures []string
	cleanups []func()
}

func (f *fakeTB) Helper() {}
func (f *fakeTB) Errorf(format string, args ...any) {
	f.failures = append(f.failures, fmt.Sprintf(format, args...))
}
func (f *fakeTB) Cleanup(c func()) { f.cleanups = append(f.cleanups, c) }

func TestRequireNoPins(t *testing.T) {
	t.Parallel()
	p := &Proxy{}
	pin := func(rule ruleID, digest, file string, again bool) {
		p.pins.add(Pin{Rule: rules[rule].Name, Reason: rules[rule].Reason, Digest: digest, Caller: Caller{File: file, Line: 3}}, again)
	}
	pin(ruleListen, "listen jobs", "/src/listen.go", false)
	pin(ruleSettings, "set search_path to $1", "/src/store.go", true) // in a session that is pinned already
	pin(ruleSettings, "set search_path to $1", "/src/store.go", false)
	pin(ruleLock, "select pg_advisory_lock($1)", "/src/migrate.go", false)
	tb := &fakeTB{TB: t}
	RequireNoPins(tb, p, AllowRule("listen"), AllowFile("/migrate.go"), AllowStatement("set statement_timeout"))
	if len(tb.failures) != 1 || !strings.Contains(tb.failures[0], "/src/store.go:3") || !strings.Contains(tb.failures[0], "times:     2") ||
		!strings.Contains(tb.failures[0], "Set search_path in the connection string") {
		t.Errorf("now: %q", tb.failures)
	}
	pin(ruleSettings, "set statement_timeout = $1", "", false)
	pin(ruleDiscard, "discard all", "", false)
	for _, c := range slices.Backward(tb.cleanups) {
		c()
	}
	if len(tb.failures) != 2 || !strings.Contains(tb.failures[1], "discard all") || !strings.Contains(tb.failures[1], "Proxy.Trace") {
		t.Errorf("at the end: %q", tb.failures)
	}
	if st := p.pins.total; st != 5 {
		t.Errorf("%d sessions pinned: one was already", st)
	}
}

func TestInstead(t *testing.T) {
	t.Parallel()
	for digest, want := range map[string]string{
		"set search_path to $1":      "search_path in the connection string",
		"set time zone $1":           "TimeZone in the connection string",
		"set session timezone to $1": "TimeZone in the connection string",
		"set names $1":               "client_encoding in the connection string",
		"begin; set session characteristics as transaction $1 only": "pgx.TxOptions",
		"set role $1":                  "Sign in as that user",
		"set session authorization $1": "Sign in as that user",
		"set work_mem = $1":            "initialization query",
		"reset all":                    "initialization query",
	} {
		if got := instead(Pin{Rule: "settings", Digest: digest}); !strings.Contains(got, want) {
			t.Errorf("%s: %s", digest, got)
		}
	}
}

// TestGoroutineSearchEnds holds a search up with two goroutines that stay where they are.
func TestGoroutineSearchEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &goroutineSearch{}
		start := time.Now()
		c := g.conclude(g.search(Caller{Tags: "a=1"}), map[string]Caller{"1": {File: "a.go", Line: 1}, "2": {File: "b.go", Line: 2}})
		if c.Tags != "a=1" || !strings.Contains(c.Doubt, "one of a.go:1, b.go:2") || time.Since(start) > time.Second {
			t.Errorf("%+v after %s", c, time.Since(start))
		}
		g.searches.Store(maxSearches)
		if c := g.search(Caller{}); !strings.Contains(c.Doubt, "not looked for any more") {
			t.Errorf("%+v", c)
		}
	})
}

func TestTraceKeepsATracer(t *testing.T) {
	t.Parallel()
	p := &Proxy{}
	var cfg pgx.ConnConfig
	p.Trace(&cfg)
	first := cfg.Tracer
	p.Trace(&cfg)
	if _, ok := first.(*callTracer); !ok || cfg.Tracer == first {
		t.Errorf("%T, then %T", first, cfg.Tracer)
	}
}
