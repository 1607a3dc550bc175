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
func (p *Proxy) StartFailover() { p.takeDown(false) }

// takeDown cuts all database connections, and lets nobody have one.
func (p *Proxy) takeDown(switchover bool) {
	cp := p.pool
	cp.mu.Lock()
	cp.down = true
	cp.epoch++
	conns := make([]*dbConn, 0, len(cp.conns))
	for db := range cp.conns {
		db.switchover = switchover
		conns = append(conns, db)
	}
	cp.mu.Unlock()
	p.log.logger.Info(fmt.Sprintf("[proxyEndpoint=%s] Failover: %d database connections cut.", p.cfg.endpointName, len(conns)),
		slog.Int("connections", len(conns)))
	cutAll(conns)
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
		cp.targets = []*target{{dsn: backendDSN, cfg: backend}}
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

// Switchover is the switchover of a blue/green deployment: clients in mid-transaction or mid-statement
// get 57P01, whatever [WithFailoverReply] says, requests wait for the length of the outage, and when the
// green database takes over, all client connections are dropped, idle ones too
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-blue-green.html).
func (p *Proxy) Switchover(outage time.Duration, greenDSN string) error {
	if _, err := parseBackend(greenDSN); err != nil {
		return fmt.Errorf("switchover: %w", err)
	}
	p.takeDown(true)
	select {
	case <-time.After(outage):
	case <-p.ctx.Done():
	}
	p.mu.Lock()
	for s := range p.sessions {
		if p.closed {
			break
		}
		p.wg.Go(func() { s.hangUp(nil) })
	}
	p.mu.Unlock()
	return p.FinishFailover(greenDSN)
}
