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

// cancelTimeout bounds a CancelRequest, during which the pool counts the connection
// as in use. pgx would wait 15 s.
const cancelTimeout = 2 * time.Second

// dialCancel opens the connection for a CancelRequest: bare, without a login, and
// not at all towards RDS Proxy, which ignores it
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.html).
func (c *connector) dialCancel(ctx context.Context, t *target, network, addr string) (net.Conn, error) {
	if t.endpoint.Kind.IsProxy() {
		return nil, errNoCancel
	}
	if network == cancelUnix {
		network, addr = pgconn.NetworkAddress(t.endpoint.Host, t.port)
	} else {
		network = "tcp"
	}
	ctx, cancel := context.WithTimeout(ctx, cancelTimeout)
	defer cancel()
	conn, err := c.dialNet(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(cancelTimeout))
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
