package proxytest

// What RDS Proxy cannot see: session state that a stored function or a DO block leaves behind. It does
// not pin the session, so the next client that gets the database connection finds it
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-pinning.html). In strict
// mode each database connection is looked at between two borrowers.

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// WithStrictSessions compares the session state of a database connection whenever a client gives it
// back with what it was when it was opened, behind the initialization query: settings, role, prepared
// statements (of SQL), cursors, temporary objects, notification channels, advisory locks. What is new
// is a [Leak]. RDS Proxy does no such thing. It costs a query per transaction, of about 7 ms on two busy
// cores and more with many functions in the database, during which the database connection is not in
// the pool; the client does not wait for it unless it needs that connection. The default is not to.
func WithStrictSessions() Option { return func(c *config) { c.strict = true } }

// A Leak is session state that a client left on a database connection without being pinned to it.
type Leak struct {
	ClientConnection   uint64    // the number of the client connection, as in the log
	DatabaseConnection uint64    // the number of the database connection, as in the log
	User               string    // the database user
	Database           string    // the database
	Kind               string    // "setting", "role", "prepared statement", "cursor", "temporary object", "channel", "advisory lock"
	Name               string    // of the setting, the object, …
	Digests            []string  // the statements since the connection was borrowed, the last 10 of them, the last one last
	Caller             Caller    // where the last statement came from, as far as that is known
	Time               time.Time // when
}

// Leaks lists what strict mode found, in order; at most the first 10,000. It waits for comparisons
// that are under way. See [WithStrictSessions].
func (p *Proxy) Leaks() []Leak {
	return slices.Clone(p.leaksFrom(0))
}

func (p *Proxy) leaksFrom(n int) []Leak {
	for range maxLeakWait / time.Millisecond {
		if p.inspecting.Load() == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	p.pins.mu.Lock()
	defer p.pins.mu.Unlock()
	return slices.Clone(p.pins.leaks[min(n, len(p.pins.leaks)):])
}

const (
	maxLeakWait    = 5 * time.Second
	maxRemembered  = 10 // statements of a borrow
	maxCustomNames = 50 // in each of them
	maxInspectName = 200
)

// stateQuery lists session state as kind, name and a value to compare. Nothing in it can be redirected
// by the session's search_path.
//
// PostgreSQL does not list settings that no library has defined, such as the app.tenant of row-level
// security; one can only ask for them by name. So it asks for whatever looks like such a name in
// functions and policies of the database and in the statements that were run (%s), and for those that
// ALTER ROLE and ALTER DATABASE set.
const stateQuery = `with src(t) as (
  select p.prosrc from pg_catalog.pg_proc p, pg_catalog.pg_language l
    where p.prolang = l.oid and l.lanname not in ('c', 'internal') and p.pronamespace not in ('pg_catalog'::pg_catalog.regnamespace, 'information_schema'::pg_catalog.regnamespace)
  union all select pg_catalog.pg_get_expr(p.polqual, p.polrelid) from pg_catalog.pg_policy p
  union all select pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) from pg_catalog.pg_policy p
  union all select pg_catalog.split_part(c.c, '=', 1) from pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) c(c)
  union all select '%s'
), custom(n) as (
  select distinct pg_catalog.lower((pg_catalog.regexp_matches(src.t, '[A-Za-z_][A-Za-z0-9_$]*(?:[.][A-Za-z_][A-Za-z0-9_$]*)+', 'g'))[1]) from src
)
select 'setting', c.n, pg_catalog.hashtext(pg_catalog.current_setting(c.n, true))::pg_catalog.text from custom c
  where pg_catalog.current_setting(c.n, true) <> '' and not exists (select from pg_catalog.pg_settings s where pg_catalog.lower(s.name) = c.n)
union all select 'setting', s.name::pg_catalog.text, pg_catalog.hashtext(s.setting)::pg_catalog.text
  from pg_catalog.pg_settings s where s.source = 'session'
union all select 'role', pg_catalog.concat(session_user, ' as ', current_user), ''
union all select 'prepared statement', p.name, '' from pg_catalog.pg_prepared_statements p where p.from_sql
union all select 'cursor', c.name, '' from pg_catalog.pg_cursors c where c.is_holdable
union all select 'temporary object', r.relname::pg_catalog.text, r.oid::pg_catalog.text
  from pg_catalog.pg_class r where r.relnamespace = pg_catalog.pg_my_temp_schema() and r.relkind in ('r', 'v', 'S', 'p')
union all select 'temporary object', f.proname::pg_catalog.text, f.oid::pg_catalog.text
  from pg_catalog.pg_proc f where f.pronamespace = pg_catalog.pg_my_temp_schema()
union all select 'channel', l.l, '' from pg_catalog.pg_listening_channels() l(l)
union all select 'advisory lock', pg_catalog.concat_ws(', ', k.classid, k.objid, k.mode), ''
  from pg_catalog.pg_locks k where k.locktype = 'advisory' and k.pid = pg_catalog.pg_backend_pid()`

// customSetting finds what may be the name of a setting that no library has defined.
var customSetting = regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_$]*(?:[.][A-Za-z_][A-Za-z0-9_$]*)+`)

// stateQuery completes the query with the names in these texts, and in the initialization query.
func (p *Proxy) stateQuery(ran []verdict) string {
	names := customSetting.FindAllString(p.cfg.initQuery, -1)
	for _, v := range ran {
		names = append(names, customSetting.FindAllString(v.text, maxCustomNames)...)
	}
	slices.Sort(names)
	return strings.Replace(stateQuery, "%s", strings.Join(slices.Compact(names), " "), 1)
}

// stateItem is one row of stateQuery.
type stateItem struct{ kind, name, value string }

type sessionState map[stateItem]bool

// inspection is a stateQuery under way on a database connection nobody borrows.
type inspection struct {
	state  sessionState
	failed string
}

// inspector is what strict mode keeps with a database connection.
type inspector struct {
	baseline sessionState // when it was opened
	latest   sessionState // at the latest inspection
	ran      *borrowed    // who gives it back; nil if there is nothing to inspect
	running  atomic.Pointer[inspection]
}

// borrowed is what a session did on a database connection.
type borrowed struct {
	session *clientSession
	ran     []verdict
	last    []uintptr // the call of the last of them, if it is traced
}

// ran notes a statement, in strict mode. mu is held.
func (s *clientSession) ran(v verdict) {
	if !s.p.cfg.strict {
		return
	}
	if len(s.history.ran) == maxRemembered {
		s.history.ran = slices.Delete(s.history.ran, 0, 1)
	}
	s.history.ran = append(s.history.ran, v)
	s.history.last = s.p.calls.find(s.remote, v.text)
}

// leave hands what was noted over to the database connection. mu is held.
func (s *clientSession) leave(db *dbConn) {
	if s.p.cfg.strict && len(s.history.ran) > 0 {
		db.inspector.ran = &borrowed{session: s, ran: s.history.ran, last: s.history.last}
		s.history = borrowed{}
	}
}

// baselineState reads the state of a new connection, in strict mode.
func (cp *connPool) baselineState(ctx context.Context, conn *pgconn.PgConn) (sessionState, error) {
	if !cp.p.cfg.strict {
		return nil, nil
	}
	results, err := conn.Exec(ctx, cp.p.stateQuery(nil)).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read the session state: %w", err)
	}
	state := sessionState{}
	for _, r := range results {
		for _, row := range r.Rows {
			state.add(row)
		}
	}
	return state, nil
}

func (s sessionState) add(row [][]byte) {
	if len(row) == 3 {
		s[stateItem{string(row[0]), string(row[1]), string(row[2])}] = true
	}
}

// inspect asks a connection that is given back for its state. It is false if there is no need to; when
// it is true, the connection comes back by itself.
func (db *dbConn) inspect() bool {
	if db.inspector.ran == nil {
		return false
	}
	delete(db.prepared, "") // a simple query drops it
	db.p.inspecting.Add(1)
	db.inspector.running.Store(&inspection{state: sessionState{}})
	query := db.p.stateQuery(db.inspector.ran.ran)
	msg := append(appendHeader(nil, 'Q', len(query)+1), query...)
	if _, err := db.conn.Write(append(msg, 0)); err != nil {
		_ = db.conn.Close() // its goroutine notices
	}
	return true
}

// readState reads what the database says to a stateQuery. It runs on the connection's goroutine.
func (db *dbConn) readState(in *inspection) error {
	for db.win.len() >= headerLen {
		kind, body, ok := parseHeader(db.win.bytes())
		if !ok || headerLen+body > len(db.win.buf) {
			return errMessageLength
		}
		if db.win.len() < headerLen+body {
			return nil
		}
		frame := db.win.bytes()[headerLen : headerLen+body]
		db.win.r += headerLen + body
		switch kind {
		case 'D':
			var row pgproto3.DataRow
			if err := row.Decode(frame); err == nil {
				in.state.add(row.Values)
			}
		case 'E':
			in.failed = errorCode(frame)
		case 'Z':
			db.inspected(in)
			return nil
		}
	}
	return nil
}

// inspected compares, reports, and puts the connection into the pool.
func (db *dbConn) inspected(in *inspection) {
	i := &db.inspector
	who := i.ran
	i.ran = nil
	if in.failed != "" {
		db.leaked(who, "unknown", "reading the session state failed with SQLSTATE "+in.failed)
	} else {
		for _, item := range in.state.newSince(i.baseline, i.latest) {
			db.leaked(who, item.kind, item.name)
		}
		i.latest = in.state
	}
	i.running.Store(nil)
	db.p.pool.put(db)
	db.p.inspecting.Add(-1)
}

// endInspection is for a connection that is lost in the middle of one.
func (db *dbConn) endInspection() {
	if db.inspector.running.Swap(nil) != nil {
		db.p.inspecting.Add(-1)
	}
}

// newSince lists what is in s and in none of the others, in order.
func (s sessionState) newSince(others ...sessionState) []stateItem {
	var list []stateItem
	for item := range s {
		if !slices.ContainsFunc(others, func(o sessionState) bool { return o[item] }) {
			list = append(list, item)
		}
	}
	slices.SortFunc(list, func(a, b stateItem) int {
		return strings.Compare(a.kind+"\x00"+a.name, b.kind+"\x00"+b.name)
	})
	return list
}

func (db *dbConn) leaked(who *borrowed, kind, name string) {
	s := who.session
	leak := Leak{
		ClientConnection: s.id, DatabaseConnection: db.id, User: s.info.user, Database: s.info.database,
		Kind: kind, Name: oneLine(name[:min(len(name), maxInspectName)]), Time: time.Now(),
		Caller: Caller{Application: s.info.params["application_name"]},
	}
	for _, v := range who.ran {
		leak.Digests = append(leak.Digests, v.digest)
	}
	last := who.ran[len(who.ran)-1]
	leak.Caller.Tags = strings.Join(last.tags, " ")
	if leak.Caller.File, leak.Caller.Line = fileAndLine(last.tags); leak.Caller.File == "" && len(who.last) > 0 {
		leak.Caller = leak.Caller.at(callerOf(who.last))
	}
	db.p.pins.addLeak(leak)
	s.logf(slog.LevelWarn, "proxytest: the session left state on the database connection [dbConnection=%d] that RDS Proxy "+
		"does not notice: %s %s. The next client finds it. Digest: %q.", db.id, leak.Kind, leak.Name, last.digest)
}

func (l *pinLog) addLeak(leak Leak) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.leaks) < maxPinsKept {
		l.leaks = append(l.leaks, leak)
	}
}
