//go:build !linux && !darwin

package proxy

import (
	"net"
	"time"
)

// limitUnacknowledged has nothing to set here: keepalive alone has to do, which does not
// run while data is unacknowledged, and the limits of pings and statements.
func limitUnacknowledged(net.Conn, time.Duration) {}

// unanswered is not told here.
func unanswered(net.Conn) bool { return false }

// unacknowledgedLimit is 0: a window that is closed is waited for here anyway.
func unacknowledgedLimit(net.Conn) time.Duration { return 0 }

// underWay is not told here.
func underWay(net.Conn, time.Duration) (underWay, silent, ok bool) { return false, false, false }
