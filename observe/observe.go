// Package observe is how the other packages tell what they do: connect attempts and what
// they failed of, credential fetches, rotations, evictions, failovers, retries and their
// verdicts, commits in doubt, and pins in tests.
//
//	pool, err := proxy.NewPool(ctx, url, proxy.WithObserver(o))
//	source := secrets.FromManager(client, "prod/orders", secrets.Observer(o))
//	err = retry.Tx(ctx, pool, work, retry.WithObserver(o))
//	px := proxytest.NewProxy(t, dsn, proxytest.WithObserver(o))
//
// [Log] is an [Observer] that writes to a log/slog logger; proxy.WithLogger uses it. The module
// github.com/aurorapgx/aurorapgx/otel has one for OpenTelemetry. Without an observer none of the
// packages does anything for one: no event is made, no memory is allocated and no goroutine runs.
//
// # Keys
//
// Whatever is logged carries these keys, and they stay what they are:
//
//	address     the server's address, without port
//	attempt     the attempt's number, from 1; of what has ended, how many there were
//	caller      the line of code that a pin came from
//	case        the failure's name in the catalogue, FAILURES.md of package proxy
//	cause       why a connect failed, in the words of package proxy's Err values
//	database    the name of the database
//	digest      a statement without its constants
//	elapsed     the time since the operation began
//	endpoint    the endpoint, host:port
//	error       the error's text
//	former      the user before a rotation
//	from, to    the writer's address before and after
//	how         the evidence that settles a COMMIT: xid or ledger
//	kind        the endpoint's kind: proxy, cluster writer, cluster reader, instance, ...
//	pause       the time until the next attempt
//	pool        the pool, host:port/database
//	read        when a secret was read
//	reason      why, in words
//	rule        the name of the rule that pins
//	secret      the secret's name or ARN, never its value
//	settlement  what became of a COMMIT: committed, rolled back, unsettled
//	sign        what a failover was noticed by
//	source      where credentials come from: iam, secret, ...
//	stage       a secret's staging label, as AWSCURRENT
//	took        the time that this one step took
//	user        the database user
//	verdict     what an error proves, in the words of package retry's Verdict
//	version     a secret's version id
//
// No event holds a password, a token, a secret's value or a statement's arguments. The errors of
// transactions are the server's and the application's own, and may quote what they are about.
package observe

import (
	"context"
	"time"
)

// Observer is told what happens. [Operation]s have a beginning and an end, and what lies
// between may be given a context of the observer's, as one with a span in it; an [Event] is
// something that has happened.
//
// Both methods are called synchronously, on the goroutine that does the work, and from several
// at a time: they must be safe for concurrent use, and must not block. A panic is the caller's.
type Observer interface {
	// Start is called when op begins, and returns the context that it goes on with, which is ctx
	// or one made of it. Each Start is followed by one event that ends the operation:
	// [Connected] or [ConnectFailed], [TransactionEnded]. It comes with a context that is made
	// of the returned one, and so do the events between.
	Start(ctx context.Context, op Operation) context.Context
	// Observe is called when e has happened. The event is a struct of this package, not a
	// pointer. What belongs to no operation, such as a pin, comes with a context that tells nothing.
	Observe(ctx context.Context, e Event)
}

// Operation is something that takes time and has an end.
type Operation struct {
	Name string // [Connect] or [Transaction]

	// Of a connect: where to. Empty otherwise.
	Pool     string // host:port/database
	Endpoint string // host:port
	Kind     string // the endpoint's kind
}

// The names of operations.
const (
	Connect     = "connect"     // one connection is opened, over all attempts
	Transaction = "transaction" // retry.Tx, TxContext, SQLTx, or Do with an observer in its Policy
)

// Event is something that has happened: one of this package's structs.
type Event interface{ event() }

// ConnectAttempt is one attempt to connect that has ended. Waiting for the pool's other connects
// is no part of it, and an attempt that is not made, because the source has nothing but what the server
// has refused, is none.
type ConnectAttempt struct {
	Pool     string        // host:port/database
	Endpoint string        // host:port; with proxy.WithTopology it may be an instance
	Kind     string        // the endpoint's kind
	Number   int           // 1 for the first
	Took     time.Duration // of this attempt
	Elapsed  time.Duration // from the start of the connect
	Err      error         // nil if it succeeded
	Cause    error         // one of package proxy's Err values; nil if it succeeded
	Case     string        // the name in the catalogue of failures, "" if it succeeded
	Pause    time.Duration // until the next attempt
	Last     bool          // no other follows; of a connect that ends without one, ConnectFailed tells
}

// Connected ends a connect that succeeded.
type Connected struct {
	Pool     string        // host:port/database
	Endpoint string        // host:port
	Kind     string        // the endpoint's kind
	Address  string        // the server's, without port
	Attempts int           // how many it took
	Elapsed  time.Duration // over all attempts, with waiting for the pool's other connects
}

// ConnectFailed ends a connect that was given up.
type ConnectFailed struct {
	Pool     string        // host:port/database
	Endpoint string        // host:port
	Kind     string        // the endpoint's kind
	Attempts int           // how many were made; for one that waited for others, how many those made
	Elapsed  time.Duration // from the first attempt to the last failure
	Err      error         // what the caller gets, a *proxy.ConnectError
	Cause    error         // one of package proxy's Err values
	Case     string        // the name in the catalogue of failures
}

// CredentialsFetched is a connect attempt that has asked for user and password: a token was
// signed, or a source was asked, which may have had them at hand. The requests to AWS Secrets
// Manager are [SecretRead].
type CredentialsFetched struct {
	Pool     string        // host:port/database
	Endpoint string        // host:port
	Source   string        // "iam", "secret" for a source that rotates, "source" for another
	User     string        // as whom; "" if it failed
	Took     time.Duration // of the question
	Err      error         // nil if there are credentials
}

// SecretRead is a secret that was read from AWS Secrets Manager, or could not be. However many wait
// for it, it is one.
type SecretRead struct {
	Secret  string        // its name or ARN
	Stage   string        // the staging label that was read; "" if it failed
	Version string        // its version id; "" if it failed
	Changed bool          // user or password are not those that were read before
	Stale   bool          // it failed, and the old value stays in use
	Took    time.Duration // of all requests for it
	Err     error         // nil if it was read
}

// Rotated is a pool's first connection with credentials that are not those of the ones before.
// The older connections are closed in the time after it: see proxy.WithRetirement.
type Rotated struct {
	Pool     string // host:port/database
	Endpoint string // host:port
	User     string // as whom now
	Former   string // as whom before; the same unless two users alternate
}

// Evicted is an open connection that was dropped instead of being used once more.
type Evicted struct {
	Pool    string // host:port/database
	Address string // the server's, without port
	Reason  string // one of the reasons below
}

// Why connections are evicted.
const (
	EvictedClosed     = "closed"     // the server has closed it, or has said last words on it
	EvictedMoved      = "moved"      // its server is no longer what the endpoint leads to
	EvictedReadOnly   = "read-only"  // its server refused a write (25006), or was found to be a reader
	EvictedSilent     = "silent"     // its server does not acknowledge what is sent
	EvictedUnanswered = "unanswered" // it had idled, and a ping failed
	EvictedRotated    = "rotated"    // it was opened with credentials that have been replaced
)

// FailoverNoticed is a writer endpoint's server that has turned out to be no writer any more, or to
// be gone: all connections to it are dropped. Once for each server and time. An RDS Proxy hides
// its failovers, so that there is none of it behind a proxy: see [ConnectAttempt].
type FailoverNoticed struct {
	Pool     string // host:port/database
	Endpoint string // host:port
	Kind     string // the endpoint's kind
	Address  string // of the server that was the writer
	Sign     string // EvictedMoved, EvictedReadOnly or EvictedSilent
}

// WriterChanged is the first connection of a pool to another writer than before.
type WriterChanged struct {
	Pool     string // host:port/database
	Endpoint string // host:port
	Kind     string // the endpoint's kind
	From, To string // the servers' addresses, without port
}

// TransactionAttempt is one attempt at a transaction, or of retry.Do, that has ended.
type TransactionAttempt struct {
	Number     int           // 1 for the first
	Took       time.Duration // of the attempt, settling included
	Elapsed    time.Duration // from the start of the first
	Err        error         // nil if it succeeded
	Verdict    string        // what Err proves, as retry.Verdict says it; "" if it succeeded
	Reason     string        // the same in words; "" if it succeeded
	Settlement string        // what became of a COMMIT whose answer was lost, as retry.Settlement says it
	Pause      time.Duration // until the next attempt
	Last       bool          // no other follows, unless the context ends in the pause
}

// TransactionEnded ends a transaction.
type TransactionEnded struct {
	Attempts int           // how many were made
	Elapsed  time.Duration // over all of them
	Err      error         // what the caller gets; nil if it was committed
	Verdict  string        // what Err proves, as retry.Verdict says it; "" if it was committed
}

// CommitInDoubt is a COMMIT that was sent, or may have been, and not answered.
type CommitInDoubt struct {
	Err error // what came instead of an answer
}

// CommitSettled follows CommitInDoubt where settling was asked for.
type CommitSettled struct {
	How        string        // the evidence: "xid" for retry.SettleCommits, "ledger" for retry.SettleIn
	Settlement string        // "committed", "rolled back" or "unsettled"
	Took       time.Duration // to find out, or to give up
	Err        error         // why it was not found out
}

// Pinned is a client session that proxytest's RDS Proxy has pinned.
type Pinned struct {
	ClientConnection   uint64 // the number of the client connection, as in the log
	DatabaseConnection uint64 // the number of the database connection, as in the log
	User               string // the database user
	Database           string // the database
	Rule               string // the name of the rule
	Reason             string // why, in the words of RDS Proxy's log
	Digest             string // the statement, its constants replaced
	Caller             string // the line of code it came from, "" if that is not known
}

func (ConnectAttempt) event()     {}
func (Connected) event()          {}
func (ConnectFailed) event()      {}
func (CredentialsFetched) event() {}
func (SecretRead) event()         {}
func (Rotated) event()            {}
func (Evicted) event()            {}
func (FailoverNoticed) event()    {}
func (WriterChanged) event()      {}
func (TransactionAttempt) event() {}
func (TransactionEnded) event()   {}
func (CommitInDoubt) event()      {}
func (CommitSettled) event()      {}
func (Pinned) event()             {}

// All is an Observer that tells each of the given ones, in order; nil ones are left out. The context
// that one's Start returns is the next one's. Without any, All returns nil.
func All(observers ...Observer) Observer {
	var list all
	for _, o := range observers {
		if o != nil {
			list = append(list, o)
		}
	}
	switch len(list) {
	case 0:
		return nil
	case 1:
		return list[0]
	default:
		return list
	}
}

type all []Observer

func (list all) Start(ctx context.Context, op Operation) context.Context {
	for _, o := range list {
		ctx = o.Start(ctx, op) //nolint:fatcontext // one context inside the other is what is asked for
	}
	return ctx
}

func (list all) Observe(ctx context.Context, e Event) {
	for _, o := range list {
		o.Observe(ctx, e)
	}
}
