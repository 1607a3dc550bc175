package proxytest

// The proxy's figures, under the names CloudWatch has for them
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.monitoring.html).

import (
	"sync/atomic"
	"time"
)

// Stats are the proxy's figures at one moment. Those with a CloudWatch name mean what the metric
// means, counted from the start of the proxy; the others are marked.
type Stats struct {
	ClientConnections                int64 // open now
	ClientConnectionsReceived        int64 // asked for
	ClientConnectionsSetupSucceeded  int64 // signed in
	ClientConnectionsSetupFailedAuth int64 // refused for their credentials
	ClientConnectionsClosed          int64 // ended, after having signed in

	MaxDatabaseConnectionsAllowed             int64 // size of the pool
	DatabaseConnections                       int64 // open now, those being opened included
	DatabaseConnectionRequests                int64 // attempts to open one
	DatabaseConnectionsSetupSucceeded         int64
	DatabaseConnectionsSetupFailed            int64
	DatabaseConnectionsCurrentlyBorrowed      int64
	DatabaseConnectionsCurrentlyInTransaction int64
	DatabaseConnectionsCurrentlySessionPinned int64
	DatabaseConnectionsBorrowRequests         int64
	DatabaseConnectionsBorrowRequestsAborted  int64 // not CloudWatch's meaning in all detail: the client went away while it waited
	DatabaseConnectionsBorrowTimeouts         int64 // not in CloudWatch: answered with 08000
	DatabaseConnectionsBorrowWaiting          int64 // not in CloudWatch: requests that wait for a connection now

	DatabaseConnectionsBorrowLatency    time.Duration // sum over all borrows (CloudWatch: average, in µs)
	DatabaseConnectionsBorrowLatencyMax time.Duration // not in CloudWatch

	QueryRequests int64 // simple queries: CloudWatch does not count the extended protocol

	PinnedSessions  int64 // not in CloudWatch: sessions ever pinned
	SessionLeaks    int64 // not in CloudWatch: what strict mode found, see WithStrictSessions
	Statements      int64 // not in CloudWatch: Query and Execute messages received
	NamedStatements int64 // not in CloudWatch: Parse messages with a name received
	Reparsed        int64 // not in CloudWatch: statements prepared again on another database connection
	CancelRequests  int64 // not in CloudWatch: received, and ignored
}

type counters struct {
	clients, received, succeeded, failedAuth, closed atomic.Int64

	dbRequests, dbSucceeded, dbFailed                        atomic.Int64
	borrowed, inTransaction, pinned                          atomic.Int64
	borrowRequests, borrowAborted, borrowTimeouts            atomic.Int64
	borrowWaiting                                            atomic.Int64
	borrowLatency, borrowLatencyMax                          atomic.Int64
	queries, statements, namedStatements, reparsed, canceled atomic.Int64
}

func (c *counters) borrowTook(d time.Duration) {
	c.borrowLatency.Add(int64(d))
	for {
		old := c.borrowLatencyMax.Load()
		if int64(d) <= old || c.borrowLatencyMax.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}

// Stats reads the proxy's figures. What a client has an answer for is counted; a connection is
// given back before the client sees that its transaction has ended.
func (p *Proxy) Stats() Stats {
	c := &p.counters
	p.pins.mu.Lock()
	pinned, leaks := int64(p.pins.total), int64(len(p.pins.leaks))
	p.pins.mu.Unlock()
	return Stats{
		ClientConnections:                         c.clients.Load(),
		ClientConnectionsReceived:                 c.received.Load(),
		ClientConnectionsSetupSucceeded:           c.succeeded.Load(),
		ClientConnectionsSetupFailedAuth:          c.failedAuth.Load(),
		ClientConnectionsClosed:                   c.closed.Load(),
		MaxDatabaseConnectionsAllowed:             int64(p.cfg.maxConnections),
		DatabaseConnections:                       p.pool.size(),
		DatabaseConnectionRequests:                c.dbRequests.Load(),
		DatabaseConnectionsSetupSucceeded:         c.dbSucceeded.Load(),
		DatabaseConnectionsSetupFailed:            c.dbFailed.Load(),
		DatabaseConnectionsCurrentlyBorrowed:      c.borrowed.Load(),
		DatabaseConnectionsCurrentlyInTransaction: c.inTransaction.Load(),
		DatabaseConnectionsCurrentlySessionPinned: c.pinned.Load(),
		DatabaseConnectionsBorrowRequests:         c.borrowRequests.Load(),
		DatabaseConnectionsBorrowRequestsAborted:  c.borrowAborted.Load(),
		DatabaseConnectionsBorrowTimeouts:         c.borrowTimeouts.Load(),
		DatabaseConnectionsBorrowWaiting:          c.borrowWaiting.Load(),
		DatabaseConnectionsBorrowLatency:          time.Duration(c.borrowLatency.Load()),
		DatabaseConnectionsBorrowLatencyMax:       time.Duration(c.borrowLatencyMax.Load()),
		QueryRequests:                             c.queries.Load(),
		PinnedSessions:                            pinned,
		SessionLeaks:                              leaks,
		Statements:                                c.statements.Load(),
		NamedStatements:                           c.namedStatements.Load(),
		Reparsed:                                  c.reparsed.Load(),
		CancelRequests:                            c.canceled.Load(),
	}
}
