package proxytest_test

import (
	"context"
	"fmt"
	"log"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

// A proxy without a database is enough to see what RDS Proxy refuses.
func Example() {
	ctx := context.Background()
	px, err := proxytest.Start(ctx, "", proxytest.WithUser("app", "secret"))
	if err != nil {
		log.Fatal(err)
	}
	defer px.Close()

	cfg, err := pgconn.ParseConfig(fmt.Sprintf("postgres://app:secret@localhost:%d/orders?sslmode=verify-full&sslrootcert=%s",
		px.Port(), px.CAFile()))
	if err != nil {
		log.Fatal(err)
	}
	cfg.RuntimeParams = map[string]string{"statement_timeout": "5s"}
	_, err = pgconn.ConnectConfig(ctx, cfg)
	fmt.Println(px.Host())
	fmt.Println(err != nil, px.Stats().ClientConnectionsSetupSucceeded)

	cfg.RuntimeParams = nil
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close(ctx)
	fmt.Println(conn.PID(), px.Stats().ClientConnectionsSetupSucceeded)
	// Output:
	// app.proxy-0123456789ab.eu-west-1.rds.amazonaws.com
	// true 0
	// 0 1
}

// The rules, and what to do instead of what pins, are there for programs too.
func ExampleRules() {
	for _, r := range proxytest.Rules() {
		if r.Name == "listen" {
			fmt.Printf("%s pins: %t (%s)\n%s\n", r.Covers, r.Pins, r.Sure, r.Instead)
		}
	}
	// Output:
	// LISTEN pins: true (documented)
	// Open one connection to the cluster (writer) endpoint for LISTEN; NOTIFY may go through the proxy.
}

// The figures go wherever metrics go, under the names that dashboards for RDS Proxy know.
func ExampleStats_Metrics() {
	for _, m := range (proxytest.Stats{DatabaseConnectionsCurrentlySessionPinned: 3}).Metrics() {
		if m.Value > 0 {
			fmt.Println(m.Name, m.Value, m.Unit)
		}
	}
	// Output:
	// DatabaseConnectionsCurrentlySessionPinned 3 Count
}
