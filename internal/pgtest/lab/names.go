package lab

// The names of the cluster, which follow the writer with a lag.

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

type names struct {
	mu      sync.Mutex
	lag     time.Duration
	records map[string]record
}

// record is what a name leads to, and what it will lead to from a time on.
type record struct {
	now, next netip.Addr
	from      time.Time
}

func newNames() *names { return &names{records: map[string]record{}} }

func (n *names) setLag(d time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lag = d
}

// follow has a name lead elsewhere after the lag.
func (n *names) follow(host string, addr netip.Addr) {
	n.mu.Lock()
	lag := n.lag
	n.mu.Unlock()
	n.point(host, lag, addr)
}

func (n *names) point(host string, after time.Duration, addr netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.records[host].settled()
	if after == 0 {
		r.now = addr
	}
	r.next, r.from = addr, time.Now().Add(after)
	n.records[host] = r
}

func (n *names) settle() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for host, r := range n.records {
		if r.next.IsValid() {
			r.now, r.next = r.next, netip.Addr{}
		}
		n.records[host] = r
	}
}

func (r record) settled() record {
	if r.next.IsValid() && !time.Now().Before(r.from) {
		r.now = r.next
	}
	return r
}

func (n *names) lookup(ctx context.Context, host string) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	r, ok := n.records[strings.ToLower(strings.TrimSuffix(host, "."))]
	if !ok {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return []string{r.settled().now.String()}, nil
}
