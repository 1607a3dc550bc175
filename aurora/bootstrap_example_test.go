package aurora_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/aurorapgx/aurorapgx/aurora"
)

// The exec function is that of the connection: conn.Exec of pgx, or db.ExecContext.
func ExampleBootstrap() {
	exec := func(_ context.Context, sql string, _ ...any) (int, error) { // stands in for conn.Exec
		fmt.Println(strings.Contains(sql, `GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "public" TO "app"`))
		return 0, nil
	}
	fmt.Println(aurora.Bootstrap(context.Background(), exec, aurora.EarlyProduction()))
	// Output:
	// true
	// <nil>
}

func ExampleBootstrapSQL() {
	sql, err := aurora.BootstrapSQL(aurora.Spec{
		Database: "orders",
		Users:    []aurora.User{{Name: "report", Access: aurora.ReadOnly}},
	})
	if err != nil {
		panic(err)
	}
	for line := range strings.Lines(sql) {
		if strings.HasPrefix(line, "GRANT") || strings.HasPrefix(line, "ALTER") {
			fmt.Print(line)
		}
	}
	// Output:
	// ALTER ROLE "report" LOGIN INHERIT NOCREATEDB NOCREATEROLE;
	// ALTER ROLE "report" SET statement_timeout = '60000ms';
	// ALTER ROLE "report" SET idle_in_transaction_session_timeout = '60000ms';
	// GRANT CONNECT ON DATABASE "orders" TO "report";
	// ALTER DEFAULT PRIVILEGES IN SCHEMA "public" REVOKE ALL ON TABLES FROM "report";
	// ALTER DEFAULT PRIVILEGES IN SCHEMA "public" REVOKE ALL ON SEQUENCES FROM "report";
	// ALTER DEFAULT PRIVILEGES IN SCHEMA "public" REVOKE ALL ON ROUTINES FROM "report";
	// GRANT USAGE ON SCHEMA "public" TO "report";
	// GRANT SELECT ON ALL TABLES IN SCHEMA "public" TO "report";
	// ALTER DEFAULT PRIVILEGES IN SCHEMA "public" GRANT SELECT ON TABLES TO "report";
	// GRANT SELECT ON ALL SEQUENCES IN SCHEMA "public" TO "report";
	// ALTER DEFAULT PRIVILEGES IN SCHEMA "public" GRANT SELECT ON SEQUENCES TO "report";
}
