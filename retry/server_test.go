package retry_test

// A server that says what a test tells it to, for what a real PostgreSQL cannot be made to
// do at the right moment, and for examples that run without one.

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"
)

// reply is the answer to one Query message.
type reply struct {
	row  []any  // bool, string or nil; nil: no row
	code string // an ERROR instead
	cut  bool   // no answer: the connection ends
}

// script answers statements. Those it has no answer for succeed.
type script func(sql string) reply

// scripted is a pool of connections to a server that follows the script.
func scripted(s script) (pool *pgxpool.Pool, stop func()) {
	cfg, err := pgxpool.ParseConfig("postgres://app@server/orders?sslmode=disable&default_query_exec_mode=simple_protocol")
	if err != nil {
		panic(err)
	}
	var wg sync.WaitGroup
	cfg.ConnConfig.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	cfg.ConnConfig.DialFunc = func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		wg.Go(func() {
			defer server.Close()
			s.serve(server)
		})
		return client, nil
	}
	pool, err = pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		panic(err)
	}
	return pool, func() { pool.Close(); wg.Wait() }
}

func scriptedFor(t *testing.T, s script) *pgxpool.Pool {
	t.Helper()
	pool, stop := scripted(s)
	t.Cleanup(stop)
	return pool
}

func (s script) serve(conn io.ReadWriter) {
	b := pgproto3.NewBackend(conn, conn)
	if _, err := b.ReceiveStartupMessage(); err != nil {
		return
	}
	b.Send(&pgproto3.AuthenticationOk{})
	for name, value := range map[string]string{"standard_conforming_strings": "on", "client_encoding": "UTF8"} {
		b.Send(&pgproto3.ParameterStatus{Name: name, Value: value})
	}
	status := byte('I')
	for {
		b.Send(&pgproto3.ReadyForQuery{TxStatus: status})
		if b.Flush() != nil {
			return
		}
		msg, err := b.Receive()
		q, ok := msg.(*pgproto3.Query)
		if err != nil || !ok {
			return
		}
		r := s(q.String)
		if r.cut {
			return
		}
		verb := strings.ToUpper(strings.Fields(q.String)[0])
		if strings.HasSuffix(q.String, "commit") {
			verb = "COMMIT"
		}
		switch verb {
		case "BEGIN":
			status = 'T'
		case "COMMIT", "ROLLBACK":
			status = 'I'
		}
		switch {
		case r.code != "":
			b.Send(&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: r.code, Message: "as told"})
			if status == 'T' {
				status = 'E'
			}
			continue
		case r.row != nil:
			b.Send(describe(r.row))
			b.Send(data(r.row))
		}
		b.Send(&pgproto3.CommandComplete{CommandTag: []byte(verb)})
	}
}

func describe(row []any) *pgproto3.RowDescription {
	const boolean, text = 16, 25
	var d pgproto3.RowDescription
	for _, value := range row {
		oid := uint32(text)
		if _, ok := value.(bool); ok {
			oid = boolean
		}
		d.Fields = append(d.Fields, pgproto3.FieldDescription{Name: []byte("c"), DataTypeOID: oid})
	}
	return &d
}

func data(row []any) *pgproto3.DataRow {
	var d pgproto3.DataRow
	for _, value := range row {
		switch value := value.(type) {
		case bool:
			d.Values = append(d.Values, []byte("ft"[b2i(value):][:1]))
		case string:
			d.Values = append(d.Values, []byte(value))
		default:
			d.Values = append(d.Values, nil)
		}
	}
	return &d
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
