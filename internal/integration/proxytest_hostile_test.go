package integration

// Clients and networks that mean harm, or have come to it. While each of them is at it, a witness
// (hostile_witness_test.go) goes on being served; afterwards nothing of it is left in the proxy.
// These tests look at all goroutines and the memory of the process, so they do not run in parallel.

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

func TestHostileSlowReader(t *testing.T) {
	h := newHostile(t)
	mark := fmt.Sprintf("slow reader %d", time.Now().UnixNano())
	conn := h.client(t)
	// 2 GB, were they all to come: the database makes each row when the last one is sent.
	conn.send(t, asks("select /* "+mark+" */ repeat('x', 1000), generate_series(1, 2000000)").send)
	stuck := func() bool { return h.waitsFor(t, mark) == "ClientWrite" }
	waitFor(t, "the database to wait for the client", stuck)
	h.witness.more(t, 50)
	h.memoryBounded(t)
	for range 3 { // it flows when the client reads, and stops when it stops
		if _, err := io.CopyN(io.Discard, conn, 16<<20); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the database to wait again", stuck)
	}
	h.memoryBounded(t)
	conn.reset()
	h.settled(t)
}

// TestHostileNeitherReadsNorStops is a client that sends requests for ever and reads no answer.
func TestHostileNeitherReadsNorStops(t *testing.T) {
	for name, request := range map[string][]byte{
		"queries":  asks("select repeat('x', 1000)").send,
		"parses":   says("", parse("select 1"), bind(), describe('P', ""), execute(0), flushes).send,
		"syncs":    says("", syncs).send,
		"errors":   says("", parse("select nothing"), bind(), syncs).send,
		"no syncs": says("", parse("select 1"), bind(), execute(0)).send,
	} {
		t.Run(name, func(t *testing.T) {
			h := newHostile(t)
			conn := h.client(t)
			many := bytes.Repeat(request, 1+(64<<10)/len(request))
			var sent atomic.Int64
			done := make(chan struct{})
			go func() {
				defer close(done)
				for sent.Load() < 64<<20 {
					n, err := conn.Write(many)
					if sent.Add(int64(n)); err != nil {
						return
					}
				}
			}()
			h.witness.more(t, 50)
			waitFor(t, "the proxy to take no more, or to hang up", func() bool {
				before := sent.Load()
				time.Sleep(300 * time.Millisecond)
				return sent.Load() == before
			})
			t.Logf("%d KiB were taken", sent.Load()>>10)
			h.witness.more(t, 50)
			h.memoryBounded(t)
			conn.reset()
			<-done
			h.settled(t)
		})
	}
}

func TestHostileSlowWriter(t *testing.T) {
	h := newHostile(t)
	conn := h.client(t)
	request := append(asks("select 1").send, says("", parse("select $1::int", 23), bind("7"), execute(0), syncs).send...)
	for i := range request {
		conn.send(t, request[i:i+1])
		h.witness.more(t, 1)
	}
	for range 2 {
		receive[*pgproto3.DataRow](t, conn.Frontend)
		receive[*pgproto3.ReadyForQuery](t, conn.Frontend)
	}
	conn.reset()
	h.settled(t)
}

func TestHostileHalfAMessage(t *testing.T) {
	h := newHostile(t)
	table := fmt.Sprintf("half_%d", time.Now().UnixNano())
	mustExec(t, direct(t), "create table "+table+" (body text)")
	t.Cleanup(func() { _, _ = direct(t).Exec(context.Background(), "drop table "+table) })
	insert := "insert into " + table + " values ('" + strings.Repeat("x", 100_000) + "')"
	for name, message := range map[string][]byte{
		"header":     asks(insert).send[:3],
		"query":      asks(insert).send,
		"short":      asks("insert into " + table + " values ('x')").send,
		"parse":      says("", parse(insert)).send,
		"bind":       says("", parse("insert into "+table+" values ($1)"), bind(strings.Repeat("x", 100_000))).send,
		"execute":    says("", parse("insert into "+table+" values ('x')"), bind(), execute(0)).send,
		"call":       says("", functionCall(1598, []byte(strings.Repeat("x", 50_000)))).send,
		"copy":       append(asks("copy "+table+" from stdin").send, says("", copyData([]byte(strings.Repeat("x", 100_000)+"\n"))).send...),
		"a gigabyte": append(binary.BigEndian.AppendUint32([]byte{'P'}, 1<<30), make([]byte, 1<<20)...),
	} {
		t.Run(name, func(t *testing.T) {
			stalled, closed, reset := h.client(t), h.client(t), h.client(t)
			for _, c := range []*hostileClient{stalled, closed, reset} {
				c.send(t, message[:len(message)-1])
			}
			_ = closed.Close()
			reset.reset()
			h.witness.more(t, 20)
			stalled.reset()
		})
	}
	h.settled(t)
	var rows int
	if err := direct(t).QueryRow(t.Context(), "select count(*) from "+table).Scan(&rows); err != nil || rows != 0 {
		t.Errorf("%d rows of requests that were never whole, %v", rows, err)
	}
}

func TestHostileLengths(t *testing.T) {
	h := newHostile(t)
	for _, kind := range []byte("QPBDCEFSHdcfXpZA\x00\x01\xff") {
		for _, length := range []uint32{0, 3, 1<<30 + 3, 1 << 31, 1<<32 - 1} {
			conn := h.plain(t)
			conn.send(t, binary.BigEndian.AppendUint32([]byte{kind}, length))
			e := receive[*pgproto3.ErrorResponse](t, conn.Frontend)
			if e.Severity != "FATAL" || e.Code != "08P01" {
				t.Fatalf("type %d, length %d: %+v", kind, length, e)
			}
			if _, err := conn.Frontend.Receive(); err == nil {
				t.Fatalf("type %d, length %d: the connection is open", kind, length)
			}
			conn.reset()
		}
	}
	for _, kind := range "DCESHcfX" { // what is short in PostgreSQL, too
		conn := h.plain(t)
		conn.send(t, binary.BigEndian.AppendUint32([]byte{byte(kind)}, 1<<20))
		if kind == 'X' {
			continue
		}
		if e := receive[*pgproto3.ErrorResponse](t, conn.Frontend); e.Code != "08P01" {
			t.Errorf("%c of a megabyte: %+v", kind, e)
		}
	}
	h.witness.more(t, 50)
	h.memoryBounded(t)
}

// TestHostileLarge sends what is large and allowed; none of it is kept.
func TestHostileLarge(t *testing.T) {
	h := newHostile(t)
	ctx := t.Context()
	conn, err := pgx.ConnectConfig(ctx, h.config(t))
	if err != nil {
		t.Fatal(err)
	}
	text := "select length('" + strings.Repeat("y", 64<<20) + "')"
	h.mark()
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeExec} {
		var n int
		if err := conn.QueryRow(ctx, text, mode).Scan(&n); err != nil || n != 64<<20 {
			t.Fatalf("%s: %d, %v", mode, n, err)
		}
		h.witness.more(t, 20)
		h.memoryBounded(t)
	}
	h.mark() // without the text
	_, err = conn.PgConn().CopyFrom(ctx, io.LimitReader(endlessRows{}, 64<<20), "copy "+scratch(t)+" from stdin")
	if err != nil {
		t.Error(err)
	}
	h.witness.more(t, 20)
	h.memoryBounded(t)
	_ = conn.Close(ctx)
	h.settled(t)
}

type endlessRows struct{}

func (endlessRows) Read(b []byte) (int, error) {
	return copy(b, bytes.Repeat([]byte("row\n"), len(b)/4+1)), nil
}

func scratch(t *testing.T) string {
	t.Helper()
	table := fmt.Sprintf("scratch_%d", time.Now().UnixNano())
	mustExec(t, direct(t), "create unlogged table "+table+" (body text)")
	t.Cleanup(func() { _, _ = direct(t).Exec(context.Background(), "drop table "+table) })
	return table
}

// TestHostileStatements prepares tiny statements for ever: what the proxy keeps of each is more than
// its text.
func TestHostileStatements(t *testing.T) {
	h := newHostile(t)
	conn := h.client(t)
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	var b []byte
	for i := range 300_000 {
		b = frameOf(b, 'P', fmt.Sprintf("%x\x00\x00\x00\x00", i))
		if i%1000 == 999 {
			b = append(b, says("", syncs).send...)
			conn.send(t, b)
			b = b[:0]
		}
	}
	h.witness.more(t, 50)
	h.memoryBounded(t)
	conn.reset()
	h.settled(t)
}

func TestHostileGarbage(t *testing.T) {
	h := newHostile(t)
	rng := rand.New(rand.NewPCG(1, 2))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	const kinds = "QPBDCEFSHdcfXp\x00"
	for round := range 300 {
		var conn *hostileClient
		var b []byte
		switch round % 5 {
		case 0: // before anything
			conn, b = h.dial(t), noise(1+rng.IntN(3000))
		case 1: // in the place of a TLS handshake
			conn, b = h.dial(t), append(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, 1234<<16|5679), noise(1+rng.IntN(3000))...)
		case 2: // a startup packet of noise
			conn = h.dial(t)
			b = append(binary.BigEndian.AppendUint32(nil, 1008), append([]byte{0, 3, 0, 0}, noise(1000)...)...)
		case 3: // a session of noise
			conn, b = h.plain(t), noise(1+rng.IntN(3000))
		case 4: // messages with noise in them
			conn = h.plain(t)
			for range 1 + rng.IntN(20) {
				b = frameOf(b, kinds[rng.IntN(len(kinds))], string(noise(rng.IntN(200))))
			}
		}
		_, _ = conn.Write(b)
		_ = conn.raw.CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, conn); isTimeout(err) {
			t.Errorf("round %d (%d): the connection is open", round, round%5)
		}
		conn.reset()
		if round%30 == 0 {
			h.witness.more(t, 1)
		}
	}
	h.settled(t)
}

func isTimeout(err error) bool {
	var netErr net.Error
	return errors.As(err, &netErr) && netErr.Timeout()
}

// TestHostileKill ends clients and database connections in the middle of whatever they do.
func TestHostileKill(t *testing.T) {
	h := newHostile(t)
	for name, sql := range map[string]string{
		"sleep":       "select pg_sleep(60)",
		"transaction": "begin; select pg_sleep(60)",
		"result":      "select repeat('x', 1000), generate_series(1, 2000000)",
		"copy":        "copy (select repeat('x', 1000), generate_series(1, 2000000)) to stdout",
		"pinned":      "set work_mem = '8MB'",
	} {
		t.Run(name, func(t *testing.T) {
			mark := fmt.Sprintf("kill %s %d", name, time.Now().UnixNano())
			ask := asks("/* " + mark + " */ " + sql).send
			killed, reset := h.client(t), h.client(t)
			killed.send(t, ask)
			reset.send(t, ask)
			waitFor(t, "both to run", func() bool { return h.running(t, mark) == 2 })
			reset.reset()
			admin(t, shared, "select pg_terminate_backend(pid) from pg_stat_activity where query like $1 and pid <> pg_backend_pid()", "%"+mark+"%")
			_ = killed.SetReadDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.Copy(io.Discard, killed); isTimeout(err) {
				t.Error("the client of a database connection that is gone was told nothing")
			}
			killed.reset()
			h.witness.more(t, 20)
		})
	}
	h.settled(t)
}

// TestHostileBlackHole has a database connection swallow all that is sent, with no word of it.
func TestHostileBlackHole(t *testing.T) {
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return &holeConn{Conn: conn}, err
	}
	h := newHostile(t, proxytest.WithBackendDialFunc(dial))
	for range 3 {
		lost := h.client(t)
		lost.send(t, asks("select 'into the black hole'").send)
		h.witness.more(t, 50)
		_ = lost.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := lost.Read(make([]byte, 1)); !isTimeout(err) {
			t.Errorf("an answer came out of a black hole: %v", err)
		}
		lost.reset()
	}
	h.settled(t)
}

// holeConn becomes a black hole when something is sent into one.
type holeConn struct {
	net.Conn

	hole atomic.Bool
}

func (c *holeConn) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("into the black hole")) {
		c.hole.Store(true)
	}
	if c.hole.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *holeConn) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.hole.Load() {
			return n, err
		}
	}
}

// TestHostileStalledSignIn holds connections that stop on the way to the first ReadyForQuery.
func TestHostileStalledSignIn(t *testing.T) {
	h := newHostile(t)
	ssl := binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, 1234<<16|5679)
	var conns []*hostileClient
	for _, begin := range [][]byte{nil, ssl[:5], ssl, append(bytes.Clone(ssl), 22, 3, 1, 2, 0, 1), {0, 0, 4, 0, 0, 3, 0, 0, 'u'}} {
		for range 50 {
			conn := h.dial(t)
			_, _ = conn.Write(begin)
			conns = append(conns, conn)
		}
	}
	waitFor(t, "all to be there", func() bool { return h.px.Stats().ClientConnections >= int64(len(conns)) })
	h.witness.more(t, 50)
	h.client(t).reset() // others get in
	h.memoryBounded(t)
	for _, conn := range conns {
		conn.reset()
	}
	h.settled(t)
}
