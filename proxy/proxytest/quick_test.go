package proxytest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// TestQuickConnIsATCPConn puts connections through the same with and without quicken.
func TestQuickConnIsATCPConn(t *testing.T) {
	t.Parallel()
	outcomes := []error{io.EOF, net.ErrClosed, os.ErrDeadlineExceeded, syscall.ECONNRESET, syscall.EPIPE}
	long := bytes.Repeat([]byte("0123456789abcdef"), 1<<19)
	for name, tc := range map[string]struct {
		do   func(t *testing.T, conn, peer net.Conn) error
		want error
	}{
		"closed by the peer": {func(_ *testing.T, conn, peer net.Conn) error {
			_ = peer.Close()
			return readOnce(conn)
		}, io.EOF},
		"closed before": {func(_ *testing.T, conn, _ net.Conn) error {
			_ = conn.Close()
			return readOnce(conn)
		}, net.ErrClosed},
		"closed while reading": {func(_ *testing.T, conn, _ net.Conn) error {
			time.AfterFunc(20*time.Millisecond, func() { _ = conn.Close() })
			return readOnce(conn)
		}, net.ErrClosed},
		"closed while writing": {func(_ *testing.T, conn, _ net.Conn) error {
			time.AfterFunc(20*time.Millisecond, func() { _ = conn.Close() })
			_, err := conn.Write(bytes.Repeat(long, 4))
			return err
		}, net.ErrClosed},
		"deadline while reading": {func(_ *testing.T, conn, _ net.Conn) error {
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			return readOnce(conn)
		}, os.ErrDeadlineExceeded},
		"deadline while writing": {func(_ *testing.T, conn, _ net.Conn) error {
			_ = conn.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
			_, err := conn.Write(bytes.Repeat(long, 4))
			return err
		}, os.ErrDeadlineExceeded},
		"reading on after a deadline": {func(t *testing.T, conn, peer net.Conn) error {
			_ = conn.SetReadDeadline(time.Unix(1, 0))
			if err := readOnce(conn); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("deadline in the past: %v", err)
			}
			_ = conn.SetReadDeadline(time.Time{})
			_, _ = peer.Write([]byte("x"))
			return readOnce(conn)
		}, nil},
		"reset": {func(_ *testing.T, conn, peer net.Conn) error {
			_ = peer.(*net.TCPConn).SetLinger(0)
			_ = peer.Close()
			return readOnce(conn)
		}, syscall.ECONNRESET},
		"writing after the other half was closed": {func(_ *testing.T, conn, _ net.Conn) error {
			_ = conn.(interface{ CloseWrite() error }).CloseWrite()
			_, err := conn.Write([]byte("x"))
			return err
		}, syscall.EPIPE},
		"nothing": {func(_ *testing.T, conn, _ net.Conn) error {
			n, err := conn.Write(nil)
			m, err2 := conn.Read(nil)
			if n+m != 0 {
				return errors.New("something")
			}
			return errors.Join(err, err2)
		}, nil},
		"more than the buffers hold": {func(t *testing.T, conn, peer net.Conn) error {
			sent := make(chan error, 1)
			go func() {
				n, err := conn.Write(long)
				if n != len(long) {
					err = errors.Join(err, io.ErrShortWrite)
				}
				_ = conn.Close()
				sent <- err
			}()
			got, err := io.ReadAll(peer)
			if !bytes.Equal(got, long) {
				t.Errorf("%d bytes arrived, of %d, or others", len(got), len(long))
			}
			return errors.Join(err, <-sent)
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for kind, wrap := range map[string]func(net.Conn) net.Conn{
				"plain": func(conn net.Conn) net.Conn { return conn }, "quick": quicken,
			} {
				conn, peer := tcpPair(t)
				err := tc.do(t, wrap(conn), peer)
				for _, outcome := range outcomes {
					if got := errors.Is(err, outcome); got != errors.Is(tc.want, outcome) {
						t.Errorf("%s: %v; is it %q? %t", kind, err, outcome, got)
					}
				}
				if tc.want == nil && err != nil {
					t.Errorf("%s: %v", kind, err)
				}
			}
		})
	}
}

func readOnce(conn net.Conn) error {
	var b [1]byte
	_, err := conn.Read(b[:])
	return err
}

func tcpPair(t *testing.T) (conn, peer net.Conn) {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var d net.Dialer
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if conn, err = d.DialContext(ctx, "tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if peer, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = conn.Close(), peer.Close() })
	return conn, peer
}
