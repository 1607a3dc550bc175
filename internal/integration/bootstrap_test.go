package integration

// aurora.Bootstrap on a real PostgreSQL: what its users can do afterwards, found out by trying.

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/aurorapgx/aurorapgx/aurora"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
	"github.com/aurorapgx/aurorapgx/secrets"
)

// ordersSpec has a user of each kind, in two schemas.
func ordersSpec() aurora.Spec {
	return aurora.Spec{
		Name: "orders", Database: ordersDB, Schemas: []string{"sales", "audit"},
		Users: []aurora.User{
			{Name: "app", Schemas: []string{"sales"}, StatementTimeout: 2 * time.Second, IdleInTransactionTimeout: 10 * time.Second},
			{Name: "report", Access: aurora.ReadOnly},
			{Name: "migrate", Access: aurora.Owner},
		},
	}
}

// billingSpec is a neighbour in the same cluster.
func billingSpec() aurora.Spec {
	return aurora.Spec{Name: "billing", Database: billingDB, Users: []aurora.User{{Name: "ledger"}, {Name: "ledger_owner", Access: aurora.Owner}}}
}

// migrations are what the owner runs between the first bootstrap and the second.
const migrations = `
	create table sales.item (id bigserial primary key, name text not null, price int not null default 1);
	insert into sales.item (name) values ('first');
	create view sales.cheap as select * from sales.item where price < 10;
	create function sales.total() returns bigint language sql as 'select sum(price) from sales.item';
	create function sales.wipe() returns void language sql security definer as 'delete from sales.item';
	create table audit.entry (at timestamptz not null default now(), what text);
	insert into audit.entry (what) values ('first')`

// attempts are tried by each user, each in a transaction that is rolled back. What is not under
// "may" for a user has to be refused for want of privileges.
var attempts = []struct {
	sql string
	may string // names of users
}{
	{"select * from sales.item", "app report migrate"},
	{"select * from sales.cheap", "app report migrate"},
	{"select last_value from sales.item_id_seq", "app report migrate"},
	{"insert into sales.item (name) values ('x')", "app migrate"},
	{"update sales.item set price = 2", "app migrate"},
	{"delete from sales.item", "app migrate"},
	{"select name from sales.item for update", "app migrate"},
	{"select nextval('sales.item_id_seq')", "app migrate"},
	{"select sales.total()", "app migrate"},
	{"select sales.wipe()", "app migrate"},
	{"copy sales.item (name) from stdin", "app migrate"},
	{"select * from audit.entry", "report migrate"},
	{"insert into audit.entry (what) values ('x')", "migrate"},

	{"truncate sales.item", "migrate"},
	{"create table sales.x (id int)", "migrate"},
	{"create table audit.x (id int)", "migrate"},
	{"create table sales.x (id bigint references sales.item)", "migrate"},
	{"create function sales.f() returns int language sql as 'select 1'", "migrate"},
	{"alter table sales.item add column extra text", "migrate"},
	{"create index on sales.item (name)", "migrate"},
	{"drop table sales.item cascade", "migrate"},
	{"select setval('sales.item_id_seq', 1)", "migrate"},
	{"create temporary table x (id int)", "migrate"},
	{"drop schema audit cascade", "migrate"},

	{"create table public.x (id int)", ""},
	{"create schema mine", ""},
	{"create role friend", ""},
	{"create database mine", ""},
	{"alter role app superuser", ""},
	{"alter role app createrole", ""},
	{"grant rds_iam to report", ""},
	{"grant migrate to report", ""},
	{"set role dbadmin", ""},
	{"set role rdsproxyadmin", ""},
	{"set session authorization dbadmin", ""},
	{"create extension pg_trgm", ""},
	{"create publication p for all tables", ""},
	{"copy (select 1) to '/tmp/out'", ""},
	{"copy sales.item (name) to program 'true'", ""},
	{"select pg_read_file('/etc/passwd')", ""},
	{"select rolpassword from pg_authid", ""},
	{"alter system set work_mem = '1GB'", ""},
	{"alter database orders set work_mem = '1GB'", ""},
	{"select pg_reload_conf()", ""},
	{"set log_statement = 'none'", ""},
	{"checkpoint", ""},
}

func TestBootstrapUsersCanDoWhatTheSpecSays(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	spec := ordersSpec()
	c.bootstrap(t, spec)
	c.bootstrap(t, billingSpec())
	users := []string{"app", "report", "migrate"}
	c.passwords(t, append(users, "ledger", "ledger_owner")...)

	// What is created after the bootstrap belongs to the users at once.
	if _, err := c.as(t, "migrate", ordersDB).Exec(t.Context(), migrations); err != nil {
		t.Fatal(err)
	}
	t.Run("first run", func(t *testing.T) { c.tryAll(t, users) })

	// The second run changes nothing, and finds the tables there.
	before := c.state(t, ordersDB)
	c.bootstrap(t, spec)
	if after := c.state(t, ordersDB); after != before {
		t.Errorf("the second run changed something:\n%s", diffLines(before, after))
	}
	t.Run("second run", func(t *testing.T) { c.tryAll(t, users) })

	t.Run("other databases", func(t *testing.T) {
		for _, user := range users {
			for database, want := range map[string]string{ordersDB: "ok", billingDB: denied, "postgres": denied} {
				if got := tryDSN(t, c.dsn(user, database)); got != want {
					t.Errorf("%s to database %s: %s, want %s", user, database, got, want)
				}
			}
		}
		if got := tryDSN(t, c.dsn("ledger", ordersDB)); got != denied {
			t.Errorf("ledger to database orders: %s", got)
		}
		c.passwords(t, "rdsproxyadmin")
		if got := tryDSN(t, c.dsn("rdsproxyadmin", "postgres")); got != "ok" {
			t.Errorf("rdsproxyadmin to database postgres: %s", got)
		}
	})
	t.Run("rds_iam", func(t *testing.T) {
		if got := c.members(t, "rds_iam"); got != "app ledger ledger_owner migrate report" {
			t.Errorf("members of rds_iam: %s", got)
		}
		for _, user := range []string{"app", "report", "migrate", "ledger_owner"} {
			if got := c.members(t, user); got != "" {
				t.Errorf("%s is a member of %s", got, user)
			}
		}
	})
	t.Run("timeouts", func(t *testing.T) {
		for user, want := range map[string]string{"app": "2s 10s", "report": "1min 1min", "migrate": "0 1min"} {
			var got string
			err := c.as(t, user, ordersDB).QueryRow(t.Context(),
				"select current_setting('statement_timeout') || ' ' || current_setting('idle_in_transaction_session_timeout')").Scan(&got)
			if err != nil || got != want {
				t.Errorf("%s: %q, %v; want %q", user, got, err, want)
			}
		}
	})
}

// tryAll makes every attempt as every user.
func (c cluster) tryAll(t *testing.T, users []string) {
	t.Helper()
	for _, user := range users {
		conn := c.as(t, user, ordersDB)
		for _, a := range attempts {
			err := attempt(t.Context(), conn, a.sql)
			switch may := slices.Contains(strings.Fields(a.may), user); {
			case may && err != nil:
				t.Errorf("%s cannot: %s: %v", user, a.sql, err)
			case !may && err == nil:
				t.Errorf("%s can: %s", user, a.sql)
			case !may && code(err) != denied:
				t.Errorf("%s: %s: refused for another reason: %v", user, a.sql, err)
			}
		}
	}
}

// attempt runs a statement in a transaction that is rolled back, or alone if it must be alone.
func attempt(ctx context.Context, conn *pgx.Conn, sql string) error {
	if slices.Contains([]string{"create database mine", "alter system set work_mem = '1GB'"}, sql) {
		_, err := conn.Exec(ctx, sql)
		return err
	}
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	if strings.HasSuffix(sql, "from stdin") {
		_, err = tx.Conn().PgConn().CopyFrom(ctx, strings.NewReader("a\nb\n"), sql)
	} else {
		_, err = tx.Exec(ctx, sql)
	}
	return errors.Join(err, tx.Rollback(ctx))
}

// members are the direct and indirect members of a role, superusers aside.
func (c cluster) members(t *testing.T, role string) string {
	t.Helper()
	conn := c.superConn(t, "postgres")
	defer conn.Close(t.Context())
	rows, _ := conn.Query(t.Context(), `select rolname::text from pg_roles
		where pg_has_role(rolname, $1, 'MEMBER') and not rolsuper and rolname <> $1 order by 1`, role)
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

// Our pool, through an RDS Proxy, as each user. The emulated proxy does not do end-to-end IAM: it
// logs in with a password where the real one sends a token of its own.
func TestBootstrapThenPoolThroughProxy(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	spec := ordersSpec()
	c.bootstrap(t, spec)
	c.bootstrap(t, spec)
	users := []string{"app", "report", "migrate"}
	c.passwords(t, users...)
	if _, err := c.as(t, "migrate", ordersDB).Exec(t.Context(), migrations); err != nil {
		t.Fatal(err)
	}
	px := proxytest.NewProxy(t, c.dsn("app", ordersDB), proxytest.WithIAMUser(users...), proxytest.WithInitQuery(initQuery(t, spec)))
	for _, tt := range []struct {
		user, can, cannot, timeout string
	}{
		{"app", "insert into sales.item (name) values ('second')", "select * from audit.entry", "2s 10s"},
		{"report", "select * from audit.entry", "insert into sales.item (name) values ('third')", "1min 1min"},
		{"migrate", "alter table sales.item add column note text", "create role friend", "0 1min"},
	} {
		pool, err := proxy.NewPool(t.Context(), px.URL(tt.user, ordersDB), proxy.WithAWSConfig(aws.Config{
			Credentials: credentials.StaticCredentialsProvider{Value: px.Credentials()},
		}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		if _, err := pool.Exec(t.Context(), tt.can); err != nil {
			t.Errorf("%s cannot: %s: %v", tt.user, tt.can, err)
		}
		if _, err := pool.Exec(t.Context(), tt.cannot); code(err) != denied {
			t.Errorf("%s: %s: got %v", tt.user, tt.cannot, err)
		}
		var user, timeout string
		if err := pool.QueryRow(t.Context(), "select current_user::text, current_setting('statement_timeout') || ' ' || current_setting('idle_in_transaction_session_timeout')").Scan(&user, &timeout); err != nil {
			t.Fatal(err)
		}
		if user != tt.user || timeout != tt.timeout {
			t.Errorf("user %q with statement_timeout %s, want %q with %s", user, timeout, tt.user, tt.timeout)
		}
	}
	if pins := px.Pins(); len(pins) != 0 {
		t.Errorf("pinned: %v", pins)
	}
}

// Passwords out of secrets: rds_iam goes, logins with the password come.
func TestBootstrapWithSecrets(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	spec := ordersSpec()
	c.bootstrap(t, spec) // as it was before somebody changed their mind
	spec.Auth = aurora.Secrets
	words := map[string]string{"app": `a'b\c"d$do$ e`, "report": "report-Passw0rd", "migrate": "migrate-Passw0rd"}
	c.bootstrap(t, spec, aurora.WithPasswords(words))
	c.bootstrap(t, spec) // and without them, which leaves them alone
	if got := c.members(t, "rds_iam"); got != "" {
		t.Errorf("members of rds_iam: %s", got)
	}
	px := proxytest.NewProxy(t, c.dsn("app", ordersDB),
		proxytest.WithUser("app", words["app"]), proxytest.WithUser("report", words["report"]), proxytest.WithUser("migrate", words["migrate"]),
		proxytest.WithIAMUser("report")) // standard IAM: the client brings a token, the proxy the secret
	for user, opts := range map[string][]proxy.Option{
		"app":     {proxy.WithCredentials(secrets.Static("app", words["app"]))},
		"migrate": {proxy.WithCredentials(secrets.Static("migrate", words["migrate"]))},
		"report": {proxy.WithAWSConfig(aws.Config{
			Credentials: credentials.StaticCredentialsProvider{Value: px.Credentials()},
		})},
	} {
		pool, err := proxy.NewPool(t.Context(), px.URL(user, ordersDB), opts...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		var got string
		if err := pool.QueryRow(t.Context(), "select current_user::text").Scan(&got); err != nil || got != user {
			t.Errorf("as %s: %q, %v", user, got, err)
		}
	}

	// And back: the password stays with the role, but Aurora asks for a token again.
	c.bootstrap(t, ordersSpec())
	if got := c.members(t, "rds_iam"); got != "app migrate report" {
		t.Errorf("members of rds_iam: %s", got)
	}
}

// A spec that changed is followed, downwards too.
func TestBootstrapFollowsTheSpec(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.bootstrap(t, ordersSpec())
	c.passwords(t, "app", "report", "migrate")
	if _, err := c.as(t, "migrate", ordersDB).Exec(t.Context(), migrations); err != nil {
		t.Fatal(err)
	}
	spec := ordersSpec()
	spec.Users[0].Access = aurora.ReadOnly
	spec.Users[0].StatementTimeout = -1
	spec.Users[1].Schemas = []string{"audit"}
	c.bootstrap(t, spec)
	if _, err := c.as(t, "migrate", ordersDB).Exec(t.Context(), "create table sales.later (id int)"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ user, sql, want string }{
		{"app", "select * from sales.item", ""},
		{"app", "select * from sales.later", ""},
		{"app", "insert into sales.item (name) values ('x')", denied},
		{"app", "insert into sales.later values (1)", denied},
		{"app", "select sales.total()", denied},
		{"report", "select * from audit.entry", ""},
		{"report", "select * from sales.item", denied},
		{"report", "select * from sales.later", denied},
	} {
		if got := code(attempt(t.Context(), c.as(t, tt.user, ordersDB), tt.sql)); got != tt.want {
			t.Errorf("%s: %s: %q, want %q", tt.user, tt.sql, got, tt.want)
		}
	}
	var timeout string
	if err := c.as(t, "app", ordersDB).QueryRow(t.Context(), "show statement_timeout").Scan(&timeout); err != nil || timeout != "0" {
		t.Errorf("statement_timeout %q, %v", timeout, err)
	}
}

// A proxy can be added to any cluster, and its own user must then get into database postgres, also
// where a bootstrap had closed it.
func TestBootstrapLeavesTheDoorOpenForAProxy(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	spec := ordersSpec()
	c.asSuper(t, "postgres", "drop role rdsproxyadmin")
	for _, step := range []struct {
		name, sql string
		off       bool
		app       string // what becomes of a user's attempt to connect to database postgres
	}{
		{"without a proxy", "", true, "ok"},
		{"before the proxy", "", false, "ok"},
		{"closed without a proxy", "revoke all on database postgres from public", true, "ok"},
		{"closed before the proxy", "revoke all on database postgres from public", false, "ok"},
		{"closed by somebody, and not by a bootstrap", "grant temporary on database postgres to public; revoke connect on database postgres from public", true, denied},
		{"with a proxy", "create role rdsproxyadmin login", false, denied},
		{"with a proxy of somebody else's", "grant all on database postgres to public", true, denied},
	} {
		if step.sql != "" {
			c.asSuper(t, "postgres", step.sql)
		}
		spec.Proxy.Off = step.off
		c.bootstrap(t, spec)
		before := c.state(t, ordersDB)
		c.bootstrap(t, spec)
		if after := c.state(t, ordersDB); after != before {
			t.Errorf("%s: the second run changed something:\n%s", step.name, diffLines(before, after))
		}
		c.passwords(t, "app")
		if got := tryDSN(t, c.dsn("app", "postgres")); got != step.app {
			t.Errorf("%s: app to database postgres: %s, want %s", step.name, got, step.app)
		}
	}
	c.passwords(t, "rdsproxyadmin")
	if got := tryDSN(t, c.dsn("rdsproxyadmin", "postgres")); got != "ok" {
		t.Errorf("rdsproxyadmin to database postgres: %s", got)
	}
}

// Everything or nothing: each refusal leaves the cluster as it was.
func TestBootstrapRefusals(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.asSuper(t, "postgres", "create role boss superuser", "create role alien login createdb", "grant pg_read_all_data to alien")
	for _, tt := range []struct {
		name   string
		change func(*aurora.Spec)
		want   string
	}{
		{"a superuser's name", func(s *aurora.Spec) { s.Users = append(s.Users, aurora.User{Name: "boss"}) }, `role "boss" exists and is a superuser`},
		{"the administrator's name", func(s *aurora.Spec) {
			s.MasterUser = "somebody"
			s.Users = append(s.Users, aurora.User{Name: dbadmin})
		}, "is the administrator this runs as"},
		{"another database", func(s *aurora.Spec) { s.Database = billingDB }, `this is database "orders", the spec is about another: connect to billing`},
	} {
		spec := ordersSpec()
		tt.change(&spec)
		before := c.state(t, ordersDB)
		conn := c.as(t, dbadmin, ordersDB)
		err := aurora.Bootstrap(t.Context(), conn.Exec, spec)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if after := c.state(t, ordersDB); after != before {
			t.Errorf("%s: left something behind:\n%s", tt.name, diffLines(before, after))
		}
		if _, err := conn.Exec(t.Context(), "select 1"); err != nil {
			t.Errorf("%s: the connection is not usable afterwards: %v", tt.name, err)
		}
	}

	// A role that was there is taken over, and its surplus is taken away or warned of.
	var notices []string
	cfg, err := pgx.ParseConfig(c.dsn(dbadmin, ordersDB))
	if err != nil {
		t.Fatal(err)
	}
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { notices = append(notices, n.Message) }
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	spec := ordersSpec()
	spec.Users = append(spec.Users, aurora.User{Name: "alien"})
	if err := aurora.Bootstrap(t.Context(), conn.Exec, spec); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(notices, func(n string) bool { return strings.Contains(n, `role "alien" is a member of roles`) }) {
		t.Errorf("no warning of alien's membership in %q", notices)
	}
	c.passwords(t, "alien")
	if err := attempt(t.Context(), c.as(t, "alien", ordersDB), "create database mine"); code(err) != denied {
		t.Errorf("alien may still create databases: %v", err)
	}
}

// Whatever runs the SQL, and any number at a time.
func TestBootstrapByAnyExec(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.asSuper(t, "postgres", "drop role rds_iam")
	pool, err := pgxpool.New(t.Context(), c.dsn(dbadmin, ordersDB))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := aurora.Bootstrap(t.Context(), pool.Exec, ordersSpec()); err == nil || !strings.Contains(err.Error(), "CREATE ROLE rds_iam stands in for it") {
		t.Errorf("without rds_iam: %v", err)
	}
	c.asSuper(t, "postgres", "create role rds_iam")

	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := aurora.Bootstrap(t.Context(), pool.Exec, ordersSpec()); err != nil {
				t.Error("pool: ", err)
			}
		})
	}
	wg.Wait()
	state := c.state(t, ordersDB)

	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	err = pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error { return aurora.Bootstrap(t.Context(), tx.Exec, ordersSpec()) })
	if err != nil {
		t.Error("transaction: ", err)
	}
	if err := aurora.Bootstrap(t.Context(), db.ExecContext, ordersSpec()); err != nil {
		t.Error("database/sql: ", err)
	}
	tx, err := db.BeginTx(t.Context(), &sql.TxOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(aurora.Bootstrap(t.Context(), tx.ExecContext, ordersSpec()), tx.Commit()); err != nil {
		t.Error("database/sql transaction: ", err)
	}
	super := c.superConn(t, ordersDB)
	if err := aurora.Bootstrap(t.Context(), super.Exec, ordersSpec()); err != nil {
		t.Error("superuser: ", err)
	}
	// What is printed is what is run.
	script, err := aurora.BootstrapSQL(ordersSpec())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), script); err != nil {
		t.Error("script: ", err)
	}
	if got := c.state(t, ordersDB); got != state {
		t.Errorf("changed by somebody:\n%s", diffLines(state, got))
	}
}

// diffLines shows the lines that only one of two texts has.
func diffLines(before, after string) string {
	var b strings.Builder
	old, now := strings.Split(before, "\n"), strings.Split(after, "\n")
	for _, line := range old {
		if !slices.Contains(now, line) {
			fmt.Fprintln(&b, "-", line)
		}
	}
	for _, line := range now {
		if !slices.Contains(old, line) {
			fmt.Fprintln(&b, "+", line)
		}
	}
	return b.String()
}

// What a template has a proxy run on each of its database connections, run on one.
func TestSessionOfATemplate(t *testing.T) {
	t.Parallel()
	for list, want := range map[string]string{
		"sales, public":                "sales, public",
		"sales":                        "sales",
		"Sales,audit":                  "sales, audit",
		`"My ""own"", schema" , audit`: `"My ""own"", schema", audit`,
		"o'clock, public":              `"o'clock", public`,
		"":                             `""`,
	} {
		spec := aurora.Spec{Proxy: aurora.Proxy{Session: map[string]string{
			"search_path": list, "temp_tablespaces": "pg_default, PG_DEFAULT", "datestyle": "SQL, DMY", "statement_timeout": "7s",
		}}}
		conn, err := pgx.Connect(t.Context(), backend(t))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		if _, err := conn.Exec(t.Context(), initQuery(t, spec)); err != nil {
			t.Fatalf("%s: %v", initQuery(t, spec), err)
		}
		var got, rest string
		err = conn.QueryRow(t.Context(), `select current_setting('search_path'),
			concat_ws(' / ', current_setting('temp_tablespaces'), current_setting('datestyle'), current_setting('statement_timeout'))`).Scan(&got, &rest)
		if err != nil || got != want || rest != "pg_default, pg_default / SQL, DMY / 7s" {
			t.Errorf("%q: search_path is %s, and the rest %s, %v; want %s", list, got, rest, err, want)
		}
	}
}

// initQuery is the initialization query in a spec's template.
func initQuery(t *testing.T, spec aurora.Spec) string {
	t.Helper()
	text, err := spec.Template()
	if err != nil {
		t.Fatal(err)
	}
	var template struct {
		Resources struct {
			ProxyTargets struct {
				Properties struct {
					ConnectionPoolConfigurationInfo struct{ InitQuery string }
				}
			}
		}
	}
	if err := json.Unmarshal(text, &template); err != nil {
		t.Fatal(err)
	}
	return template.Resources.ProxyTargets.Properties.ConnectionPoolConfigurationInfo.InitQuery
}
