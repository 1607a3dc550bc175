//go:build linux || darwin || freebsd || netbsd || openbsd

package proxy

import (
	"errors"
	"net"
	"syscall"
)

// look peeks into an idle connection's socket. A closed one reads as end of file; a TLS
// goodbye, a server's last words or any other surprise reads as data.
func look(conn net.Conn) sight {
	sys, ok := bottom(conn).(syscall.Conn)
	if !ok {
		return unseen
	}
	raw, err := sys.SyscallConn()
	if err != nil {
		return unseen
	}
	var (
		n       int
		peekErr error
	)
	// Not raw.Read, which waits for its turn: pgconn reads in the background when one of its
	// writes was slow, and such a read may stay behind on an idle connection until the next answer.
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, peekErr = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	switch {
	case err != nil:
		return unseen
	case errors.Is(peekErr, syscall.EAGAIN), errors.Is(peekErr, syscall.EWOULDBLOCK):
		return quiet
	case peekErr == nil && n > 0:
		return talking
	default:
		return closed
	}
}
