package aurora

// How many database connections there are, and how they divide over the application's tasks.

import (
	"errors"
	"fmt"
)

// maxConnectionsByACU is AWS's table of max_connections by maximum capacity:
// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora-serverless-v2.setting-capacity.html
var maxConnectionsByACU = []struct {
	acu         float64
	connections int
}{{1, 189}, {4, 823}, {8, 1669}, {16, 3360}, {32, 5000}, {256, 5000}}

// cappedConnections is what max_connections is capped at with a minimum of 0 or 0.5 ACU.
const cappedConnections = 2000

// MaxConnections is max_connections of each instance: it follows from the maximum capacity, and is
// capped at 2,000 when the minimum is 0 or 0.5 ACU. AWS documents it for 1, 4, 8, 16 and 32 ACU and
// more; between these it is interpolated here, and documented is false. A changed maximum
// takes effect with a reboot.
// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora-serverless-v2.setting-capacity.html
func MaxConnections(c Capacity) (connections int, documented bool) {
	table := maxConnectionsByACU
	connections, documented = table[0].connections, c.Max == table[0].acu
	for i, to := range table[1:] {
		from := table[i]
		if c.Max <= from.acu {
			break
		}
		share := min((c.Max-from.acu)/(to.acu-from.acu), 1)
		connections = from.connections + int(share*float64(to.connections-from.connections))
		documented = share == 1 || from.connections == to.connections
	}
	if c.Min < 1 && connections > cappedConnections {
		return cappedConnections, c.Max >= 16 // the first maximum that is documented to have more
	}
	return connections, documented
}

// Client is a part of an application that connects: a service, or a function.
type Client struct {
	Name     string `json:"name"`
	Tasks    int    `json:"tasks"`              // how many run at a time, at most: tasks, or a function's environments
	MaxConns int    `json:"maxConns,omitempty"` // of each task's pool; 0 to have it worked out
	Reader   bool   `json:"reader,omitempty"`   // connects to the readers
}

// Budget is how many connections there are and who gets how many.
type Budget struct {
	MaxConnections int    `json:"maxConnections"` // of each instance
	Documented     bool   `json:"documented"`     // false: interpolated between the figures AWS documents
	Capped         bool   `json:"capped"`         // the minimum capacity keeps it at 2,000
	SharePercent   int    `json:"sharePercent"`   // how much of it clients may have together
	Proxied        bool   `json:"proxied"`        // the share is the proxy's
	Writer         Supply `json:"writer"`
	Readers        Supply `json:"readers"`
	// Clients are those given, with MaxConns filled in: no more than that many for each task
	// keeps the sum within what is usable. It is a bound and no advice to go to it.
	Clients []Client `json:"clients"`
}

// Supply is one side of a [Budget]: the writer, or all readers together.
type Supply struct {
	Instances      int  `json:"instances"`
	Connections    int  `json:"connections"`    // that clients may have at a time
	Usable         int  `json:"usable"`         // of these, keeping 30 % in reserve above the peak
	Demand         int  `json:"demand"`         // what all clients come to when every pool is full
	Oversubscribed bool `json:"oversubscribed"` // Demand exceeds Connections
	Tight          bool `json:"tight"`          // Demand exceeds Usable
}

// directPercent is what clients may have of max_connections without a proxy. The rest is for
// administrators and for what PostgreSQL and RDS keep for themselves.
const directPercent = 90

// headroom is how far above the peak the supply should be: AWS advises 30 %, because a proxy
// divides its share among its nodes.
// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-connections.html
const headroom = 1.3

// ConnectionBudget works out the connections of each side and a MaxConns for the tasks of every
// client that has none.
//
// Behind a proxy the number is that of transactions at a time: more pool connections than that
// are no error, for they share, but when all of them are busy the surplus waits, and fails after
// [Proxy.BorrowTimeout]. Without a proxy the surplus is refused (SQLSTATE 53300).
func ConnectionBudget(spec Spec, clients ...Client) (Budget, error) {
	s := spec.WithDefaults()
	var b Budget
	b.MaxConnections, b.Documented = MaxConnections(s.Capacity)
	uncapped, _ := MaxConnections(Capacity{Min: 1, Max: s.Capacity.Max})
	b.Capped = b.MaxConnections < uncapped
	b.Proxied, b.SharePercent = !s.Proxy.Off, s.Proxy.MaxConnectionsPercent
	if s.Proxy.Off {
		b.SharePercent = directPercent
	}
	b.Writer = b.supply(1)
	b.Readers = b.supply(len(s.Readers))
	if err := checkClients(clients, len(s.Readers)); err != nil {
		return Budget{}, fmt.Errorf("aurora: connection budget: %w", err)
	}
	b.divide(&b.Writer, clients, false)
	b.divide(&b.Readers, clients, true)
	for _, c := range clients {
		if c.MaxConns == 0 {
			c.MaxConns = b.perTask(c.Reader, clients)
		}
		b.Clients = append(b.Clients, c)
	}
	return b, nil
}

func checkClients(clients []Client, readers int) error {
	var errs []error
	for _, c := range clients {
		switch {
		case c.Tasks < 1:
			errs = append(errs, fmt.Errorf("client %q has %d tasks; give the largest number that runs at a time", c.Name, c.Tasks))
		case c.MaxConns < 0:
			errs = append(errs, fmt.Errorf("client %q has MaxConns %d; 0 has it worked out", c.Name, c.MaxConns))
		case c.Reader && readers == 0:
			errs = append(errs, fmt.Errorf("client %q connects to readers, and the spec has none", c.Name))
		}
	}
	return errors.Join(errs...)
}

func (b *Budget) supply(instances int) Supply {
	n := instances * (b.MaxConnections * b.SharePercent / 100)
	return Supply{Instances: instances, Connections: n, Usable: int(float64(n) / headroom)}
}

// divide adds up what a side's clients ask for.
func (b *Budget) divide(s *Supply, clients []Client, reader bool) {
	for _, c := range clients {
		if c.Reader != reader {
			continue
		}
		each := c.MaxConns
		if each == 0 {
			each = b.perTask(reader, clients)
		}
		s.Demand += each * c.Tasks
	}
	s.Oversubscribed = s.Demand > s.Connections
	s.Tight = s.Demand > s.Usable
}

// perTask is what is left for each task of the clients that ask for it, and at least 1.
func (b *Budget) perTask(reader bool, clients []Client) int {
	left := b.Writer.Usable
	if reader {
		left = b.Readers.Usable
	}
	tasks := 0
	for _, c := range clients {
		switch {
		case c.Reader != reader:
		case c.MaxConns == 0:
			tasks += c.Tasks
		default:
			left -= c.MaxConns * c.Tasks
		}
	}
	return max(left/max(tasks, 1), 1)
}
