//go:build !(linux || darwin || freebsd || netbsd || openbsd)

package proxy

import "net"

// look cannot look into a socket here, so that every connection that idled is pinged.
func look(net.Conn) sight { return unseen }
