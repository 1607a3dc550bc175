package proxy

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// limitUnacknowledged bounds how long sent data may stay unacknowledged. It bounds keepalive
// too, in place of the number of probes: https://www.man7.org/linux/man-pages/man7/tcp.7.html
func limitUnacknowledged(conn *net.TCPConn, d time.Duration) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
}

// unanswered reports whether the peer has left several retransmissions or probes in a row
// without an answer: more than half a second of silence, and no packet lost by chance.
func unanswered(conn net.Conn) bool {
	const inARow = 2
	sys, ok := bottom(conn).(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sys.SyscallConn()
	if err != nil {
		return false
	}
	silent := false
	_ = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		silent = err == nil && (info.Retransmits >= inARow || info.Probes >= inARow)
	})
	return silent
}
