package proxytest

import (
	"fmt"
	"log/slog"
	"time"
)

// failoverWait bounds how long StartFailover waits for the connections it cut to be gone.
const failoverWait = 5 * time.Second

// StartFailover takes the database away, as the loss of the writer does: every database connection
// is cut. Clients between transactions keep their connections and notice nothing unless they ask
// for something; what they ask then waits, as new clients' requests do, until [Proxy.FinishFailover]
// or the borrow timeout. Clients in mid-transaction or mid-statement get what [WithFailoverReply]
// says; pinned ones get it with their next request
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.howitworks.html#rds-proxy-failover).
func (p *Proxy) StartFailover() {
	cp := p.pool
	cp.mu.Lock()
	cp.down = true
	cp.epoch++
	conns := make([]*dbConn, 0, len(cp.conns))
	for db := range cp.conns {
		conns = append(conns, db)
	}
	cp.mu.Unlock()
	p.log.logger.Info(fmt.Sprintf("[proxyEndpoint=default] Failover: %d database connections cut.", len(conns)),
		slog.Int("connections", len(conns)))
	for _, db := range conns {
		db.cutOff()
	}
	timeout := time.NewTimer(failoverWait)
	defer timeout.Stop()
	for _, db := range conns {
		select {
		case <-db.done:
		case <-timeout.C:
			return
		}
	}
}

// FinishFailover brings the database back: the one behind backendDSN, or the same one if that is
// empty. Those who wait for a connection go on.
func (p *Proxy) FinishFailover(backendDSN string) error {
	backend, err := parseBackend(backendDSN)
	if err != nil {
		return fmt.Errorf("finish failover: %w", err)
	}
	cp := p.pool
	cp.mu.Lock()
	defer cp.mu.Unlock()
	if backend != nil {
		cp.backend = backend
	}
	clear(cp.statuses)
	cp.down = false
	cp.dispatch()
	return nil
}

// Failover is [Proxy.StartFailover], an outage of the given length, and [Proxy.FinishFailover]. It
// returns when that is over, or when the proxy is closed.
func (p *Proxy) Failover(outage time.Duration, newBackendDSN string) error {
	p.StartFailover()
	select {
	case <-time.After(outage):
	case <-p.ctx.Done():
	}
	return p.FinishFailover(newBackendDSN)
}
