package lab

// One instance of the cluster, and what can be done to it.

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/aurorapgx/aurorapgx/internal/pgtest"
)

// Instance is a server behind its front. The faults of one instance replace each other,
// but for latency; [Instance.Heal] ends them.
type Instance struct {
	id, host string
	addr     netip.Addr
	server   *pgtest.Server
	front    *front
}

// ID is the instance's identifier, and Host its endpoint.
func (i *Instance) ID() string { return i.id }

// Host is the instance's endpoint.
func (i *Instance) Host() string { return i.host }

// Addr is what the instance's name resolves to.
func (i *Instance) Addr() string { return i.addr.String() }

// DSN is the superuser's connection string for the server, past the front.
func (i *Instance) DSN() string { return i.server.DSN() }

// Kill ends the server with SIGKILL. Its host stays up: connects are refused.
func (i *Instance) Kill(ctx context.Context) error {
	i.front.set(behaviour{refuse: true})
	return i.server.Kill(ctx)
}

// Stop shuts the server down in order: sessions get 57P01.
func (i *Instance) Stop(ctx context.Context) error {
	i.front.set(behaviour{refuse: true})
	return i.server.Stop(ctx)
}

// Restart starts the server again, as what it was.
func (i *Instance) Restart(ctx context.Context) error {
	if err := i.server.Restart(ctx); err != nil {
		return err
	}
	i.Heal()
	return nil
}

// BlackHole loses every packet from now on, in both directions: no FIN, no RST, no answer
// to a SYN. On Linux the kernel drops them (a socket filter), so that clients see
// retransmissions go unanswered; elsewhere the front stops reading, and only dials hang.
func (i *Instance) BlackHole() { i.front.blackHole() }

// HalfOpen forgets all connections without a word, as a host that lost power and is back:
// what clients send on them is answered with a reset. It needs CAP_NET_ADMIN.
func (i *Instance) HalfOpen() error { return i.front.halfOpen() }

// Reset resets all connections (RST). New ones are accepted.
func (i *Instance) Reset() { i.front.cut(true) }

// Drop ends all connections (FIN). New ones are accepted.
func (i *Instance) Drop() { i.front.cut(false) }

// DropOne ends one connection, any of them, as RDS Proxy's own maintenance does.
func (i *Instance) DropOne() { i.front.cutOne() }

// SetLatency delays every packet in each direction by d.
func (i *Instance) SetLatency(d time.Duration) { i.front.latency.Store(int64(d)) }

// StartingUp answers logins with 57P03 for d.
func (i *Instance) StartingUp(d time.Duration) {
	i.front.set(behaviour{startingUntil: time.Now().Add(d)})
}

// HangUpAbove closes connections without an answer while more than n logins are under way.
func (i *Instance) HangUpAbove(n int64) { i.front.set(behaviour{logins: n}) }

// Pause makes the instance one that has paused: the first connection starts its resume, which
// takes d, and connections are held until then. Every refuse-th of those held gets the
// error that a resuming instance was seen to give without meaning it
// (https://github.com/cyrilgdn/terraform-provider-postgresql/issues/540); 0 is none.
func (i *Instance) Pause(d time.Duration, refuse int64) {
	i.front.cut(false)
	i.front.set(behaviour{resume: newResume(d), lie: refuse})
}

// SetReadOnly has the server refuse writes with 25006, or stop doing so, on connections that are
// open too. It is how a demoted writer answers that has kept its sessions, and the blue
// side of a blue/green switchover.
func (i *Instance) SetReadOnly(ctx context.Context, on bool) error {
	return exec(ctx, i.server.DSN(), fmt.Sprintf("alter system set default_transaction_read_only = %v", on), "select pg_reload_conf()")
}

// Terminate ends all sessions of the application with 57P01, as an administrator does, and
// as a blue/green switchover does.
func (i *Instance) Terminate(ctx context.Context) error {
	return exec(ctx, i.server.DSN(), "select pg_terminate_backend(pid) from pg_stat_activity where usename = '"+User+"'")
}

// Heal ends all faults. Connections that were in a black hole are gone.
func (i *Instance) Heal() { i.front.heal() }

// Connections is how many clients are connected, and Logins how many logins were begun.
func (i *Instance) Connections() int { return i.front.count() }

// Logins is how many connections have asked for a login since the start.
func (i *Instance) Logins() int64 { return i.front.begun.Load() }

// Dials is how many connects were tried, those that were refused or went into a black
// hole included.
func (i *Instance) Dials() int64 { return i.front.dialled.Load() }

// MostLogins is how many logins were under way at the same time, at most.
func (i *Instance) MostLogins() int64 { return i.front.mostly.Load() }
