package integration

// A cluster as RDS leaves it to its administrator, for the bootstrap tests.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aurorapgx/aurorapgx/aurora"
	"github.com/aurorapgx/aurorapgx/internal/pgtest"
)

// cluster is a PostgreSQL with what RDS adds: the roles rds_iam and rdsproxyadmin, and an
// administrator who may create roles and databases but is no superuser.
type cluster struct {
	*pgtest.Server
}

const (
	dbadmin   = "dbadmin"
	anyone    = "s3cret" // the password of whoever needs one
	ordersDB  = "orders"
	billingDB = "billing"
	denied    = "42501" // insufficient_privilege
)

func newCluster(t *testing.T) cluster {
	t.Helper()
	// The setting makes it a server of its own: roles belong to a server, not to a database.
	c := cluster{pgtest.Run(t, pgtest.WithSetting("max_connections", "60"))}
	c.asSuper(t, "postgres",
		"create role rds_iam", "create role rdsproxyadmin login",
		"create role "+dbadmin+" login createrole createdb password '"+anyone+"'",
		"alter database postgres owner to "+dbadmin,
		"create database "+ordersDB+" owner "+dbadmin,
		"create database "+billingDB+" owner "+dbadmin,
		// A cluster that was upgraded from PostgreSQL 14 still has this in every database.
		"grant create on schema public to public")
	c.asSuper(t, ordersDB, "grant create on schema public to public")
	return c
}

// dsn is how a role gets to a database past any proxy.
func (c cluster) dsn(user, database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(user, anyone), Path: "/" + database, RawQuery: "sslmode=disable",
		Host: net.JoinHostPort(c.Host(), strconv.Itoa(int(c.Port()))),
	}
	return u.String()
}

func (c cluster) as(t *testing.T, user, database string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.dsn(user, database))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (c cluster) superConn(t *testing.T, database string) *pgx.Conn {
	t.Helper()
	cfg, err := pgx.ParseConfig(c.DSN())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Database = database
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (c cluster) asSuper(t *testing.T, database string, statements ...string) {
	t.Helper()
	conn := c.superConn(t, database)
	for _, sql := range statements {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	_ = conn.Close(t.Context())
}

// bootstrap runs a spec's bootstrap as the administrator.
func (c cluster) bootstrap(t *testing.T, spec aurora.Spec, opts ...aurora.BootstrapOption) {
	t.Helper()
	conn := c.as(t, dbadmin, spec.WithDefaults().Database)
	if err := aurora.Bootstrap(t.Context(), conn.Exec, spec, opts...); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(t.Context())
}

// passwords stands in for what Aurora makes of rds_iam, which is to ask AWS: it gives the users a
// password to log in with.
func (c cluster) passwords(t *testing.T, users ...string) {
	t.Helper()
	for _, u := range users {
		c.asSuper(t, "postgres", "alter role "+pgx.Identifier{u}.Sanitize()+" password '"+anyone+"'")
	}
}

// state is everything a bootstrap could change: roles and their settings, memberships, owners and
// privileges, these sorted. Passwords are left out.
func (c cluster) state(t *testing.T, database string) string {
	t.Helper()
	conn := c.superConn(t, database)
	defer conn.Close(t.Context())
	var b strings.Builder
	for _, query := range []string{
		"select rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls from pg_roles where rolname !~ '^pg_' order by 1",
		"select pg_get_userbyid(roleid), pg_get_userbyid(member), admin_option from pg_auth_members where pg_get_userbyid(member) !~ '^pg_' order by 1, 2",
		"select setdatabase, pg_get_userbyid(setrole), setconfig from pg_db_role_setting order by 1, 2",
		"select datname, pg_get_userbyid(datdba), array(select unnest(datacl)::text order by 1) from pg_database order by 1",
		"select nspname, pg_get_userbyid(nspowner), array(select unnest(nspacl)::text order by 1) from pg_namespace where nspname !~ '^pg_' order by 1",
		"select relname, pg_get_userbyid(relowner), array(select unnest(relacl)::text order by 1) from pg_class where relnamespace::regnamespace::text !~ '^(pg_|information)' order by 1",
		"select proname, pg_get_userbyid(proowner), array(select unnest(proacl)::text order by 1) from pg_proc where pronamespace::regnamespace::text !~ '^(pg_|information)' order by 1",
		"select pg_get_userbyid(defaclrole), defaclnamespace::regnamespace::text, defaclobjtype, array(select unnest(defaclacl)::text order by 1) from pg_default_acl order by 1, 2, 3",
	} {
		rows, err := conn.Query(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			values, err := rows.Values()
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(&b, values...)
		}
		if rows.Err() != nil {
			t.Fatal(rows.Err())
		}
	}
	return b.String()
}

// code is the SQLSTATE of an error.
func code(err error) string {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pgErr.Code
	}
	return ""
}

// tryDSN connects and says "ok", or the SQLSTATE of the refusal.
func tryDSN(t *testing.T, dsn string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		if code(err) == "" {
			t.Fatal(err)
		}
		return code(err)
	}
	_ = conn.Close(ctx)
	return "ok"
}
