package proxytest

// The figures under the names, and in the units, that CloudWatch has for them
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.monitoring.html).

// Unit is a metric's unit, as CloudWatch names units.
type Unit string

// The units of RDS Proxy's metrics.
const (
	Count        Unit = "Count"
	Microseconds Unit = "Microseconds"
)

// A Metric is one of the figures that CloudWatch shows for an RDS Proxy.
type Metric struct {
	Name  string
	Unit  Unit
	Value float64
	Total bool // counted from the start of the proxy, where CloudWatch has the count of a minute
}

// Metrics lists the figures that CloudWatch has too; those that only [Stats] has are left out. The
// borrow latency is the average over all borrows. The metrics about TLS, query latency and
// availability are not emulated.
func (s Stats) Metrics() []Metric {
	latency := 0.0
	if borrows := s.DatabaseConnectionsBorrowRequests - s.DatabaseConnectionsBorrowRequestsAborted - s.DatabaseConnectionsBorrowTimeouts; borrows > 0 {
		latency = float64(s.DatabaseConnectionsBorrowLatency.Microseconds()) / float64(borrows)
	}
	now := func(name string, n int64) Metric { return Metric{Name: name, Unit: Count, Value: float64(n)} }
	total := func(name string, n int64) Metric {
		return Metric{Name: name, Unit: Count, Value: float64(n), Total: true}
	}
	return []Metric{
		now("ClientConnections", s.ClientConnections),
		total("ClientConnectionsReceived", s.ClientConnectionsReceived),
		total("ClientConnectionsSetupSucceeded", s.ClientConnectionsSetupSucceeded),
		total("ClientConnectionsSetupFailedAuth", s.ClientConnectionsSetupFailedAuth),
		total("ClientConnectionsClosed", s.ClientConnectionsClosed),
		now("MaxDatabaseConnectionsAllowed", s.MaxDatabaseConnectionsAllowed),
		now("DatabaseConnections", s.DatabaseConnections),
		total("DatabaseConnectionRequests", s.DatabaseConnectionRequests),
		total("DatabaseConnectionsSetupSucceeded", s.DatabaseConnectionsSetupSucceeded),
		total("DatabaseConnectionsSetupFailed", s.DatabaseConnectionsSetupFailed),
		now("DatabaseConnectionsCurrentlyBorrowed", s.DatabaseConnectionsCurrentlyBorrowed),
		now("DatabaseConnectionsCurrentlyInTransaction", s.DatabaseConnectionsCurrentlyInTransaction),
		now("DatabaseConnectionsCurrentlySessionPinned", s.DatabaseConnectionsCurrentlySessionPinned),
		{Name: "DatabaseConnectionsBorrowLatency", Unit: Microseconds, Value: latency},
		total("QueryRequests", s.QueryRequests),
	}
}
