// Multi-tenant gives each tenant a role of its own, through RDS Proxy, and shows which
// ways to do that pin the session:
//
//	go run ./multi-tenant
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/examples/internal/lab"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
	"github.com/aurorapgx/aurorapgx/retry"
)

var tenants = []string{"blue", "green"}

// schema has row-level security: a role sees the notes of the tenant it is named after.
// It is forced, because app owns the table, and an owner sees every row otherwise.
const schema = `
	create table notes (tenant text not null, body text not null);
	insert into notes values ('blue', 'first of blue'), ('blue', 'second of blue'), ('green', 'only of green');
	alter table notes enable row level security, force row level security;
	create policy tenant on notes using (tenant = current_user);
	grant select, insert on notes to blue, green;

	-- The setting ends with the transaction, and its text is not in the client's statement.
	create function become(tenant text) returns void language sql as $$ select set_config('role', tenant, true) $$`

func main() { lab.Main("multi-tenant", run) }

func run(ctx context.Context, out io.Writer) (err error) {
	secret := rand.Text()
	var admin strings.Builder
	var users []proxytest.Option
	for _, tenant := range tenants { // app may become any of them, and each may log in
		fmt.Fprintf(&admin, "create role %s login password '%s'; grant %[1]s to %[3]s;", tenant, secret, lab.User)
		users = append(users, proxytest.WithUser(tenant, secret))
	}
	users = append(users, proxytest.WithIAMUser(append(tenants, lab.User)...))
	l, err := lab.Start(ctx, lab.Setup{Admin: admin.String(), Schema: schema, Proxy: users})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	restore, err := l.SetEnvironment()
	if err != nil {
		return err
	}
	defer restore()

	// AWS says that SET pins, and does not say whether SET LOCAL is meant: a proxy for
	// each reading.
	strict, err := proxytest.Start(ctx, l.DirectURL(l.Primary), append(users, proxytest.WithAccessKey(l.Proxy.Credentials()),
		proxytest.WithHost("strict.proxy-0123456789ab.eu-west-1.rds.amazonaws.com"), proxytest.WithSetLocalPins())...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, strict.Close()) }()
	if err := table(ctx, l.Proxy, strict, out); err != nil {
		return err
	}
	return withoutTenant(ctx, l.Proxy, out)
}

// way is one way to read as a tenant.
type way struct {
	name string
	read func(ctx context.Context, pools *pools, tenant string) ([]string, error)
}

var ways = []way{
	{"a pool for each tenant, logged in as it", func(ctx context.Context, p *pools, tenant string) ([]string, error) {
		return notes(ctx, p.tenants[tenant])
	}},
	{"select become($1) in the transaction", inTransaction("select become($1)", true)},
	{"SET LOCAL ROLE in the transaction", inTransaction("set local role %s", false)},
	{"set_config('role', $1, true) there", inTransaction("select set_config('role', $1, true)", true)},
	{"SET ROLE on a connection", func(ctx context.Context, p *pools, tenant string) (bodies []string, err error) {
		err = p.app.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
			if _, err := conn.Exec(ctx, "set role "+pgx.Identifier{tenant}.Sanitize()); err != nil {
				return err
			}
			if bodies, err = notes(ctx, conn); err != nil {
				return err
			}
			_, err = conn.Exec(ctx, "reset role")
			return err
		})
		return bodies, err
	}},
}

// inTransaction runs a statement that changes the role until the end of the transaction.
func inTransaction(statement string, parameter bool) func(context.Context, *pools, string) ([]string, error) {
	return func(ctx context.Context, p *pools, tenant string) ([]string, error) {
		return retry.TxValue(ctx, p.app, func(tx pgx.Tx) ([]string, error) {
			var err error
			if parameter {
				_, err = tx.Exec(ctx, statement, tenant)
			} else { // SET takes no parameters
				_, err = tx.Exec(ctx, fmt.Sprintf(statement, pgx.Identifier{tenant}.Sanitize()))
			}
			if err != nil {
				return nil, err
			}
			return notes(ctx, tx)
		})
	}
}

// withoutTenant reads as nobody's tenant, as a mistake would: without changing the role,
// and with a name that is no tenant's. The application's own name and none are roles that
// it may always take.
func withoutTenant(ctx context.Context, px *proxytest.Proxy, out io.Writer) error {
	p, err := open(ctx, px)
	if err != nil {
		return err
	}
	defer p.close()
	bodies, err := notes(ctx, p.app)
	if err != nil {
		return err
	}
	counts := []int{len(bodies)}
	become := inTransaction("select become($1)", true)
	for _, name := range []string{"none", lab.User} {
		more, err := become(ctx, p, name)
		if err != nil {
			return err
		}
		counts, bodies = append(counts, len(more)), append(bodies, more...)
	}
	_, _ = fmt.Fprintf(out, "\nwithout a tenant's role; become('none'); become('%s'): %s notes\n", lab.User, strings.Trim(fmt.Sprint(counts), "[]"))
	if len(bodies) > 0 {
		return fmt.Errorf("without a tenant's role the application sees %q", bodies)
	}
	return nil
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// notes are those that the role may see.
func notes(ctx context.Context, db querier) ([]string, error) {
	rows, err := db.Query(ctx, "select body from notes order by body")
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// pools are one for the application, and one for each tenant.
type pools struct {
	app     *pgxpool.Pool
	tenants map[string]*pgxpool.Pool
}

func open(ctx context.Context, px *proxytest.Proxy) (_ *pools, err error) {
	p := &pools{tenants: map[string]*pgxpool.Pool{}}
	if p.app, err = proxy.NewPool(ctx, px.URL(lab.User, lab.Database)); err != nil {
		return nil, err
	}
	for _, tenant := range tenants {
		if p.tenants[tenant], err = proxy.NewPool(ctx, px.URL(tenant, lab.Database), proxy.WithMaxConns(2)); err != nil {
			p.close()
			return nil, err
		}
	}
	return p, nil
}

func (p *pools) close() {
	p.app.Close()
	for _, pool := range p.tenants {
		pool.Close()
	}
}

// table tries every way at both proxies, each with new pools.
func table(ctx context.Context, lenient, strict *proxytest.Proxy, out io.Writer) error {
	_, _ = fmt.Fprintf(out, "%-41s  notes of %-15s  pinned sessions\n", "", strings.Join(tenants, ", "))
	for _, way := range ways {
		var counts [2][]int
		var pins [2]int64
		for i, px := range []*proxytest.Proxy{lenient, strict} {
			var err error
			if counts[i], pins[i], err = try(ctx, px, way); err != nil {
				return fmt.Errorf("%s: %w", way.name, err)
			}
		}
		pinned := strconv.FormatInt(pins[0], 10)
		if pins[0] != pins[1] {
			pinned = fmt.Sprintf("%d, or %d if SET LOCAL counts as SET", pins[0], pins[1])
		}
		_, _ = fmt.Fprintf(out, "%-41s  %-24s  %s\n", way.name, strings.Trim(fmt.Sprint(counts[0]), "[]"), pinned)
	}
	return nil
}

// try reads as each tenant, and makes sure that none sees another's notes, and that
// nothing of it is left for who comes next.
func try(ctx context.Context, px *proxytest.Proxy, w way) (counts []int, pins int64, err error) {
	before := px.Stats().PinnedSessions
	p, err := open(ctx, px)
	if err != nil {
		return nil, 0, err
	}
	defer p.close()
	for _, tenant := range tenants {
		bodies, err := w.read(ctx, p, tenant)
		if err != nil {
			return nil, 0, err
		}
		for _, body := range bodies {
			if !strings.HasSuffix(body, " of "+tenant) {
				return nil, 0, fmt.Errorf("%s sees %q", tenant, body)
			}
		}
		counts = append(counts, len(bodies))
		var user string
		if err := p.app.QueryRow(ctx, "select current_user").Scan(&user); err != nil {
			return nil, 0, err
		}
		if user != lab.User {
			return nil, 0, fmt.Errorf("after it the application is %s", user)
		}
	}
	return counts, px.Stats().PinnedSessions - before, nil
}
