// Package otelaurora gives OpenTelemetry what package observe tells: metrics with the names of
// the semantic conventions, and spans for connects and transactions.
//
//	observer := otelaurora.NewObserver()
//	pool, err := proxy.NewPool(ctx, url, proxy.WithObserver(observer))
//	stop, err := observer.ObservePool(pool)
//	...
//	err = retry.TxContext(ctx, pool, work, retry.WithObserver(observer))
//
// A Secrets Manager source that the application makes itself gets it with secrets.Observer.
//
// Spans and metrics of single statements are not this package's business: github.com/exaring/otelpgx
// makes them, and goes well beside it: proxy.WithTracer takes it, as in examples/otel. In a trace
// of both, a connect of this package, with all its attempts, lies within otelpgx's, and the
// statements of retry.TxContext within the transaction.
//
// # Metrics of the semantic conventions
//
// Durations are in seconds. All of these carry db.client.connection.pool.name, which is
// host:port/database unless [WithPoolName] says something else.
//
//	db.client.connection.count             open connections, by db.client.connection.state: idle, used
//	db.client.connection.max               the pool's limit
//	db.client.connection.idle.max          the same: pgxpool keeps as many
//	db.client.connection.idle.min          what the pool keeps open without need
//	db.client.connection.pending_requests  callers waiting for a connection
//	db.client.connection.timeouts          callers whose deadline ended that wait
//	db.client.connection.create_time       one connect with all its attempts, if it succeeded
//	db.client.connection.wait_time         how long callers waited for a connection
//	db.client.connection.use_time          how long they kept it
//
// They come from [Observer.ObservePool], but for create_time, which every observed connect adds to.
// Source: https://opentelemetry.io/docs/specs/semconv/database/database-metrics/
//
// # Metrics of its own
//
// What the conventions have no name for. error.type is there only where something failed: the name in
// the catalogue of failures (proxy/FAILURES.md) for connects, SQLSTATE for transactions.
//
//	aurorapgx.connect.attempt.duration   one attempt; aurorapgx.endpoint.kind, error.type
//	aurorapgx.connect.failures           connects that were given up; error.type
//	aurorapgx.credentials.duration       asking for user and password; aurorapgx.credentials.source, error.type
//	aurorapgx.secret.read.duration       reading AWS Secrets Manager; aurorapgx.secret.name, error.type
//	aurorapgx.rotations                  times that a pool went over to new credentials
//	aurorapgx.evictions                  connections dropped instead of used; aurorapgx.eviction.reason
//	aurorapgx.failovers                  failovers noticed; aurorapgx.failover.sign
//	aurorapgx.writer.changes             connects that found another writer
//	aurorapgx.transaction.duration       retry.Tx from the first BEGIN to the end; error.type
//	aurorapgx.transaction.attempts       of them; aurorapgx.verdict, committed for one that was
//	aurorapgx.commits.in_doubt           COMMITs that were not answered
//	aurorapgx.commits.settled            of them; aurorapgx.settlement
//	aurorapgx.pins                       sessions that proxytest pinned; aurorapgx.pin.rule
//	aurorapgx.pool.connections.opening   connects under way
//	aurorapgx.pool.connections.retired   connections that pgxpool closed; aurorapgx.retirement: lifetime, idle
//
// # Spans
//
//	aurorapgx.connect      one connect; an event for each attempt, for credentials and for a secret that was read
//	aurorapgx.transaction  retry.Tx, TxContext, SQLTx; an event for each attempt with its verdict, for a COMMIT in doubt
//	                       and how it was settled, and for connections that were evicted on the way
//
// # What it costs
//
// A query pays for wait_time and use_time, with one small allocation: they are noted when a connection is given back,
// and go to the histograms many at a time. Everything else happens when something happens. Metrics of the pool are read when a reader collects; there is no goroutine. No
// attribute holds a password, a token, a statement or its arguments; the texts of a transaction's
// errors are left out, because PostgreSQL quotes values in them.
package otelaurora
