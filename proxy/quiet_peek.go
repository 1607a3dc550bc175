//go:build linux || darwin || freebsd || netbsd || openbsd

package proxy

import (
	"errors"
	"net"
	"syscall"
)

const canPeek = true

// quiet reports whether an idle connection is open and has nothing to read. A closed
// one reads as end of file, and a TLS goodbye, a server's last words or any other
// surprise reads as data; in all these cases the connection is worth a ping.
func quiet(conn net.Conn) bool {
	sys, ok := bottom(conn).(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sys.SyscallConn()
	if err != nil {
		return false
	}
	var peekErr error
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		_, _, peekErr = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		return true
	})
	return err == nil && (errors.Is(peekErr, syscall.EAGAIN) || errors.Is(peekErr, syscall.EWOULDBLOCK))
}
