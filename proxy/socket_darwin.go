package proxy

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// limitUnacknowledged is the nearest thing macOS has, in whole seconds.
func limitUnacknowledged(conn net.Conn, d time.Duration) {
	const rxtConnDropTime = 0x80 // TCP_RXT_CONNDROPTIME of netinet/tcp.h
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, rxtConnDropTime, int((d + time.Second - 1).Seconds()))
	})
}

// unanswered is not told here.
func unanswered(net.Conn) bool { return false }

// unacknowledgedLimit is 0: a window that is closed is waited for here anyway.
func unacknowledgedLimit(net.Conn) time.Duration { return 0 }

// underWay is not told here.
func underWay(net.Conn, time.Duration) (underWay, silent, ok bool) { return false, false, false }
