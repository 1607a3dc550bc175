package proxytest

// Limits on clients: how many, how fast, and how many IAM sign-ins. RDS Proxy has all three and
// publishes none of the numbers
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.troubleshooting.html).

import (
	"strconv"
	"sync"
	"time"
)

// WithMaxClientConnections bounds the client connections that are open at a time. A further one is
// refused with 53300 before it is asked who it is. The default is no limit, as RDS Proxy's is not
// published.
func WithMaxClientConnections(n int) Option { return func(c *config) { c.maxClients = n } }

// WithClientConnectionRate bounds the client connections per second; as many may come at once. A
// further one is refused with 53300 before it is asked who it is. The default is no limit, as RDS
// Proxy's is not published.
func WithClientConnectionRate(perSecond int) Option {
	return func(c *config) { c.clientRate = perSecond }
}

// WithIAMRate bounds the sign-ins with IAM per second; as many may come at once. A further one is
// refused with 53300. The default is no limit: AWS throttles, and does not say from when on.
func WithIAMRate(perSecond int) Option { return func(c *config) { c.iamRate = perSecond } }

const (
	tooManyClientsText = "The maximum number of client connections to the proxy exceeded %."
	tooFastText        = "Rate of connection to proxy exceeded %."
	iamThrottledText   = "The IAM authentication failed because of too many competing requests."
)

// admit refuses a client connection that is one too many, or comes too soon.
func (p *Proxy) admit() error {
	switch {
	case p.cfg.maxClients > 0 && p.counters.clients.Load() > int64(p.cfg.maxClients):
		return &refusal{code: "53300", message: fillIn(tooManyClientsText, strconv.Itoa(p.cfg.maxClients))}
	case !p.connectRate.allow(p.cfg.clientRate, time.Now()):
		return &refusal{code: "53300", message: fillIn(tooFastText, strconv.Itoa(p.cfg.clientRate))}
	}
	return nil
}

// rate is a bucket that holds one second's worth.
type rate struct {
	mu   sync.Mutex
	left float64
	at   time.Time
}

// allow takes one out of the bucket, if there is one. A limit of 0 is none.
func (r *rate) allow(perSecond int, now time.Time) bool {
	if perSecond <= 0 {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	limit := float64(perSecond)
	if r.at.IsZero() {
		r.left = limit
	} else {
		r.left = min(limit, r.left+limit*now.Sub(r.at).Seconds())
	}
	r.at = now
	if r.left < 1 {
		return false
	}
	r.left--
	return true
}
