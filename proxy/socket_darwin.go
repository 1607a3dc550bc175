package proxy

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// limitUnacknowledged is the nearest thing macOS has, in whole seconds.
func limitUnacknowledged(conn *net.TCPConn, d time.Duration) {
	const rxtConnDropTime = 0x80 // TCP_RXT_CONNDROPTIME of netinet/tcp.h
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, rxtConnDropTime, int((d + time.Second - 1).Seconds()))
	})
}

// unanswered is not told here.
func unanswered(net.Conn) bool { return false }
