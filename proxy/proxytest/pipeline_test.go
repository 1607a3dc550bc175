package proxytest

// Pipelines whose messages depend on answers that are still on their way, against the database of
// message_fuzz_test.go.

import (
	"bytes"
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// pipeline is messages in words: "P name text", "B name", "D name", "C name" for a statement ("-" is
// the unnamed one), "E", "S", "Q text", "f".
func pipeline(messages string) (out []byte) {
	for m := range strings.SplitSeq(messages, "; ") {
		kind, rest, _ := strings.Cut(m, " ")
		name, text, _ := strings.Cut(rest, " ")
		if name == "-" {
			name = ""
		}
		var body string
		switch kind {
		case "P":
			body = name + "\x00" + text + "\x00\x00\x00"
		case "B":
			body = "\x00" + name + "\x00\x00\x00\x00\x00\x00\x00"
		case "D", "C":
			body = "S" + name + "\x00"
		case "E":
			body = "\x00\x00\x00\x00\x00"
		case "Q":
			body = rest + "\x00"
		case "f":
			body = "no\x00"
		}
		out = append(appendHeader(out, kind[0], len(body)), body...)
	}
	return out
}

func TestPipelines(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, before, sends, then string // sent in one go each, when all before it is answered
	}{
		{"a Close of what a failed Parse did not replace", "P a select 1; S", "P a error; S; B a; C a; S; D a; S", "D a; S; B a; S; P a select 3; B a; E; S"},
		{"a Close, twice, the first of them skipped", "P a select 1; S", "P b error; C a; S; C a; S; B a; S", "D a; S"},
		{"a skipped Close and Parse", "P a select 1; S", "P b error; C a; P a select 2; S; B a; E; S", ""},
		{"a Close and a Parse", "P a select 1; S", "C a; P a select 2; S; B a; E; S; P a select 3; S; B a; E; S", ""},
		{"a Parse of a name that is taken", "P a select 1; S", "P a select 2; S; B a; E; S; P a error; S; B a; E; S", ""},
		{"a skipped query leaves the unnamed statement", "P - select 1; S", "P b error; Q select 2; S; B -; E; S", ""},
		{"a query takes the unnamed statement", "P - select 1; S", "Q select 2; B -; E; S; P - select 3; B -; E; S", ""},
		{"a query that fails takes it too", "P - select 1; S", "Q error; B -; E; S; D -; S", ""},
		{"a failed Parse takes the unnamed statement", "P - select 1; S", "P - error; S; B -; E; S", ""},
		{"a skipped one does not, and the next does", "P - select 1; S", "P b error; P - select 2; S; P - error; S; D -; S", "B -; E; S"},
		{"a skipped one does not", "P - select 1; S", "P b error; P - select 2; S; B -; E; S", ""},
		{"another client's unnamed statement, and a Close of it that is skipped", "", "P x error; D -; S; B -; E; S", "B -; S"},
		{"names behind a COPY that failed", "P a copy t from stdin; S", "B a; E; S; f; P - select 1; Q select 2; D -; C -; S; Q select 3", ""},
		{"deallocation before a Parse", "P a select 1; P b select 2; S", "Q deallocate all; P a select 3; S; B a; E; B b; S", "B a; E; S; B b; S"},
		{"deallocation by an Execute", "P a select 1; S", "P - deallocate all; B -; E; P a select 2; S; B -; E; S", "B -; E; S; B a; S"},
	} {
		for _, where := range []string{"same connection", "another connection"} {
			t.Run(c.name+"/"+where, func(t *testing.T) {
				t.Parallel()
				late := func(context.Context, string, string) (net.Conn, error) { return dialFake(true) }
				px, err := Start(t.Context(), "postgres://app:x@127.0.0.1/db?sslmode=disable", WithUser("app", "x"), WithClientAuth(AuthMD5),
					WithoutTLSRequired(), WithMaxConnections(2), WithBackendDialFunc(late))
				if err != nil {
					t.Fatal(err)
				}
				defer px.Close()
				own := newFakeSession()
				client := dialPipeline(t, px)
				if c.before != "" {
					client.goOn(own, pipeline(c.before))
				} else {
					dialPipeline(t, px).goOn(newFakeSession(), pipeline("P - notice; S"))
				}
				if where == "another connection" {
					dialPipeline(t, px).goOn(newFakeSession(), pipeline("P - notice; B -; E; Q begin"))
				}
				client.goOn(own, pipeline(c.sends))
				if c.then != "" {
					client.goOn(own, pipeline(c.then))
				}
			})
		}
	}
}

type pipelineClient struct {
	t    *testing.T
	conn net.Conn
}

func dialPipeline(t *testing.T, px *Proxy) pipelineClient {
	t.Helper()
	conn, err := signInRaw(px.Addr(), "app", "x")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return pipelineClient{t, conn}
}

// goOn sends messages, and compares the answers with those of a session of its own.
func (c pipelineClient) goOn(own *fakeSession, messages []byte) {
	c.t.Helper()
	var want []byte
	for rest := messages; len(rest) > 0; {
		kind, n, _ := parseHeader(rest)
		want = append(want, own.handle(kind, rest[headerLen:headerLen+n])...)
		rest = rest[headerLen+n:]
	}
	if _, err := c.conn.Write(messages); err != nil {
		c.t.Fatal(err)
	}
	got := make([]byte, len(want))
	n, err := io.ReadFull(c.conn, got)
	if err != nil || !bytes.Equal(got, want) {
		c.t.Errorf("%v\nsent %q\ngot  %q\nwant %q", err, messages, got[:n], want)
	}
}

// TestSettlingEnds is about a session that waits for an answer which does not come.
func TestSettlingEnds(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*Proxy){
		"close":    func(px *Proxy) { _ = px.Close() },
		"failover": (*Proxy).StartFailover,
		"user":     func(px *Proxy) { px.endSessionsOf("app") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked := make(chan struct{})
			mute := func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go func() {
					defer ours.Close()
					w := newWindow(ours, 1<<16)
					if !fakeLogin(ours) {
						return
					}
					if kind, _, err := readFrame(&w); err == nil && kind == 'P' {
						close(asked)
					}
					_, _ = io.Copy(io.Discard, ours)
				}()
				return theirs, nil
			}
			px, err := Start(t.Context(), "postgres://app:x@127.0.0.1/db?sslmode=disable", WithUser("app", "x"), WithClientAuth(AuthMD5),
				WithoutTLSRequired(), WithBackendDialFunc(mute))
			if err != nil {
				t.Fatal(err)
			}
			defer px.Close()
			client := dialPipeline(t, px)
			if _, err := client.conn.Write(pipeline("P a select 1; S; B a; E; S")); err != nil {
				t.Fatal(err)
			}
			<-asked
			end(px)
			if _, err := io.Copy(io.Discard, client.conn); err != nil { // a timeout
				t.Error(err)
			}
			for deadline := time.Now().Add(5 * time.Second); px.Stats().ClientConnections > 0; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("the session waits on")
				}
			}
		})
	}
}
