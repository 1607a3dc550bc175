//go:build !linux && !darwin

package proxy

import (
	"net"
	"time"
)

// limitUnacknowledged has nothing to set here: keepalive alone has to do, which does not
// run while data is unacknowledged, and the limits of pings and statements.
func limitUnacknowledged(*net.TCPConn, time.Duration) {}

// unanswered is not told here.
func unanswered(net.Conn) bool { return false }
