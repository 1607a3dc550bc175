package proxytest

// Two clients send whatever the fuzzer thinks of through one proxy, which has two database connections
// for them. Each must get, byte for byte, what a session of its own would have answered. The database
// here (fakeSession) answers an Execute with the Parse and Bind that led to it, and copy data with a
// hash of it: so what reaches the database is compared as well, names apart.

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// fakeSession is a database session: what it sends back for each message is a pure function of those
// before. It follows src/backend/tcop/postgres.c in which errors come first, and in what is skipped.
type fakeSession struct {
	statements map[string]string // body of the Parse behind the name
	portals    map[string]fakePortal
	tx         byte
	skip       bool
	copying    byte // 'Q' or 'E': what began a COPY FROM STDIN
	copied     []byte
	closed     bool
}

type fakePortal struct{ statement, bind string }

func newFakeSession() *fakeSession {
	return &fakeSession{statements: map[string]string{}, portals: map[string]fakePortal{}, tx: 'I'}
}

// handle answers one message.
func (f *fakeSession) handle(kind byte, body []byte) []byte {
	if f.copying != 0 {
		return f.handleCopy(kind, body)
	}
	if f.skip && kind != 'S' {
		return nil
	}
	switch kind {
	case 'Q':
		return f.query(body)
	case 'F':
		if f.tx == 'E' {
			return append(f.fail("25P02", "aborted"), f.ready()...)
		}
		if f.tx == 'I' {
			clear(f.portals)
		}
		return append(encode(&pgproto3.FunctionCallResponse{Result: body}), f.ready()...)
	case 'S':
		f.skip = false
		if f.tx == 'I' {
			clear(f.portals)
		}
		return f.ready()
	case 'P', 'B', 'D', 'C', 'E':
		out, err := f.extended(kind, body)
		if err != nil {
			f.skip = true
			code, text, _ := strings.Cut(err.Error(), " ")
			return append(out, f.fail(code, text)...)
		}
		return out
	}
	return nil
}

func (f *fakeSession) ready() []byte { return encode(&pgproto3.ReadyForQuery{TxStatus: f.tx}) }

func (f *fakeSession) fail(code, text string) []byte {
	if f.tx == 'T' {
		f.tx = 'E'
	}
	return errorResponse("ERROR", code, text)
}

func (f *fakeSession) query(body []byte) []byte {
	delete(f.statements, "")
	delete(f.portals, "")
	text := string(bytes.TrimSuffix(body, []byte{0}))
	var out []byte
	switch {
	case text == "":
		out = encode(&pgproto3.EmptyQueryResponse{})
	case strings.Contains(text, "error"):
		out = f.fail("42601", "syntax "+text)
	case f.tx == 'E' && text != "commit":
		out = f.fail("25P02", "aborted")
	case strings.HasPrefix(text, "copy"):
		f.copying = 'Q'
		return encode(&pgproto3.CopyInResponse{})
	default:
		out = f.run(text, text)
	}
	if f.tx == 'I' {
		clear(f.portals)
	}
	return append(out, f.ready()...)
}

// run executes a statement; shown is what tells that it was this one.
func (f *fakeSession) run(text, shown string) []byte {
	switch text {
	case "begin":
		f.tx = 'T'
	case "commit":
		f.tx = 'I'
		clear(f.portals)
	case "listen":
		return encode(&pgproto3.NotificationResponse{Channel: "c"}, &pgproto3.CommandComplete{CommandTag: []byte("LISTEN")})
	case "notice":
		return encode(&pgproto3.NoticeResponse{Message: shown}, &pgproto3.ParameterStatus{Name: "a", Value: "b"},
			&pgproto3.CommandComplete{CommandTag: []byte("DO")})
	case "deallocate all":
		maps.DeleteFunc(f.statements, func(name, _ string) bool { return name != "" })
		return encode(&pgproto3.CommandComplete{CommandTag: []byte("DEALLOCATE ALL")})
	case "DISCARD ALL": // the proxy's own, after a session that was pinned
		clear(f.statements)
		clear(f.portals)
		return encode(&pgproto3.CommandComplete{CommandTag: []byte("DISCARD ALL")})
	}
	return encode(&pgproto3.DataRow{Values: [][]byte{[]byte(shown)}}, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
}

func (f *fakeSession) extended(kind byte, body []byte) ([]byte, error) {
	first, rest, ok := cString(body)
	if kind == 'D' || kind == 'C' {
		return f.describeOrClose(kind, body)
	}
	if !ok {
		return nil, errors.New("08P01 no name")
	}
	name := string(first)
	switch kind {
	case 'P':
		text, _, _ := cString(rest)
		if name == "" {
			delete(f.statements, "")
		}
		_, exists := f.statements[name]
		switch {
		case strings.Contains(string(text), "error"):
			return nil, errors.New("42601 syntax")
		case f.tx == 'E' && string(text) != "commit":
			return nil, errors.New("25P02 aborted")
		case exists && name != "":
			return nil, fmt.Errorf("42P05 prepared statement %q already exists", name)
		}
		f.statements[name] = string(rest)
		return encode(&pgproto3.ParseComplete{}), nil
	case 'B':
		return f.bind(name, rest)
	}
	return f.execute(name, rest)
}

func (f *fakeSession) bind(portal string, rest []byte) ([]byte, error) {
	name, params, _ := cString(rest)
	parsed, ok := f.statements[string(name)]
	if !ok {
		return nil, fmt.Errorf("26000 prepared statement %q does not exist", name)
	}
	if f.tx == 'E' && !strings.HasPrefix(parsed, "commit\x00") {
		return nil, errors.New("25P02 aborted")
	}
	if _, exists := f.portals[portal]; exists && portal != "" {
		return nil, fmt.Errorf("42P03 cursor %q already exists", portal)
	}
	f.portals[portal] = fakePortal{parsed, string(params)}
	return encode(&pgproto3.BindComplete{}), nil
}

func (f *fakeSession) execute(name string, rest []byte) ([]byte, error) {
	p, ok := f.portals[name]
	if !ok {
		return nil, fmt.Errorf("34000 portal %q does not exist", name)
	}
	text, _, _ := cString([]byte(p.statement))
	switch {
	case f.tx == 'E' && string(text) != "commit":
		return nil, errors.New("25P02 aborted")
	case strings.HasPrefix(string(text), "copy"):
		f.copying = 'E'
		return encode(&pgproto3.CopyInResponse{}), nil
	case len(text) == 0:
		return encode(&pgproto3.EmptyQueryResponse{}), nil
	case len(rest) == 4 && binary.BigEndian.Uint32(rest) == 1:
		return encode(&pgproto3.DataRow{Values: [][]byte{[]byte("one")}}, &pgproto3.PortalSuspended{}), nil
	}
	return f.run(string(text), hexHash(p.statement+"|"+p.bind)), nil
}

func (f *fakeSession) describeOrClose(kind byte, body []byte) ([]byte, error) {
	name := ""
	if len(body) > 1 {
		first, _, _ := cString(body[1:])
		name = string(first)
	}
	statement := body[0] == 'S'
	if kind == 'C' {
		if statement {
			delete(f.statements, name)
		} else {
			delete(f.portals, name)
		}
		return encode(&pgproto3.CloseComplete{}), nil
	}
	if statement {
		parsed, ok := f.statements[name]
		if !ok {
			return nil, fmt.Errorf("26000 prepared statement %q does not exist", name)
		}
		if f.tx == 'E' && !strings.HasPrefix(parsed, "commit\x00") {
			return nil, errors.New("25P02 aborted")
		}
		return encode(&pgproto3.ParameterDescription{}, describedAs(parsed)), nil
	}
	p, ok := f.portals[name]
	if !ok {
		return nil, fmt.Errorf("34000 portal %q does not exist", name)
	}
	return encode(describedAs(p.statement)), nil
}

func describedAs(parsed string) pgproto3.BackendMessage {
	if len(parsed)%2 == 0 {
		return &pgproto3.NoData{}
	}
	return &pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{{Name: []byte(hexHash(parsed))}}}
}

func (f *fakeSession) handleCopy(kind byte, body []byte) (out []byte) {
	simple := f.copying == 'Q'
	switch kind {
	case 'd':
		f.copied = append(f.copied, body...)
		return nil
	case 'H', 'S':
		return nil
	case 'c':
		out = encode(&pgproto3.CommandComplete{CommandTag: []byte("COPY " + hexHash(string(f.copied)))})
	case 'f':
		f.skip = !simple
		out = f.fail("57014", "copy failed")
	default: // the message is half read then: PostgreSQL gives the connection up
		f.closed = true
		return errorResponse("FATAL", "08P01", "protocol synchronization was lost")
	}
	f.copying, f.copied = 0, nil
	if simple {
		out = append(out, f.ready()...)
	}
	return out
}

func hexHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

// serveFake is a server for one connection of the proxy. One that is late answers what it got in one go
// in one go.
func serveFake(conn net.Conn, late bool) {
	defer conn.Close()
	if !fakeLogin(conn) {
		return
	}
	session := newFakeSession()
	w := newWindow(conn, 1<<17)
	var out []byte
	for !session.closed {
		kind, body, err := readFrame(&w)
		if err != nil || kind == 'X' {
			return
		}
		out = append(out, session.handle(kind, body)...)
		if len(out) == 0 || late && w.len() > 0 && !session.closed {
			continue
		}
		if _, err := conn.Write(out); err != nil {
			return
		}
		out = out[:0]
	}
	// To close with something unread would reset the connection, and what was answered could be lost.
	_ = conn.(*net.TCPConn).CloseWrite()
	_, _ = io.Copy(io.Discard, conn)
}

// fakeLogin lets anybody in.
func fakeLogin(conn net.Conn) bool {
	head := make([]byte, 4)
	if _, err := io.ReadFull(conn, head); err != nil {
		return false
	}
	if _, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(head))-4); err != nil {
		return false
	}
	_, err := conn.Write(encode(&pgproto3.AuthenticationOk{}, &pgproto3.ParameterStatus{Name: "server_version", Value: "17"},
		&pgproto3.ReadyForQuery{TxStatus: 'I'}))
	return err == nil
}

func readFrame(w *window) (kind byte, body []byte, err error) {
	for w.len() < headerLen {
		if err := w.fill(); err != nil {
			return 0, nil, err
		}
	}
	kind, n, ok := parseHeader(w.bytes())
	if !ok || n > len(w.buf)-headerLen {
		return 0, nil, errMessageLength
	}
	for w.len() < headerLen+n {
		if err := w.fill(); err != nil {
			return 0, nil, err
		}
	}
	body = bytes.Clone(w.bytes()[headerLen : headerLen+n])
	w.r += headerLen + n
	return kind, body, nil
}

// fakeDial is how the proxy reaches its database.
func fakeDial(context.Context, string, string) (net.Conn, error) { return dialFake(false) }

func dialFake(late bool) (net.Conn, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close() // which resets what has not been accepted
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	server, err := l.Accept()
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	go serveFake(server, late)
	return client, nil
}

var (
	fuzzNames = []string{"", "", "a", "b", "a%", "px1"}
	fuzzTexts = []string{
		"select 1", "select 2", "begin", "commit", "error", "", "copy t from stdin", "notice", "deallocate all",
		"select '" + strings.Repeat("x", 3000) + "'", "select '" + strings.Repeat("long", 20_000) + "'",
	}
)

// messagesOf makes a client's messages of the fuzzer's bytes, in pairs: what, and with what.
func messagesOf(input []byte) (out []byte) {
	add := func(kind byte, parts ...string) {
		body := strings.Join(parts, "")
		out = append(appendHeader(out, kind, len(body)), body...)
	}
	for ; len(input) > 1; input = input[2:] {
		op, arg := input[0], int(input[1])
		name, text := fuzzNames[arg%len(fuzzNames)], fuzzTexts[arg/len(fuzzNames)%len(fuzzTexts)]
		switch op % 14 {
		case 0:
			add('Q', text, "\x00")
		case 1, 2:
			add('P', name, "\x00", text, "\x00\x00\x00")
		case 3, 4:
			add('B', fuzzNames[arg/7%len(fuzzNames)], "\x00", name, "\x00", "\x00\x00\x00\x01\x00\x00\x00\x01", string(rune('a'+arg%26)), "\x00\x00")
		case 5:
			add('D', string("SP"[arg&1]), name, "\x00")
		case 6:
			add('C', string("SP"[arg&1]), name, "\x00")
		case 7, 8:
			add('E', name, "\x00\x00\x00\x00", string(rune(arg/128)))
		case 9:
			add('S')
		case 10:
			add('H')
		case 11:
			add('F', "call ", text)
		case 12:
			add('d', strings.Repeat(string(rune('a'+arg%26)), arg*arg))
		case 13:
			add(string("cfcX"[arg%3])[0], "")
			if out[len(out)-headerLen] == 'f' { // a reason is due
				out = out[:len(out)-headerLen]
				add('f', "no\x00")
			}
		}
	}
	add('c')
	add('S')
	add('Q', "the end\x00")
	return out
}

// answersTo is what a session of its own would answer.
func answersTo(messages []byte) (out []byte) {
	session := newFakeSession()
	for len(messages) > 0 && !session.closed {
		kind, n, _ := parseHeader(messages)
		out = append(out, session.handle(kind, messages[headerLen:headerLen+n])...)
		messages = messages[headerLen+n:]
	}
	return out
}

// signInRaw opens a client connection and signs in with MD5, by hand.
func signInRaw(addr, user, password string) (net.Conn, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(8 * time.Second)) // the fuzzer takes 10 s for a hang, and tells nothing of it
	if _, err := conn.Write(startupPacket(codeProtocol3, "user", user, "database", "db")); err != nil {
		return nil, err
	}
	f := pgproto3.NewFrontend(conn, conn)
	for {
		msg, err := f.Receive()
		if err != nil {
			return nil, err
		}
		switch msg := msg.(type) {
		case *pgproto3.AuthenticationMD5Password:
			hashed := "md5" + md5Hex(md5Hex(password+user)+string(msg.Salt[:]))
			f.Send(&pgproto3.PasswordMessage{Password: hashed})
			if err := f.Flush(); err != nil {
				return nil, err
			}
		case *pgproto3.ErrorResponse:
			return nil, errors.New(msg.Message)
		case *pgproto3.ReadyForQuery:
			return conn, nil
		}
	}
}

func FuzzMessages(f *testing.F) {
	px, err := Start(context.Background(), "postgres://app:x@127.0.0.1/db?sslmode=disable", WithUser("app", "x"), WithClientAuth(AuthMD5),
		WithoutTLSRequired(), WithMaxConnections(2), WithBackendDialFunc(fakeDial))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = px.Close() })
	f.Add([]byte{1, 2, 3, 2, 7, 0, 9, 0, 0, 12, 3, 2, 7, 0, 9, 0}, []byte{1, 2, 9, 0, 3, 2, 7, 0, 9, 0})
	f.Add([]byte{0, 36, 12, 5, 13, 0, 1, 38, 3, 2, 7, 0, 9, 0, 12, 9, 13, 1, 9, 0}, []byte{0, 12, 1, 26, 9, 0, 0, 18})
	f.Add([]byte{1, 2, 9, 0, 6, 2, 1, 2, 3, 2, 1, 26, 9, 0, 3, 2, 7, 0, 10, 0, 11, 3, 5, 2, 9, 0}, []byte{1, 56, 3, 2, 8, 200, 8, 0, 9, 0})
	f.Add([]byte{0, 60, 1, 9, 9, 0}, []byte{0, 60, 1, 9, 9, 0}) // pinned by a long text, and a name of the client's own
	f.Add([]byte{1, 62, 3, 2, 7, 0, 9, 0, 0, 60, 0, 48, 3, 2, 9, 0}, []byte{0, 42, 1, 44, 3, 2, 7, 0, 9, 0})
	f.Fuzz(func(t *testing.T, one, two []byte) {
		if len(one) > 400 || len(two) > 400 {
			t.Skip("long enough")
		}
		var wg sync.WaitGroup
		for _, input := range [][]byte{one, two} {
			wg.Go(func() {
				messages := messagesOf(input)
				want := answersTo(messages)
				conn, err := signInRaw(px.Addr(), "app", "x")
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					_, _ = conn.Write(messages)
				}()
				got := make([]byte, len(want))
				n, err := io.ReadFull(conn, got)
				if !bytes.Equal(got[:n], want) {
					at := 0
					for at < n && got[at] == want[at] {
						at++
					}
					t.Errorf("%v, after %d of %d bytes\nsent %.600q\nfrom there\ngot  %.600q\nwant %.600q", err, at, len(want), messages, got[at:n], want[at:])
				}
				_ = conn.Close()
				<-sent
			})
		}
		wg.Wait()
	})
}
