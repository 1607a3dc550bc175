package integration

import (
	"bytes"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
)

// cuttingRelay passes bytes between clients and a server, and can cut a connection at a
// statement: when the client has sent it and before the server gets it, or when the
// server has answered and before the client gets the answer.
type cuttingRelay struct {
	listener net.Listener
	backend  string
	at       atomic.Pointer[cut]
	cuts     atomic.Int64 // connections cut so far
	wg       sync.WaitGroup
}

// cut says where the next connections are cut. It works once per count.
type cut struct {
	statement []byte // text the client's message must contain
	after     bool   // let the server have it, and keep its answer
	left      atomic.Int64
}

func newCuttingRelay(tb testing.TB, dsn string) (r *cuttingRelay, through string) {
	tb.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		tb.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	r = &cuttingRelay{listener: l, backend: u.Host}
	r.wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			r.wg.Go(func() { r.serve(client) })
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		r.wg.Wait()
	})
	u.Host = l.Addr().String()
	return r, u.String()
}

// cutAt arms the relay for the next times messages that contain statement.
func (r *cuttingRelay) cutAt(statement string, after bool, times int64) {
	c := &cut{statement: []byte(statement), after: after}
	c.left.Store(times)
	r.at.Store(c)
}

// cutNoMore disarms the relay.
func (r *cuttingRelay) cutNoMore() { r.at.Store(nil) }

func (r *cuttingRelay) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", r.backend)
	if err != nil {
		return
	}
	defer server.Close()
	var cutAtAnswer atomic.Bool
	r.wg.Go(func() {
		defer client.Close()
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			if err != nil || cutAtAnswer.Load() {
				return
			}
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		if c := r.at.Load(); c != nil && bytes.Contains(buf[:n], c.statement) && c.left.Add(-1) >= 0 {
			r.cuts.Add(1)
			if !c.after {
				return
			}
			cutAtAnswer.Store(true)
		}
		if _, err := server.Write(buf[:n]); err != nil {
			return
		}
	}
}
