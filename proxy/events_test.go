package proxy

import (
	"context"
	"testing"

	"github.com/aurorapgx/aurorapgx/retry"
)

// Nobody who listens costs nothing, wherever something could be told.
func TestEventsForNobodyAllocateNothing(t *testing.T) {
	first := target{endpoint: Endpoint{Host: "orders.cluster-abc.eu-west-1.rds.amazonaws.com", Kind: KindWriter}, port: 5432}
	e := newEvents(&options{}, first, "orders")
	gs := &generations{events: e}
	conn := &handedConn{generation: gs.join("10.0.0.1")}
	conn.generation.used.Store(true)
	ctx, failed := context.Background(), &ConnectError{}
	n := testing.AllocsPerRun(100, func() {
		inside := e.start(ctx)
		if e.on() {
			e.attempted(inside, &first, retry.Attempt{}, 1, finding{})
		}
		e.connected(inside, &first, conn, 1, 1)
		e.connectFailed(inside, &first, failed)
		e.rotated(inside, &first, "app", "app")
		e.evicted(inside, conn, conn.unusable())
		e.noticed(inside, conn.generation, hasMoved)
		gs.foundWriter(inside, "10.0.0.1", nil)
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}
