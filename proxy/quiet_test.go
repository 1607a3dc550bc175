//go:build linux || darwin || freebsd || netbsd || openbsd

package proxy

import (
	"net"
	"testing"
	"time"
)

// pgconn leaves a read behind on an idle connection if it had begun one in the background. A look
// must not wait for that read, which ends with the next answer, and so with the statement that the
// look is in front of.
func TestALookDoesNotWaitForABackgroundRead(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()

	reading := make(chan struct{})
	go func() {
		defer close(reading)
		var b [2]byte
		_, _ = client.Read(b[:1]) // tells that this goroutine reads
		_, _ = client.Read(b[1:])
	}()
	if _, err := server.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	seen := make(chan sight, 1)
	for deadline := time.Now().Add(100 * time.Millisecond); time.Now().Before(deadline); { // while the second read begins, and after
		go func() { seen <- look(client) }()
		select {
		case s := <-seen:
			if s != quiet && s != talking {
				t.Fatalf("saw %d", s)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("the look waits for the read")
		}
	}
	if s := look(client); s != quiet {
		t.Errorf("saw %d on a quiet connection", s)
	}
	_ = server.Close()
	<-reading
	if s := look(client); s != closed {
		t.Errorf("saw %d on a closed connection", s)
	}
}
