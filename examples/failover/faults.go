package main

// What is done to the cluster.

import (
	"context"
	"time"
)

// fault is one way to lose the writer, or to lose touch with it.
type fault struct {
	name, title string
	about       string
	lags        bool // DNS stays behind
	proxied     bool // the clients go through RDS Proxy
	// do does it, and returns the moment from which writes are accepted again.
	do func(ctx context.Context, b *bench) (accepts time.Time, err error)
	// undo makes the cluster whole again.
	undo func(ctx context.Context, b *bench) error
}

func (f fault) lagOf(s settings) time.Duration {
	if f.lags {
		return s.lag
	}
	return 0
}

// promotionTakes is the time between the loss of the writer and the promotion of the replica. On
// Aurora it is longer; here it only has to be long enough for the clients to have noticed.
const promotionTakes = 1200 * time.Millisecond

var faults = []fault{
	{
		name: "kill", title: "Writer crashes (SIGKILL)",
		about: "All connections end at once, the replica is promoted, DNS follows immediately.",
		do:    kill, undo: comeBack,
	},
	{
		name: "kill-lag", title: "Writer crashes, DNS stays behind", lags: true,
		about: "The same, but the endpoint's name goes on leading to the old writer, which is back as a reader in the meantime.",
		do:    killAndReturn, undo: nothing,
	},
	{
		name: "hole", title: "Writer vanishes (packets lost)",
		about: "No FIN, no RST, no answer to a SYN: what a host that lost its network looks like. Transactions have 2 s each.",
		do:    hole, undo: comeBack,
	},
	{
		name: "hole-lag", title: "Writer vanishes, DNS stays behind", lags: true,
		about: "Packets are lost, and the endpoint's name goes on leading into the void.",
		do:    hole, undo: comeBack,
	},
	{
		name: "planned", title: "Planned failover",
		about: "The writer is shut down in order (57P01), the replica promoted at once.",
		do:    planned, undo: nothing,
	},
	{
		name: "demoted", title: "Old writer keeps its sessions",
		about: "It answers, but refuses writes (25006), while another one is the writer.",
		do:    demoted, undo: comeBack,
	},
	{
		name: "bluegreen", title: "Blue/green switchover",
		about: "Writes are refused for a second, all sessions ended (57P01), all connections dropped, and the name leads to the other side.",
		do:    blueGreen, undo: comeBack,
	},
	{
		name: "restart", title: "Writer restarts",
		about: "Crash and recovery of the same instance: refused connections, then 57P03 for two seconds.",
		do:    restart, undo: nothing,
	},
	{
		name: "reset", title: "All connections reset",
		about: "Every connection gets an RST; the writer is well and stays.",
		do:    reset, undo: nothing,
	},
	{
		name: "halfopen", title: "Connections forgotten (half-open)",
		about: "The host has lost its memory: whatever is sent on an old connection is answered with a reset.",
		do:    halfOpen, undo: nothing,
	},
	{
		name: "proxy", title: "Writer crashes behind RDS Proxy", proxied: true,
		about: "The proxy keeps the idle client connections and ends those in a transaction; new work waits at the proxy.",
		do:    behindProxy, undo: comeBackBehindProxy,
	},
	{
		name: "proxy-fleet", title: "RDS Proxy drops all clients", proxied: true,
		about: "What a blue/green switchover does to the proxy's client connections, and maintenance of its fleet to some of them.",
		do:    fleet, undo: nothing,
	},
}

func nothing(context.Context, *bench) error { return nil }

func comeBack(ctx context.Context, b *bench) error { return b.cluster.Return(ctx) }

func kill(ctx context.Context, b *bench) (time.Time, error) {
	if err := b.cluster.Writer().Kill(ctx); err != nil {
		return time.Time{}, err
	}
	return promoteAfter(ctx, b, promotionTakes)
}

// killAndReturn brings the old writer back as a reader at once, where the stale name leads to it.
func killAndReturn(ctx context.Context, b *bench) (time.Time, error) {
	accepts, err := kill(ctx, b)
	if err != nil {
		return accepts, err
	}
	return accepts, b.cluster.Return(ctx)
}

func hole(ctx context.Context, b *bench) (time.Time, error) {
	b.cluster.Writer().BlackHole()
	return promoteAfter(ctx, b, promotionTakes)
}

func planned(ctx context.Context, b *bench) (time.Time, error) { return b.cluster.Switchover(ctx) }

func demoted(ctx context.Context, b *bench) (time.Time, error) {
	if err := b.cluster.Writer().SetReadOnly(ctx, true); err != nil {
		return time.Time{}, err
	}
	return promoteAfter(ctx, b, 0)
}

func blueGreen(ctx context.Context, b *bench) (time.Time, error) {
	blue := b.cluster.Writer()
	if err := blue.SetReadOnly(ctx, true); err != nil {
		return time.Time{}, err
	}
	if err := sleep(ctx, time.Second); err != nil {
		return time.Time{}, err
	}
	if err := blue.Terminate(ctx); err != nil {
		return time.Time{}, err
	}
	blue.Drop()
	return promoteAfter(ctx, b, 0)
}

func promoteAfter(ctx context.Context, b *bench, d time.Duration) (time.Time, error) {
	if err := sleep(ctx, d); err != nil {
		return time.Time{}, err
	}
	return b.cluster.Promote(ctx)
}

func restart(ctx context.Context, b *bench) (time.Time, error) {
	const recovery = 2 * time.Second
	w := b.cluster.Writer()
	if err := w.Kill(ctx); err != nil {
		return time.Time{}, err
	}
	if err := w.Restart(ctx); err != nil {
		return time.Time{}, err
	}
	w.StartingUp(recovery)
	accepts := time.Now().Add(recovery)
	return accepts, sleep(ctx, recovery)
}

func reset(_ context.Context, b *bench) (time.Time, error) {
	b.cluster.Writer().Reset()
	return time.Now(), nil
}

func halfOpen(_ context.Context, b *bench) (time.Time, error) {
	err := b.cluster.Writer().HalfOpen()
	return time.Now(), err
}

// behindProxy counts from when the proxy has its first connection to the new writer. Before that
// nobody can be served, and all clients wait for the same.
func behindProxy(ctx context.Context, b *bench) (time.Time, error) {
	b.proxy.StartFailover()
	if _, err := kill(ctx, b); err != nil {
		return time.Time{}, err
	}
	opened := func() int64 { return b.proxy.Stats().DatabaseConnectionsSetupSucceeded }
	before := opened()
	if err := b.proxy.FinishFailover(b.cluster.AppDSN(b.cluster.Writer())); err != nil {
		return time.Time{}, err
	}
	for opened() == before {
		if err := sleep(ctx, time.Millisecond); err != nil {
			return time.Time{}, err
		}
	}
	return time.Now(), nil
}

func comeBackBehindProxy(ctx context.Context, b *bench) error { return b.cluster.Return(ctx) }

func fleet(_ context.Context, b *bench) (time.Time, error) {
	b.listener.dropAll()
	return time.Now(), nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
