package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/secrets"
	"github.com/aurorapgx/aurorapgx/secrets/secretstest"
)

// A service opens its pool at the start, before the server has to be there.
func ExampleNewPool() {
	ctx := context.Background()
	pool, err := proxy.NewPool(ctx, "postgres://app@app.proxy-abc.eu-west-1.rds.amazonaws.com/orders")
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	fmt.Println(pool.Config().MaxConns, pool.Config().MaxConnIdleTime)
	// Output: 10 5m0s
}

// What cannot work is said before anything is dialled.
func ExampleNewPool_configError() {
	_, err := proxy.NewPool(context.Background(), "postgres://app@app.proxy-abc.eu-west-1.rds.amazonaws.com/orders?statement_timeout=5s")
	if cfgErr, ok := errors.AsType[*proxy.ConfigError](err); ok {
		fmt.Println(cfgErr.Source)
		fmt.Println(cfgErr.Problem)
		fmt.Println(cfgErr.Fix)
	}
	// Output:
	// connection string
	// RDS Proxy refuses the startup parameter "statement_timeout"
	// set it per role: ALTER ROLE app SET statement_timeout = '5s', or in the proxy's initialization query
}

// A single connection, for LISTEN or a migration, with the caller's own deadline.
func ExampleConnect() {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	_, err := proxy.Connect(ctx, "postgres://app:secret@127.0.0.1:1/orders") // nothing listens there
	if connectErr, ok := errors.AsType[*proxy.ConnectError](err); ok {
		fmt.Println(connectErr.Cause, connectErr.Attempts > 1, errors.Is(err, context.DeadlineExceeded))
	}
	// Output: server cannot be reached true true
}

// For those who have a configuration with hooks of their own.
func ExampleConfigure() {
	cfg, err := pgxpool.ParseConfig("postgres://app@orders.cluster-abc.eu-west-1.rds.amazonaws.com/orders")
	if err != nil {
		log.Fatal(err)
	}
	cfg.MaxConns = 25
	if err := proxy.Configure(cfg, proxy.WithCredentials(secrets.Static("app", "from-a-file"))); err != nil {
		log.Fatal(err)
	}
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	fmt.Println(pool.Config().MaxConns, len(pool.Config().ConnConfig.Fallbacks))
	// Output: 25 0
}

// User name and password from AWS Secrets Manager, followed through each rotation. In
// DATABASE_URL the same is postgres://HOST/orders?secret=prod/orders.
func ExampleWithCredentials() {
	ctx := context.Background()
	srv, err := secretstest.Start() // in a service: AWS
	if err != nil {
		log.Fatal(err)
	}
	defer srv.Close()
	srv.Put("prod/orders", `{"username":"app","password":"correct-horse","host":"app.proxy-abc.eu-west-1.rds.amazonaws.com","dbname":"orders"}`)

	src := secrets.FromManager(srv.Client(), "prod/orders")
	pool, err := proxy.NewPool(ctx, "postgres:///", proxy.WithCredentials(src)) // host and database from the secret, too
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	fmt.Println(pool.Config().ConnConfig.Host, pool.Config().ConnConfig.Database)
	// Output: app.proxy-abc.eu-west-1.rds.amazonaws.com orders
}

func ExampleParseEndpoint() {
	for _, host := range []string{
		"app.proxy-abc.eu-west-1.rds.amazonaws.com",
		"orders.cluster-ro-abc.us-east-1.rds.amazonaws.com",
		"localhost",
	} {
		e, err := proxy.ParseEndpoint(host)
		fmt.Printf("%s, %q, %v\n", e.Kind, e.Region, err)
	}
	// Output:
	// proxy, "eu-west-1", <nil>
	// cluster reader, "us-east-1", <nil>
	// other, "", <nil>
}

func ExampleCheck() {
	report, err := proxy.Check(context.Background(), "postgres://app@app.proxy-abc.eu-west-1.rds.amazonaws.com/orders?statement_timeout=5s")
	if err != nil {
		fmt.Println(report.Case)
		fmt.Println(report.Cause)
		fmt.Println(report.Fix)
	}
	// Output:
	// startup-parameter
	// connection string: RDS Proxy refuses the startup parameter "statement_timeout"
	// set it per role: ALTER ROLE app SET statement_timeout = '5s', or in the proxy's initialization query
}
