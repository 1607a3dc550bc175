package integration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

func TestProxytestCopy(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, backend(t), proxytest.WithMaxConnections(2))
	conn := pxConnect(t, px)
	ctx := t.Context()
	table := fmt.Sprintf("copy_%d", time.Now().UnixNano())
	mustExec(t, conn, "create table "+table+" (id int primary key, body text)")
	t.Cleanup(func() { _, _ = direct(t).Exec(context.Background(), "drop table "+table) })

	var rows [][]any
	for i := range 20_000 {
		rows = append(rows, []any{i, strings.Repeat("x", i%300)})
	}
	n, err := conn.CopyFrom(ctx, pgx.Identifier{table}, []string{"id", "body"}, pgx.CopyFromRows(rows))
	if err != nil || n != 20_000 {
		t.Fatalf("CopyFrom: %d, %v", n, err)
	}
	var out bytes.Buffer
	if _, err := conn.PgConn().CopyTo(ctx, &out, "copy "+table+" to stdout"); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(out.String(), "\n"); lines != 20_000 {
		t.Errorf("copied out %d lines", lines)
	}
	// A COPY that fails: a duplicate key, and a source that gives up.
	var pgErr *pgconn.PgError
	if _, err := conn.CopyFrom(ctx, pgx.Identifier{table}, []string{"id", "body"}, pgx.CopyFromRows(rows)); !errors.As(err, &pgErr) || pgErr.Code != "23505" {
		t.Errorf("duplicate key: %v", err)
	}
	broken := io.MultiReader(strings.NewReader("900000\ta\n"), &failingReader{})
	if _, err := conn.PgConn().CopyFrom(ctx, broken, "copy "+table+" from stdin"); err == nil {
		t.Error("a COPY with a broken source succeeded")
	}
	if _, err := conn.PgConn().CopyFrom(ctx, strings.NewReader("bad\n"+strings.Repeat("1\tx\n", 500_000)), "copy "+table+" from stdin"); !errors.As(err, &pgErr) || pgErr.Code != "22P02" {
		t.Errorf("bad data: %v", err)
	}
	var got int
	if err := conn.QueryRow(ctx, "select count(*) from "+table).Scan(&got); err != nil || got != 20_000 {
		t.Errorf("count %d, %v", got, err)
	}
	waitFor(t, "connection given back", func() bool { return px.Stats().DatabaseConnectionsCurrentlyBorrowed == 0 })
	if st := px.Stats(); st.PinnedSessions != 0 {
		t.Errorf("COPY pinned: %+v", px.Pins())
	}
}

type failingReader struct{}

func (*failingReader) Read([]byte) (int, error) { return 0, errors.New("source gave up") }

// TestProxytestCopyExtended runs COPY FROM by Parse, Bind, Execute and an early Sync, as libpq does.
func TestProxytestCopyExtended(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, backend(t), proxytest.WithMaxConnections(1))
	table := fmt.Sprintf("copyx_%d", time.Now().UnixNano())
	mustExec(t, direct(t), "create table "+table+" (id int primary key)")
	t.Cleanup(func() { _, _ = direct(t).Exec(context.Background(), "drop table "+table) })
	hijacked, err := pxConnect(t, px).PgConn().Hijack()
	if err != nil {
		t.Fatal(err)
	}
	defer hijacked.Conn.Close()
	f := hijacked.Frontend
	_ = hijacked.Conn.SetDeadline(time.Now().Add(20 * time.Second))
	for _, data := range []string{"1\n2\n", "oops\n", "3\n"} {
		f.Send(&pgproto3.Parse{Query: "copy " + table + " from stdin"})
		f.Send(&pgproto3.Bind{})
		f.Send(&pgproto3.Execute{})
		f.Send(&pgproto3.Sync{})
		if err := f.Flush(); err != nil {
			t.Fatal(err)
		}
		receive[*pgproto3.CopyInResponse](t, f)
		f.Send(&pgproto3.CopyData{Data: []byte(data)})
		f.Send(&pgproto3.CopyDone{})
		f.Send(&pgproto3.Sync{})
		if err := f.Flush(); err != nil {
			t.Fatal(err)
		}
		receive[*pgproto3.ReadyForQuery](t, f)
		waitFor(t, "given back after "+data, func() bool { return px.Stats().DatabaseConnectionsCurrentlyBorrowed == 0 })
	}
	var n int
	if err := direct(t).QueryRow(t.Context(), "select count(*) from "+table).Scan(&n); err != nil || n != 3 {
		t.Errorf("%d rows, %v", n, err)
	}
}

func receive[M pgproto3.BackendMessage](t testing.TB, f *pgproto3.Frontend) M {
	t.Helper()
	for {
		msg, err := f.Receive()
		if err != nil {
			t.Fatal(err)
		}
		if m, ok := msg.(M); ok {
			return m
		}
	}
}

func TestProxytestLargeRows(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, backend(t), proxytest.WithMaxConnections(2))
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec} {
		pool := pxPool(t, px, func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = mode })
		big := strings.Repeat("0123456789", 1<<20)
		for range 3 {
			var back string
			if err := pool.QueryRow(t.Context(), "select $1::text", big).Scan(&back); err != nil || back != big {
				t.Fatalf("10 MB there and back: %d bytes, %v", len(back), err)
			}
		}
		var sum int
		rows, err := pool.Query(t.Context(), "select repeat('y', 100000) from generate_series(1, 300)")
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			sum += len(rows.RawValues()[0])
		}
		if rows.Err() != nil || sum != 30_000_000 {
			t.Errorf("read %d bytes, %v", sum, rows.Err())
		}
	}
}

func TestProxytestBatch(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, backend(t), proxytest.WithMaxConnections(2))
	for _, mode := range execModes {
		pool := pxPool(t, px, func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = mode })
		for round := range 3 {
			b := &pgx.Batch{}
			for i := range 50 {
				b.Queue("select $1::int + 1", i)
			}
			res := pool.SendBatch(t.Context(), b)
			for i := range 50 {
				var got int
				if err := res.QueryRow().Scan(&got); err != nil || got != i+1 {
					t.Fatalf("%s, round %d: item %d: %d, %v", mode, round, i, got, err)
				}
			}
			if err := res.Close(); err != nil {
				t.Fatal(err)
			}
			b = &pgx.Batch{}
			b.Queue("select 1")
			b.Queue("select 1/$1::int", 0)
			b.Queue("select 3")
			if err := pool.SendBatch(t.Context(), b).Close(); err == nil {
				t.Errorf("%s: a batch with an error in the middle succeeded", mode)
			}
		}
	}
	if st := px.Stats(); st.DatabaseConnectionsCurrentlyBorrowed != 0 || st.PinnedSessions != 0 {
		t.Errorf("stats: %+v", st)
	}
}

// TestProxytestPipeline mixes Sync groups that fail and groups that do not in one pipeline, with
// statements that the database connection at hand does not have.
func TestProxytestPipeline(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, backend(t), proxytest.WithMaxConnections(2))
	a, b := pxConnect(t, px), pxConnect(t, px)
	ctx := t.Context()
	if _, err := a.PgConn().Prepare(ctx, "one", "select $1::int", nil); err != nil {
		t.Fatal(err)
	}
	// b takes the connection a used into a transaction, so that a must go on with another.
	tx, err := b.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)

	p := a.PgConn().StartPipeline(ctx)
	p.SendQueryParams("select 1/0", nil, nil, nil, nil)
	p.SendQueryPrepared("one", [][]byte{[]byte("1")}, nil, nil) // skipped
	if err := p.Sync(); err != nil {
		t.Fatal(err)
	}
	p.SendQueryPrepared("one", [][]byte{[]byte("2")}, nil, nil) // its Parse was skipped above
	p.SendPrepare("two", "select $1::text", nil)
	p.SendQueryPrepared("two", [][]byte{[]byte("3")}, nil, nil)
	if err := p.Sync(); err != nil {
		t.Fatal(err)
	}
	p.SendPrepare("two", "select 2", nil) // 42P05
	if err := p.Sync(); err != nil {
		t.Fatal(err)
	}
	p.SendDeallocate("two")
	p.SendPrepare("two", "select 4", nil)
	p.SendQueryPrepared("two", nil, nil, nil)
	p.SendQueryPrepared("never", nil, nil, nil) // 26000
	if err := p.Sync(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		res, err := p.GetResults()
		if res == nil && err == nil {
			break
		}
		var pgErr *pgconn.PgError
		switch r := res.(type) {
		case *pgconn.ResultReader:
			read := r.Read()
			for _, row := range read.Rows {
				got = append(got, string(row[0]))
			}
			if read.Err != nil {
				got = append(got, read.Err.Error())
			}
		case *pgconn.PipelineSync:
			got = append(got, "sync")
		case *pgconn.StatementDescription:
			got = append(got, "prepared")
		case *pgconn.CloseComplete:
			got = append(got, "closed")
		default:
			if !errors.As(err, &pgErr) {
				t.Fatalf("%T, %v", res, err)
			}
			got = append(got, pgErr.Code+" "+pgErr.Message)
		}
	}
	if err := p.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	want := `22012 division by zero|sync|2|prepared|3|sync|` +
		`42P05 prepared statement "two" already exists|sync|closed|prepared|4|` +
		`26000 prepared statement "never" does not exist|sync`
	if text := strings.Join(got, "|"); text != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
}

func mustExec(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// A pipeline may be longer than what the proxy keeps in mind of it, whether its client reads
// meanwhile or sends all of it first, with one Sync at the end.
func TestProxytestLongPipelines(t *testing.T) {
	t.Parallel()
	const statements = 25_000 // a Parse, a Bind, a Describe and an Execute each
	px, url, _ := startProxy(t)
	pool := newPool(t, url, signedBy(px))
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	pipeline := conn.Conn().PgConn().StartPipeline(t.Context())
	for range statements {
		pipeline.SendQueryParams("select 1", nil, nil, nil, nil)
	}
	if err := pipeline.Sync(); err != nil {
		t.Fatal(err)
	}
	for i := range statements {
		results, err := pipeline.GetResults()
		if err != nil {
			t.Fatalf("statement %d: %v", i, err)
		}
		reader, ok := results.(*pgconn.ResultReader)
		if !ok {
			t.Fatalf("statement %d: %T", i, results)
		}
		if result := reader.Read(); result.Err != nil || len(result.Rows) != 1 {
			t.Fatalf("statement %d: %d rows, %v", i, len(result.Rows), result.Err)
		}
	}
	if err := pipeline.Close(); err != nil {
		t.Error(err)
	}
}
