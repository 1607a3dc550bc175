package integration

// What a client gets through the proxy is, byte for byte, what PostgreSQL sends it directly.

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

// step is what a client sends in one go, and the types of the messages it then waits for, in order.
type step struct {
	send  []byte
	until string
}

// says is a step of messages.
func says(until string, msgs ...pgproto3.FrontendMessage) step {
	var s step
	s.until = until
	for _, msg := range msgs {
		b, err := msg.Encode(s.send)
		if err != nil {
			panic(err)
		}
		s.send = b
	}
	return s
}

// asks is a simple query.
func asks(sql string) step { return says("Z", &pgproto3.Query{String: sql}) }

// frame is a message with a body of any kind.
type frame struct {
	kind byte
	body []byte
}

func (frame) Frontend()           {}
func (frame) Decode([]byte) error { panic("not for reading") }
func (f frame) Encode(dst []byte) ([]byte, error) {
	dst = append(dst, f.kind)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(f.body)+4))
	return append(dst, f.body...), nil
}

// functionCall calls a function with binary arguments, nil for NULL.
func functionCall(oid uint32, args ...[]byte) frame {
	b := binary.BigEndian.AppendUint32(nil, oid)
	b = append(b, 0, 1, 0, 1) // all arguments binary
	b = binary.BigEndian.AppendUint16(b, uint16(len(args)))
	for _, arg := range args {
		if arg == nil {
			b = binary.BigEndian.AppendUint32(b, 0xffffffff)
			continue
		}
		b = binary.BigEndian.AppendUint32(b, uint32(len(arg)))
		b = append(b, arg...)
	}
	return frame{'F', append(b, 0, 1)}
}

func int4(n int32) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }

// parse, bind and execute use the unnamed statement and portal.
func parse(sql string, oids ...uint32) pgproto3.FrontendMessage {
	return &pgproto3.Parse{Query: sql, ParameterOIDs: oids}
}

func bind(params ...string) pgproto3.FrontendMessage { return bindTo("", "", params...) }

func bindTo(portal, statement string, params ...string) pgproto3.FrontendMessage {
	b := &pgproto3.Bind{DestinationPortal: portal, PreparedStatement: statement}
	for _, p := range params {
		b.Parameters = append(b.Parameters, []byte(p))
	}
	return b
}

func execute(rows uint32) pgproto3.FrontendMessage { return &pgproto3.Execute{MaxRows: rows} }

func describe(what byte, name string) pgproto3.FrontendMessage {
	return &pgproto3.Describe{ObjectType: what, Name: name}
}

func closing(what byte, name string) pgproto3.FrontendMessage {
	return &pgproto3.Close{ObjectType: what, Name: name}
}

func copyData(b []byte) pgproto3.FrontendMessage { return &pgproto3.CopyData{Data: b} }

var (
	syncs   = &pgproto3.Sync{}
	flushes = &pgproto3.Flush{}
	copyEnd = &pgproto3.CopyDone{}
)

// everyByte is all byte values, NUL included, several times.
func everyByte(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return b
}

// binaryCopy is a COPY BINARY stream of rows of one bytea each.
func binaryCopy(rows ...[]byte) []byte {
	b := append([]byte("PGCOPY\n\377\r\n\000"), make([]byte, 8)...)
	for _, row := range rows {
		b = append(b, 0, 1)
		b = binary.BigEndian.AppendUint32(b, uint32(len(row)))
		b = append(b, row...)
	}
	return append(b, 0xff, 0xff)
}

// inPieces makes CopyData messages of some size of b.
func inPieces(b []byte, size int) (msgs []pgproto3.FrontendMessage) {
	for len(b) > 0 {
		n := min(size, len(b))
		msgs = append(msgs, copyData(b[:n]))
		b = b[n:]
	}
	return msgs
}

const bytesSetup = `
	create table if not exists blobs (body bytea);
	create table if not exists lines (id int primary key, body text);
	create or replace view shown as select 1 as id;
	create table if not exists later (id int primary key deferrable initially deferred);
	create or replace function chatty(n int) returns int language plpgsql as $$
		begin raise notice 'row %', n; if n % 3 = 0 then raise warning 'three'; end if; return n; end $$;
	create or replace function set_quietly(k text, v text) returns text language plpgsql as $$
		begin execute format('set %s to %L', k, v); return v; end $$;
	truncate blobs, lines, later;`

// byteCases are conversations. None must depend on process ids or on the time.
var byteCases = []struct {
	name  string
	steps []step
}{
	{"empty queries", []step{
		asks(""), asks(" ; ;"), asks("-- nothing"), asks("select 1;;select 2;"),
		says("Z", parse(""), bind(), describe('P', ""), execute(0), syncs),
		says("Z", parse(" -- still nothing\n"), describe('S', ""), syncs),
		says("ZZZ", syncs, syncs, syncs),
	}},
	{"simple queries", []step{
		asks("select 1, null, ''::text, '\\x00ff'::bytea, 'äöü€'"),
		asks("select 1; select 1/0; select 3"),
		asks("insert into lines values (1, 'a'), (2, 'b'); insert into lines values (1, 'c')"),
		asks("select * from lines"),
		asks("begin; insert into lines values (1, 'a'), (2, null); savepoint s; select oops"),
		asks("select 1"), asks("rollback to s"), asks("select * from lines order by 1"), asks("commit"), asks("commit"),
		asks("syntax error here"), asks("update lines set body = body returning *"),
	}},
	{"errors in pipelines", []step{
		says("ZZZ",
			parse("select $1::int"), bind("1"), execute(0), parse("select 1/$1::int"), bind("0"), execute(0),
			parse("select 'skipped'"), bind(), execute(0), syncs,
			parse("select 'after'"), bind(), execute(0), syncs,
			parse("select nonsense from"), describe('S', ""), syncs),
		says("ZZ", parse("insert into later values (1), (1)"), bind(), execute(0), syncs, // fails at the Sync
			parse("select count(*) from later"), bind(), describe('P', ""), execute(0), syncs),
		says("ZZ", parse("begin"), bind(), execute(0), parse("select 1/0"), bind(), execute(0), syncs,
			parse("select 1"), bind(), execute(0), syncs),
		says("Z", parse("rollback"), bind(), execute(0), syncs),
		says("Z", bindTo("", "unknown"), describe('P', ""), execute(0), syncs),
		says("Z", describe('S', "unknown"), syncs), says("Z", describe('P', "unknown"), syncs),
		says("Z", &pgproto3.Execute{Portal: "unknown"}, syncs),
		says("Z", closing('S', "unknown"), closing('P', "unknown"), syncs),
		says("Z", parse("select $1::int"), bind("not a number"), execute(0), syncs),
		says("Z", parse("select $1::int"), bind("1", "2"), execute(0), syncs),
		says("Z", parse("select $1::text"), bind("with \x00 inside"), execute(0), syncs),
	}},
	{"named statements", []step{
		says("Z", &pgproto3.Parse{Name: "one", Query: "select $1::int as n, $2::text"}, describe('S', "one"), syncs),
		says("Z", bindTo("", "one", "1", "x"), describe('P', ""), execute(0), syncs),
		says("Z", &pgproto3.Parse{Name: "one", Query: "select 2"}, syncs),
		says("Z", bindTo("", "one", "3", "y"), execute(0), syncs),
		says("Z", closing('S', "one"), &pgproto3.Parse{Name: "one", Query: "select 4"}, bindTo("", "one"), execute(0), syncs),
		says("Z", &pgproto3.Parse{Name: `quoted " name % with ünïcödé`, Query: "select 5"}, syncs),
		says("Z", &pgproto3.Parse{Name: `quoted " name % with ünïcödé`, Query: "select 6"}, syncs),
		says("Z", &pgproto3.Parse{Name: strings.Repeat("n", 3000), Query: "select 7"}, syncs),
		says("Z", bindTo("", strings.Repeat("n", 3000)), execute(0), syncs),
		says("Z", bindTo("", "one"), execute(0), bindTo("", `quoted " name % with ünïcödé`), execute(0), syncs),
		says("Z", bindTo("", "px1"), execute(0), syncs),
		says("Z", parse("select 8"), syncs), says("Z", bind(), execute(0), syncs), asks("select 9"),
		says("Z", bind(), execute(0), syncs), // the simple query took the unnamed statement
		says("Z", parse("broken"), syncs), says("Z", bind(), execute(0), syncs),
	}},
	{"long statements", []step{
		says("Z", parse("select '"+strings.Repeat("x", 1<<21)+"'"), bind(), execute(0), syncs),
		says("Z", &pgproto3.Parse{Name: "long", Query: "select length('" + strings.Repeat("x", 100_000) + "'), $1::int"}, syncs),
		says("Z", bindTo("", "long", "1"), execute(0), syncs),
		asks("select length('" + strings.Repeat("y", 1<<22) + "')"),
		asks("select " + strings.Repeat("1,", 1600) + "1"), // too many columns
		asks("select " + strings.Repeat("1,", 1599) + "1"),
	}},
	{"flushes without sync", []step{
		says("1", parse("select generate_series(1, 3)"), flushes),
		says("2T", bind(), describe('P', ""), flushes),
		says("s", execute(2), flushes), says("C", execute(2), flushes),
		says("1", &pgproto3.Parse{Name: "held", Query: "select 1/$1::int"}, flushes),
		says("E", bindTo("", "held", "0"), execute(0), flushes),
		says("", parse("select 'skipped'"), flushes), says("Z", syncs),
		says("Z", flushes, flushes, bindTo("", "held", "1"), flushes, execute(0), flushes, flushes, syncs, flushes),
		says("Z", flushes, syncs),
	}},
	{"portals", []step{
		asks("begin"),
		says("Z", parse("select n, repeat('r', n) from generate_series(1, 10) n"), bindTo("p", ""),
			&pgproto3.Execute{Portal: "p", MaxRows: 3}, syncs),
		says("Z", parse("select 'other'"), bindTo("q", ""), &pgproto3.Execute{Portal: "p", MaxRows: 3},
			&pgproto3.Execute{Portal: "q", MaxRows: 1}, &pgproto3.Execute{Portal: "q", MaxRows: 1}, syncs),
		says("Z", &pgproto3.Execute{Portal: "p", MaxRows: 100}, describe('P', "p"), closing('P', "p"),
			&pgproto3.Execute{Portal: "p"}, syncs),
		asks("rollback"),
		says("Z", parse("select generate_series(1, 10)"), bind(), execute(3), execute(3), execute(4), execute(1), syncs),
		says("Z", execute(1), syncs), // the Sync took the portal
		says("Z", parse("insert into lines select n, 'x' from generate_series(1, 5) n returning id"), bind(), execute(2), syncs),
		asks("select count(*) from lines"),
	}},
	{"formats", []step{
		says("Z", parse("select $1::bytea, $2::int8, null::int"), &pgproto3.Bind{
			ParameterFormatCodes: []int16{1, 1}, Parameters: [][]byte{everyByte(1000), {0, 0, 0, 0, 0, 0, 0, 9}},
			ResultFormatCodes: []int16{1, 1, 1},
		}, describe('P', ""), execute(0), syncs),
		says("Z", parse("select $1::text is null", 25), &pgproto3.Bind{Parameters: [][]byte{nil}}, execute(0), syncs),
	}},
	{"large rows", []step{
		asks("select repeat('0123456789', 1 << 20)"),
		asks("select n, repeat(chr(65 + n % 26), n) from generate_series(1, 3000) n"),
		asks("select n from generate_series(1, 100000) n"),
		says("Z", parse("select $1::bytea, length($1::bytea)"), &pgproto3.Bind{
			ParameterFormatCodes: []int16{1}, Parameters: [][]byte{everyByte(5 << 20)}, ResultFormatCodes: []int16{1},
		}, execute(0), syncs),
		asks("do $$ begin raise exception '%', repeat('e', 200000); end $$"), // an error larger than any buffer
	}},
	{"copy in", []step{
		says("G", &pgproto3.Query{String: "copy blobs from stdin binary"}),
		says("Z", append(inPieces(binaryCopy(everyByte(300), everyByte(3<<20), nil), 100_000), copyEnd)...),
		asks("select length(body), md5(body) from blobs order by 1"),
		says("G", &pgproto3.Query{String: "copy lines from stdin"}),
		says("Z", append(inPieces([]byte("1\ta\n2\t\\N\n3\t\n"), 1), flushes, syncs, copyEnd)...),
		says("G", &pgproto3.Query{String: "copy lines from stdin"}),
		says("Z", copyData([]byte("4\tx\n")), &pgproto3.CopyFail{Message: "changed my mind"}),
		says("G", &pgproto3.Query{String: "copy lines from stdin"}),
		says("Z", append(inPieces([]byte("five\tx\n"+strings.Repeat("6\ty\n", 100_000)), 8000), copyEnd)...),
		asks("select * from lines order by 1"),
		says("Z", append(append([]pgproto3.FrontendMessage{&pgproto3.Query{String: "copy lines from stdin"}},
			inPieces([]byte("7\tin one go\n"), 3)...), copyEnd)...),
		says("GG", append(append([]pgproto3.FrontendMessage{&pgproto3.Query{String: "copy lines from stdin; copy blobs from stdin"}},
			copyData([]byte("8\ttwo copies\n"))), copyEnd)...),
		says("Z", copyData([]byte("\\\\x00ff\n")), copyEnd),
		asks("select count(*) from blobs"),
		says("Z", &pgproto3.Query{String: "copy lines from stdin"}, syncs, copyData([]byte("9\tan early Sync\n")), copyEnd),
		asks("copy shown from stdin"), asks("select count(*) from lines"),
		says("Z", copyEnd, copyData([]byte("to nobody")), &pgproto3.CopyFail{Message: "nothing"}, syncs),
		asks("select 1"),
	}},
	{"copy in, extended", []step{
		says("G", parse("copy lines from stdin"), bind(), execute(0), flushes),
		says("Z", copyData([]byte("1\ta\n")), copyEnd, syncs),
		says("G", parse("copy lines from stdin"), bind(), execute(0), syncs), // as libpq, a Sync too early
		says("Z", copyData([]byte("2\ta\n")), copyEnd, syncs),
		says("G", parse("copy lines from stdin"), bind(), execute(0), syncs),
		says("Z", copyData([]byte("2\tduplicate\n")), copyEnd, syncs),
		says("G", parse("copy lines from stdin"), bind(), execute(0), syncs),
		says("Z", copyData([]byte("3\ta\n")), &pgproto3.CopyFail{Message: "no"}, syncs),
		says("Z", parse("copy lines from stdin"), bind(), execute(0), copyData([]byte("4\ta\n")), copyEnd, syncs),
		says("Z", parse("copy nowhere from stdin"), bind(), execute(0), copyData([]byte("4\ta\n")), copyEnd, syncs),
		says("Z", parse("copy shown from stdin"), bind(), execute(0), syncs), // fails before it reads the Sync
		asks("select 1"), says("Z", copyData([]byte("5\ta\n")), copyEnd, syncs),
		says("G", parse("copy lines from stdin"), bind(), execute(0), flushes),
		says("Z", syncs, copyData([]byte("6\ta\n")), syncs, copyEnd, syncs),
		says("E", parse("copy shown from stdin"), bind(), execute(0), flushes), // skips now
		says("Z", copyData([]byte("7\ta\n")), copyEnd, &pgproto3.Query{String: "skipped"}, syncs),
		asks("select * from lines order by 1"),
	}},
	{"copy out", []step{
		asks("copy (select n, repeat('c', n % 100), null from generate_series(1, 20000) n) to stdout"),
		asks("copy (select decode('00ff00', 'hex'), null::int from generate_series(1, 3)) to stdout (format binary)"),
		asks("copy (select 1 / (500 - n) from generate_series(1, 1000) n) to stdout"),
		says("Z", parse("copy (values (1), (2)) to stdout"), bind(), describe('P', ""), execute(0), syncs),
		asks("copy (select repeat('z', 10000000)) to stdout"),
	}},
	{"notices", []step{
		asks("select chatty(n) from generate_series(1, 7) n"),
		asks("do $$ begin raise notice '%', repeat('n', 100000); raise debug 'unheard'; end $$"),
		says("Z", parse("select chatty(n) from generate_series(1, 3) n"), bind(), execute(2), syncs),
		asks("rollback"), asks("drop table if exists never_there"),
	}},
	{"notifications", []step{
		asks("listen a"), asks("notify a, 'one'"), asks("begin; notify a, 'two'; notify b; select 1"), asks("commit"),
		says("Z", parse("select pg_notify('a', $1)"), bind(strings.Repeat("p", 7000)), execute(0), syncs),
		asks("unlisten *"), asks("notify a"),
	}},
	{"parameter status", []step{
		// In a transaction, since what a function sets stays with the database connection.
		asks("begin"), asks("select set_quietly('application_name', 'quiet')"), asks("select set_quietly('TimeZone', 'Asia/Tokyo')"),
		asks("select set_quietly('application_name', ''), set_quietly('TimeZone', 'UTC')"), asks("rollback"),
		asks("begin; set local datestyle to german; select current_date is null; rollback"),
		asks("set client_encoding to latin1"), asks("select 'caf\xe9'"), asks("select 'not €'"), asks("reset client_encoding"),
		asks("set standard_conforming_strings to off; set intervalstyle to iso_8601"),
	}},
	{"function calls", []step{
		says("Z", functionCall(177, int4(40), int4(2))), // int4pl
		says("Z", functionCall(154, int4(1), int4(0))),  // int4div
		says("Z", functionCall(177, nil, int4(2))), says("Z", functionCall(4_000_000_000)),
		asks("begin"), says("Z", functionCall(177, int4(1), int4(1))), says("Z", functionCall(154, int4(1), int4(0))),
		says("Z", functionCall(177, int4(1), int4(1))), asks("rollback"),
		says("ZZZ", functionCall(177, int4(1), int4(2)), &pgproto3.Query{String: "select 1"}, functionCall(177, int4(3), int4(4))),
	}},
	{"simple among extended", []step{
		says("ZZ", parse("select 1"), bind(), execute(0), &pgproto3.Query{String: "select 2"}, bind(), execute(0), syncs),
		says("ZZZ", &pgproto3.Query{String: "select 1"}, &pgproto3.Query{String: "select 2"}, &pgproto3.Query{String: "oops"}),
		says("ZZ", parse("oops"), &pgproto3.Query{String: "skipped"}, syncs, &pgproto3.Query{String: "select 3"}),
		says("ZZ", parse("oops"), functionCall(177, int4(1), int4(2)), syncs, functionCall(177, int4(3), int4(4))),
		says("Z", parse("select 4"), syncs),
		says("Z", &pgproto3.Parse{Name: "broken", Query: "oops"}, &pgproto3.Query{String: "skipped"}, syncs),
		says("Z", bind(), execute(0), syncs), // the query that was skipped left the unnamed statement
		says("Z", &pgproto3.Parse{Name: "kept", Query: "select 5"}, syncs),
		says("ZZ", &pgproto3.Parse{Name: "kept", Query: "oops"}, syncs, bindTo("", "kept"), closing('S', "kept"), syncs),
		says("Z", bindTo("", "kept"), syncs),
	}},
	{"deallocation", []step{
		says("Z", &pgproto3.Parse{Name: "s", Query: "select 1"}, syncs), asks("deallocate all"),
		says("Z", bindTo("", "s"), execute(0), syncs),
		asks("prepare by_sql as select 2"), says("Z", bindTo("", "by_sql"), execute(0), syncs), asks("execute by_sql"),
		says("Z", &pgproto3.Parse{Name: "by_sql", Query: "select 3"}, syncs), asks("discard all"),
		says("Z", bindTo("", "by_sql"), execute(0), syncs),
	}},
}

func TestProxytestByteForByte(t *testing.T) {
	dsn := database(t, shared)
	admin := func(t *testing.T) {
		t.Helper()
		conn, err := pgconn.Connect(t.Context(), dsn)
		if err == nil {
			_, err = conn.Exec(t.Context(), bytesSetup).ReadAll()
			_ = conn.Close(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range byteCases {
		t.Run(c.name, func(t *testing.T) {
			admin(t)
			want := converse(t, wireTo(t, dsn), c.steps, nil, nil)
			t.Logf("%d bytes", len(bytes.Join(want, nil)))

			for _, v := range []struct {
				name        string
				connections int
				chunk       func() int
				moves       bool
			}{
				{name: "whole", connections: 1},
				{name: "in pieces", connections: 1, chunk: func() int { return 1 + rand.IntN(40) }},
				{name: "moving between connections", connections: 2, moves: true},
			} {
				admin(t)
				px := proxytest.NewProxy(t, dsn, proxytest.WithUser(appUser, appPassword), proxytest.WithoutTLSRequired(),
					proxytest.WithMaxConnections(v.connections), proxytest.WithLogger(quiet))
				url := throughProxy(t, px, dsn)
				var before func(n int)
				if v.moves {
					hog := wireTo(t, url)
					before = func(n int) {
						sql := "begin"
						if n%2 == 1 {
							sql = "rollback"
						}
						converse(t, hog, []step{asks(sql)}, nil, nil)
					}
				}
				got := converse(t, wireTo(t, url), c.steps, v.chunk, before)
				for i := range c.steps {
					if !bytes.Equal(got[i], want[i]) {
						t.Errorf("%s, step %d: sent %.200q\ngot  %.2000q\nwant %.2000q", v.name, i, c.steps[i].send, got[i], want[i])
					}
				}
				_ = px.Close()
			}
		})
	}
}

// throughProxy is the URL of the same user and database through a proxy, without TLS.
func throughProxy(t testing.TB, px *proxytest.Proxy, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	u.Host, u.RawQuery = px.Addr(), "sslmode=disable"
	return u.String()
}

// wireTo signs in and leaves the connection to whoever wants to speak the protocol by hand.
func wireTo(t testing.TB, url string) net.Conn {
	t.Helper()
	cfg, err := pgconn.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	var reader io.Reader // pgconn's own: behind a write that was slow, it has begun to read
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		reader = r
		return pgproto3.NewFrontend(r, w)
	}
	conn, err := pgconn.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	hijacked, err := conn.Hijack()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hijacked.Conn.Close() })
	_ = hijacked.Conn.SetDeadline(time.Now().Add(time.Minute))
	return wireConn{hijacked.Conn, reader}
}

type wireConn struct {
	net.Conn

	reader io.Reader
}

func (c wireConn) Read(b []byte) (int, error) { return c.reader.Read(b) }

// converse goes through the steps and returns what came back in each. Process ids are made 0.
func converse(t testing.TB, conn net.Conn, steps []step, chunk func() int, before func(int)) (got [][]byte) {
	t.Helper()
	status := byte('I')
	for n, s := range steps {
		if before != nil && status == 'I' {
			before(n)
		}
		sent := make(chan error, 1)
		go func() { sent <- sendChunks(conn, s.send, chunk) }()
		var b []byte
		for want := s.until; want != ""; {
			head := make([]byte, 5)
			if _, err := io.ReadFull(conn, head); err != nil {
				t.Fatalf("step %d, sent %.200q, got %.1000q, waiting for %q: %v", n, s.send, b, want, err)
			}
			body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
			if _, err := io.ReadFull(conn, body); err != nil {
				t.Fatal(err)
			}
			switch head[0] {
			case 'A':
				clear(body[:4])
			case 'Z':
				status = body[0]
			}
			if head[0] == want[0] {
				want = want[1:]
			}
			b = append(append(b, head...), body...)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		got = append(got, b)
	}
	return got
}

func sendChunks(conn net.Conn, b []byte, chunk func() int) error {
	if chunk == nil || len(b) > 100_000 {
		_, err := conn.Write(b)
		return err
	}
	for len(b) > 0 {
		n := min(chunk(), len(b))
		if _, err := conn.Write(b[:n]); err != nil {
			return fmt.Errorf("write: %w", err)
		}
		b = b[n:]
	}
	return nil
}

var quiet = slog.New(slog.DiscardHandler)
