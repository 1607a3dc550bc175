// Package integration holds the tests and benchmarks that need a real PostgreSQL. It
// is a module of its own, so that what they need stays out of the library's go.mod.
package integration

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aurorapgx/aurorapgx/internal/pgtest"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

// The application's role on the shared server.
const (
	appUser     = "app"
	appPassword = "app-Passw0rd"
)

// shared is the one PostgreSQL that all tests use which do not break theirs. Each test
// gets a database of its own from it.
var shared *pgtest.Server

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var err error
	if shared, err = pgtest.Start(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Fprintln(os.Stderr, "PostgreSQL for these tests:", shared.Source())
	code := 1
	if err := createRole(ctx, shared); err == nil {
		code = m.Run()
	} else {
		fmt.Fprintln(os.Stderr, err)
	}
	if err := shared.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// createRole creates the application's role, once per server.
func createRole(ctx context.Context, s *pgtest.Server) error {
	conn, err := pgx.Connect(ctx, s.DSN())
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, fmt.Sprintf(`do $$ begin
		if not exists (select from pg_roles where rolname = '%[1]s') then create role %[1]s login; end if;
		alter role %[1]s password '%[2]s';
	end $$`, appUser, appPassword))
	return err
}

// database returns the DSN of a new database on s that belongs to the application's
// role, for that role.
func database(tb testing.TB, s *pgtest.Server) string {
	tb.Helper()
	dsn, err := s.NewDatabase(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	u, err := url.Parse(dsn)
	if err != nil {
		tb.Fatal(err)
	}
	admin(tb, s, "alter database "+pgx.Identifier{u.Path[1:]}.Sanitize()+" owner to "+appUser)
	u.User = url.UserPassword(appUser, appPassword)
	return u.String()
}

// admin runs a statement as the superuser.
func admin(tb testing.TB, s *pgtest.Server, sql string, args ...any) {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), s.DSN())
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close(tb.Context())
	if _, err := conn.Exec(tb.Context(), sql, args...); err != nil {
		tb.Fatal(err)
	}
}

// name is the database's name in a DSN.
func name(tb testing.TB, dsn string) string {
	tb.Helper()
	u, err := url.Parse(dsn)
	if err != nil {
		tb.Fatal(err)
	}
	return u.Path[1:]
}

// startProxy puts an RDS Proxy in front of a new database of the shared server.
func startProxy(tb testing.TB, opts ...proxytest.Option) (px *proxytest.Proxy, url, dsn string) {
	tb.Helper()
	dsn = database(tb, shared)
	px = proxytest.NewProxy(tb, dsn, opts...)
	return px, px.URL(appUser, name(tb, dsn)), dsn
}
