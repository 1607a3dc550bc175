package retry

import (
	"context"
	"time"
)

// Serialization is a policy for transactions that conflict with each other: many quick
// attempts. A conflict (40001, 40P01) is over when the other transaction is, which is a
// matter of milliseconds; pauses that grow to a second thin out a crowd.
func Serialization() Policy {
	return Policy{Attempts: 20, Budget: 30 * time.Second, Base: 10 * time.Millisecond, Cap: time.Second}
}

// Failover is a policy for work that has to outlast a failover: AWS documents up to 60
// s for a cluster with a reader, most take less than 30
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/Concepts.AuroraHighAvailability.html).
func Failover() Policy {
	return Policy{Budget: 90 * time.Second, Base: 50 * time.Millisecond, Cap: time.Second}
}

// ColdStart is a policy for the first work of a process whose database may have to
// resume from auto-pause: 15 s, and 30 s or more after a day
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora-serverless-v2-auto-pause.html).
// Pools of package proxy wait that long by themselves.
func ColdStart() Policy {
	return Policy{Budget: 60 * time.Second, Base: 100 * time.Millisecond, Cap: 2 * time.Second}
}

// permission is what a context says about running work again.
type permission uint8

const (
	onlyIfProved permission = iota
	alsoInDoubt
	notAtAll
)

type permissionKey struct{}

// Idempotent marks work that may safely run twice: a read, an upsert of fixed values, a
// statement guarded by an id of its own. With such a context [Do] and [Tx] also run
// again what is [Ambiguous], including a COMMIT in doubt. A later [Never] overrides it.
func Idempotent(ctx context.Context) context.Context {
	return context.WithValue(ctx, permissionKey{}, alsoInDoubt)
}

// Never forbids [Do] and [Tx] to run anything again, for work inside a function that
// may not be repeated for reasons of its own.
func Never(ctx context.Context) context.Context {
	return context.WithValue(ctx, permissionKey{}, notAtAll)
}

// mayRunAgain holds a verdict against what the context permits.
func mayRunAgain(ctx context.Context, v Verdict) bool {
	p, _ := ctx.Value(permissionKey{}).(permission)
	switch p {
	case notAtAll:
		return false
	case alsoInDoubt:
		return v.Retryable() || v == Ambiguous
	default:
		return v.Retryable()
	}
}
