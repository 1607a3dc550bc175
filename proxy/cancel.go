package proxy

// CancelRequest, which pgx sends when a context ends a running statement.

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

var errNoCancel = errors.New("no CancelRequest is sent here")

// A CancelRequest may take a few times what the connection's own login took, within
// these bounds. Meanwhile the pool counts the connection as in use, so that in an outage
// a pool whose statements all time out would have none left. pgx would wait 15 s.
const (
	cancelLogins     = 4
	shortestPatience = 250 * time.Millisecond
	longestPatience  = 2 * time.Second
)

// patienceAfter is how long a server may take whose login took so long.
func patienceAfter(login time.Duration) time.Duration {
	return min(max(cancelLogins*login, shortestPatience), longestPatience)
}

// dialCancel opens the connection for a CancelRequest: bare, without a login, and
// not at all towards RDS Proxy, which ignores it
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.html), or to a
// server that is gone.
func (c *connector) dialCancel(ctx context.Context, from opened, network, addr string) (net.Conn, error) {
	t, patience := from.target, longestPatience
	if from.conn != nil {
		patience = from.conn.patience
	}
	if t.endpoint.Kind.IsProxy() || from.conn != nil && from.conn.isLost() {
		return nil, errNoCancel
	}
	if network == cancelUnix {
		network, addr = pgconn.NetworkAddress(t.endpoint.Host, t.port)
	} else {
		network = "tcp"
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := c.dialNet(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	if t.tls == nil {
		return conn, nil
	}
	if err := requestTLS(conn); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return tls.Client(conn, t.tls), nil
}

// requestTLS sends SSLRequest and reads the one-byte answer.
// https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL
func requestTLS(conn net.Conn) error {
	if _, err := conn.Write([]byte{0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f}); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := conn.Read(answer[:]); err != nil {
		return err
	}
	if answer[0] != 'S' {
		return errors.New("server refused TLS connection")
	}
	return nil
}
