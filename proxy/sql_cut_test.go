package proxy_test

// database/sql against a server that counts what it receives and hangs up in the
// middle: no statement may reach it twice.

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

// fault is what the server does to the connection on which it gets the statement.
type fault uint8

const (
	closes    fault = iota // closes the connection, having read everything
	resets                 // resets it
	fatal                  // says FATAL 57P01 and closes
	closeIdle              // closes it before the statement is sent
)

var faults = []struct {
	fault fault
	name  string
}{{closes, "close"}, {resets, "reset"}, {fatal, "57P01"}, {closeIdle, "closed idle"}}

// cutter is a server for one statement, which it never answers.
type cutter struct {
	target string // the statement's text
	fault  fault
	atText bool // strikes where the text arrives, not where it is to be executed

	received atomic.Int64  // how often the text or an Execute of it arrived, at most once per connection
	idle     chan struct{} // a value closes the idle connection
	closed   chan struct{} // has a value when that is done
}

func newCutter(t *testing.T, target string, f fault, atText bool) (*cutter, *scripted) {
	t.Helper()
	c := &cutter{target: target, fault: f, atText: atText, idle: make(chan struct{}), closed: make(chan struct{}, 1)}
	return c, newScripted(t, c.script)
}

func (c *cutter) script(d *dialogue) {
	msg, err := d.startup()
	if _, ok := msg.(*pgproto3.StartupMessage); !ok || err != nil {
		return
	}
	d.Send(&pgproto3.AuthenticationOk{})
	d.Send(&pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"})
	d.Send(&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"})
	d.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if d.Flush() != nil {
		return
	}
	ended := make(chan struct{})
	defer close(ended)
	if c.fault == closeIdle {
		d.server.wg.Go(func() {
			select {
			case <-c.idle:
				_ = d.conn.Close()
				c.closed <- struct{}{}
			case <-ended:
			}
		})
	}
	s := session{dialogue: d, cutter: c, texts: map[string]string{}, status: 'I'}
	for s.answer() {
	}
}

// session is one connection's protocol state.
type session struct {
	*dialogue
	cutter *cutter
	texts  map[string]string // of prepared statements
	bound  string            // the text that the portal executes
	seen   bool
	strike bool // at the next Sync
	status byte
}

func (s *session) answer() bool {
	msg, err := s.Receive()
	if err != nil {
		return false
	}
	switch msg := msg.(type) {
	case *pgproto3.Query:
		if s.hit(msg.String, true) {
			return s.cut()
		}
		s.run(msg.String)
		s.Send(&pgproto3.ReadyForQuery{TxStatus: s.status})
	case *pgproto3.Parse:
		s.texts[msg.Name] = msg.Query
		s.hit(msg.Query, s.cutter.atText)
		s.Send(&pgproto3.ParseComplete{})
	case *pgproto3.Describe:
		if msg.ObjectType == 'S' {
			s.Send(&pgproto3.ParameterDescription{ParameterOIDs: make([]uint32, strings.Count(s.texts[msg.Name], "$"))})
		}
		s.Send(&pgproto3.NoData{})
	case *pgproto3.Bind:
		s.bound = s.texts[msg.PreparedStatement]
		s.Send(&pgproto3.BindComplete{})
	case *pgproto3.Execute:
		s.hit(s.bound, true)
		s.run(s.bound)
	case *pgproto3.Close:
		s.Send(&pgproto3.CloseComplete{})
	case *pgproto3.Sync:
		if s.strike {
			return s.cut()
		}
		s.Send(&pgproto3.ReadyForQuery{TxStatus: s.status})
	case *pgproto3.Terminate:
		return false
	}
	return s.strike || s.Flush() == nil // an answer before the cut stays unsent
}

// hit counts the statement and reports whether the connection is to end at it. Simple
// protocol interpolates arguments, so the text is recognized by its beginning.
func (s *session) hit(text string, here bool) bool {
	if !strings.HasPrefix(text, s.cutter.target) {
		return false
	}
	if !s.seen {
		s.seen = true
		s.cutter.received.Add(1)
	}
	s.strike = s.strike || here && s.cutter.fault != closeIdle
	return s.strike
}

func (s *session) run(text string) {
	switch {
	case strings.HasPrefix(text, "begin"):
		s.status = 'T'
	case text == "commit", text == "rollback":
		s.status = 'I'
	}
	s.Send(&pgproto3.CommandComplete{CommandTag: []byte("INSERT 0 1")})
}

func (s *session) cut() bool {
	switch s.cutter.fault {
	case resets:
		_ = s.conn.(*net.TCPConn).SetLinger(0)
	case fatal:
		_, _ = s.conn.Write(must((&pgproto3.ErrorResponse{Severity: "FATAL", Code: "57P01", Message: "terminating connection due to administrator command"}).Encode(nil)))
	case closes, closeIdle:
	}
	_ = s.conn.Close()
	return false
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}

const insert = "insert into t values (1"

// operation runs the statement; idle is called where the connection is idle and the
// statement comes next.
type operation struct {
	name   string
	target string
	args   bool // whether it can have arguments
	run    func(ctx context.Context, db *sql.DB, text string, args []any, idle func()) error
}

var operations = []operation{
	{"Exec", insert, true, func(ctx context.Context, db *sql.DB, text string, args []any, idle func()) error {
		idle()
		_, err := db.ExecContext(ctx, text, args...)
		return err
	}},
	{"Query", insert, true, func(ctx context.Context, db *sql.DB, text string, args []any, idle func()) error {
		idle()
		rows, err := db.QueryContext(ctx, text, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
		}
		return rows.Err()
	}},
	{"QueryRow", insert, true, func(ctx context.Context, db *sql.DB, text string, args []any, idle func()) error {
		idle()
		return db.QueryRowContext(ctx, text, args...).Err()
	}},
	{"Prepare+Exec", insert, true, func(ctx context.Context, db *sql.DB, text string, args []any, idle func()) error {
		idle()
		stmt, err := db.PrepareContext(ctx, text)
		if err != nil {
			return err
		}
		defer stmt.Close()
		_, err = stmt.ExecContext(ctx, args...)
		return err
	}},
	{"Begin", "begin", false, func(ctx context.Context, db *sql.DB, _ string, _ []any, idle func()) error {
		idle()
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		return tx.Rollback()
	}},
	{"Commit", "commit", false, func(ctx context.Context, db *sql.DB, _ string, _ []any, idle func()) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		idle()
		return tx.Commit()
	}},
	{"Ping", "-- ping", false, func(ctx context.Context, db *sql.DB, _ string, _ []any, idle func()) error {
		idle()
		return db.PingContext(ctx)
	}},
}

var execModes = []pgx.QueryExecMode{
	pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
	pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
}

// bridges are the two ways to a *sql.DB. A foreign pool's connections have no counter.
var bridges = []struct {
	name string
	open func(t *testing.T, s *scripted, mode pgx.QueryExecMode) *sql.DB
}{
	{"OpenDB", func(t *testing.T, s *scripted, mode pgx.QueryExecMode) *sql.DB {
		t.Helper()
		db, err := proxy.OpenDB(t.Context(), s.dsn(), proxy.WithExecMode(mode))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		return db
	}},
	{"OpenDBFromPool, plain pool", func(t *testing.T, s *scripted, mode pgx.QueryExecMode) *sql.DB {
		t.Helper()
		cfg, err := pgxpool.ParseConfig(s.dsn() + "?sslmode=disable")
		if err != nil {
			t.Fatal(err)
		}
		cfg.ConnConfig.DefaultQueryExecMode = mode
		pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		return proxy.OpenDBFromPool(pool)
	}},
}

// outcomes counts, for a row of the table, how the cases ended.
type outcomes struct {
	mu                            sync.Mutex
	cases, received, twice, again int // again: succeeded on another connection
	texts                         map[string]bool
}

func TestSQLNoStatementIsSentTwice(t *testing.T) {
	t.Parallel()
	table := map[string]*outcomes{}
	for _, bridge := range bridges {
		for _, op := range operations {
			for _, f := range faults {
				row := &outcomes{texts: map[string]bool{}}
				table[bridge.name+"\t"+op.name+"\t"+f.name] = row
			}
		}
	}
	t.Run("cases", func(t *testing.T) {
		for _, bridge := range bridges {
			for _, op := range operations {
				for _, f := range faults {
					t.Run(bridge.name+"/"+op.name+"/"+f.name, func(t *testing.T) {
						t.Parallel()
						row := table[bridge.name+"\t"+op.name+"\t"+f.name]
						for _, mode := range execModes {
							for _, args := range [][]any{nil, {int32(7)}} {
								if args != nil && !op.args {
									continue
								}
								for _, atText := range []bool{false, true} {
									c, s := newCutter(t, op.target, f.fault, atText)
									row.cutCase(t, c, bridge.open(t, s, mode), op, args)
								}
							}
						}
					})
				}
			}
		}
	})
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "bridge\tcall\tfault\tcases\treceived once\tmore often\trun on another connection\terrors")
	for _, bridge := range bridges {
		for _, op := range operations {
			for _, f := range faults {
				row := table[bridge.name+"\t"+op.name+"\t"+f.name]
				fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\n", bridge.name, op.name, f.name, row.cases, row.received, row.twice, row.again, row.errorTexts())
			}
		}
	}
	_ = w.Flush()
	t.Log("\n" + b.String())
}

// cutCase runs one case, then checks that the DB goes on with another connection.
func (o *outcomes) cutCase(t *testing.T, c *cutter, db *sql.DB, op operation, args []any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := db.ExecContext(ctx, "warm up"); err != nil {
		t.Fatal(err)
	}
	text := op.target + ")"
	if args != nil {
		text = op.target + " + $1)"
	}
	err := op.run(ctx, db, text, args, func() {
		if c.fault == closeIdle {
			c.idle <- struct{}{}
			<-c.closed
		}
	})
	received := c.received.Load()
	if _, err := db.ExecContext(ctx, "next"); err != nil {
		t.Errorf("the next statement: %v", err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.cases++
	switch {
	case received > 1:
		o.twice++
		t.Errorf("received %d times, %v", received, err)
	case received == 1:
		o.received++
	}
	var pgErr *pgconn.PgError
	switch {
	case err == nil && c.fault == closeIdle && received == 1:
		o.again++
	case err == nil:
		t.Error("no error")
	case errors.Is(err, driver.ErrBadConn), ctx.Err() != nil:
		t.Errorf("got %v", err)
	case retry.Classify(err) != retry.Ambiguous:
		t.Errorf("verdict %s for %v", retry.Classify(err), err)
	case c.fault == fatal && (!errors.As(err, &pgErr) || pgErr.Code != "57P01"):
		t.Errorf("the server's answer is lost: %v", err)
	}
	if err != nil {
		o.texts[err.Error()] = true
	}
}

func (o *outcomes) errorTexts() string {
	ports := regexp.MustCompile(`127\.0\.0\.1:\d+`)
	texts := map[string]bool{}
	for text := range o.texts {
		texts[ports.ReplaceAllString(text, "...")] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(texts)), " | ")
}
