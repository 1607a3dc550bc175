// Package aurorapgx is for Go services that talk to Amazon Aurora PostgreSQL with pgx,
// through RDS Proxy or straight to a cluster. It holds no code; these packages do:
//
//   - [github.com/aurorapgx/aurorapgx/proxy] opens pools. One call takes a connection
//     string and returns a *pgxpool.Pool that signs IAM tokens, verifies TLS, absorbs
//     cold starts and failovers, and does nothing that pins a session.
//   - [github.com/aurorapgx/aurorapgx/secrets] is where user name and password come
//     from, asked anew for each connection.
//   - [github.com/aurorapgx/aurorapgx/retry] says what an error proves about the work
//     that failed, and runs it again when that is safe.
//   - [github.com/aurorapgx/aurorapgx/observe] is how they tell what they do, to a logger or to
//     an observer. The module github.com/aurorapgx/aurorapgx/otel has one for OpenTelemetry.
//   - [github.com/aurorapgx/aurorapgx/proxy/proxytest] is an RDS Proxy that runs inside
//     a test, in front of any PostgreSQL, with the real one's rules.
//   - [github.com/aurorapgx/aurorapgx/aurora] is what the service connects to: cluster, proxy,
//     secrets, users and alarms from a typed spec, with what they cost.
//
// The shortest program:
//
//	pool, err := proxy.NewPool(ctx, os.Getenv("DATABASE_URL"))
//	if err != nil {
//		return err
//	}
//	defer pool.Close()
//
// with DATABASE_URL=postgres://app@app.proxy-abc.eu-west-1.rds.amazonaws.com/orders on
// AWS, and postgres://app:secret@localhost/orders on a laptop.
package aurorapgx
