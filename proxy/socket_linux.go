package proxy

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// limitUnacknowledged bounds how long sent data may stay unacknowledged, or not at all with 0. It
// bounds keepalive too, in place of the number of probes: https://www.man7.org/linux/man-pages/man7/tcp.7.html
func limitUnacknowledged(conn net.Conn, d time.Duration) {
	control(conn, func(fd int) {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
	})
}

// unacknowledgedLimit is that bound, or 0.
func unacknowledgedLimit(conn net.Conn) (d time.Duration) {
	control(conn, func(fd int) {
		if ms, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); err == nil {
			d = time.Duration(ms) * time.Millisecond
		}
	})
	return d
}

// inARow is how many retransmissions or probes without an answer are no chance: of one the packet may be
// lost, or the answer withheld (https://docs.kernel.org/networking/ip-sysctl.html, tcp_invalid_ratelimit).
const inARow = 2

// underWay reports whether something that was written has not been sent or not been acknowledged, and
// whether the peer is silent: it leaves unacknowledged what its window had room for, or has acknowledged
// nothing for limit, although it was asked for its window. A peer that is full acknowledges what it drops.
func underWay(conn net.Conn, limit time.Duration) (underWay, silent, ok bool) {
	control(conn, func(fd int) {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			return
		}
		unheard := time.Duration(info.Last_ack_recv) * time.Millisecond
		underWay, ok = info.Notsent_bytes > 0 || info.Unacked > 0, true
		silent = info.Retransmits >= inARow || info.Probes >= inARow && unheard >= limit
	})
	return underWay, silent, ok
}

// control calls f with the socket at the bottom of conn, if there is one that is open.
func control(conn net.Conn, f func(fd int)) {
	sys, ok := bottom(conn).(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := sys.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}

// unanswered reports whether the peer has left several retransmissions or probes in a row
// without an answer: more than half a second of silence, and no packet lost by chance.
func unanswered(conn net.Conn) (silent bool) {
	control(conn, func(fd int) {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		silent = err == nil && (info.Retransmits >= inARow || info.Probes >= inARow)
	})
	return silent
}
