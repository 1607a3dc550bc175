package proxy

// Options for endpoints that fail over.

import (
	"fmt"
	"strings"
	"time"
)

type failoverOptions struct {
	peer      *time.Duration
	topology  bool
	instances []string
}

// WithPeerTimeout bounds how long a server may be silent on the network: what was sent to it
// unacknowledged, or keepalive probes unanswered. A statement in flight then fails, also without
// a deadline of its own; without this it would wait for the kernel, on Linux 15 minutes.
// A server that is merely busy acknowledges, and is waited for. So is one that takes in no more for now, as
// while a statement of a batch waits for a lock: if it vanishes meanwhile, that is noticed after some
// four times as long as it had taken nothing in, because the kernel asks it less and less often.
//
// Default: 5 s. At least 1 s. It is set on every *net.TCPConn, also on those from a dialer given with
// [WithDialer]. On Linux it is TCP_USER_TIMEOUT and keepalive, on macOS
// TCP_RXT_CONNDROPTIME and keepalive, elsewhere keepalive alone.
func WithPeerTimeout(d time.Duration) Option {
	return func(o *options) {
		if d < time.Second {
			o.fail("WithPeerTimeout", fmt.Sprintf("%s is less than a network may be silent by chance", d), "give at least a second, as 5*time.Second")
			return
		}
		o.failover.peer = &d
	}
}

// WithTopology lets a pool on a cluster endpoint find the new writer after a failover
// without waiting for DNS: it connects to the cluster's instances by their own names, and takes the
// one that is the writer. Where all are readers it keeps a session on each for as long as the
// pool has no writer, and has the one that is promoted within milliseconds.
//
// Without arguments the instances are learned from the cluster
// (aurora_replica_status()): a connect asks, before anything else is sent, if none has for half a
// minute. Where no answer comes within a second it is made anew, without the question. The
// instances' names are formed after the cluster endpoint's. Where that does not fit, as with a
// custom domain, give their pattern with a question mark for the identifier,
// "?.abc.eu-west-1.rds.amazonaws.com", or the names themselves, which are then all there are.
//
// There is no watcher in the background, and nothing that keeps a Serverless cluster from
// pausing: instances are only asked while somebody waits for a connection, and not while the
// endpoint leads to the writer.
func WithTopology(instances ...string) Option {
	return func(o *options) {
		o.failover.topology = true
		for _, name := range instances {
			if _, err := ParseEndpoint(strings.Replace(name, "?", "instance", 1)); err != nil {
				o.fail("WithTopology", quote(name)+" is no host name", "write an instance's endpoint, or the pattern of all with a question mark for the identifier")
			}
		}
		o.failover.instances = append(o.failover.instances, instances...)
	}
}
