package proxy

// TCP itself: how soon a peer that has vanished is noticed. A host that loses power or a
// network that is cut sends neither FIN nor RST, and Linux goes on retransmitting for a
// quarter of an hour (tcp_retries2).

import (
	"context"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// peerTimeout is how long a peer may leave what was sent to it unacknowledged, or
// keepalive probes unanswered. AWS recommends probes after 1 s, each second, five times
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/AuroraPostgreSQL.BestPractices.FastFailover.html).
const peerTimeout = 5 * time.Second

// watched has the kernel watch over every TCP connection that dial makes.
func watched(dial pgconn.DialFunc, timeout time.Duration) pgconn.DialFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if tcp, ok := conn.(*net.TCPConn); ok && err == nil {
			watch(tcp, timeout)
		}
		return conn, err
	}
}

// watch sets keepalive, for a connection that waits, and a limit for what is
// unacknowledged, for one that has sent. A socket that takes neither is used as it is.
func watch(conn *net.TCPConn, timeout time.Duration) {
	idle := max(time.Second, timeout/2)
	_ = conn.SetKeepAliveConfig(net.KeepAliveConfig{
		Enable: true, Idle: idle, Interval: time.Second, Count: max(1, int((timeout-idle)/time.Second)),
	})
	limitUnacknowledged(conn, timeout)
}

// bottom is the connection at the bottom, below TLS.
func bottom(conn net.Conn) net.Conn {
	for {
		inner, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = inner.NetConn()
	}
}

// sight is what a look into an idle connection's socket shows.
type sight uint8

const (
	unseen  sight = iota // nothing can be seen here
	quiet                // open, and nothing to read
	talking              // there is something to read: worth a ping
	closed               // by the peer
)
