// Listen waits for notifications on a direct endpoint, while those who send them go
// through the proxy:
//
//	go run ./listen
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgxlisten"

	"github.com/aurorapgx/aurorapgx/examples/internal/lab"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

const schema = `create table orders (id int primary key, item text not null, packed boolean not null default false)`

func main() { lab.Main("listen", run) }

func run(ctx context.Context, out io.Writer) (err error) {
	l, err := lab.Start(ctx, lab.Setup{Schema: schema})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	restore, err := l.SetEnvironment()
	if err != nil {
		return err
	}
	defer restore()
	pool, err := proxy.NewPool(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()

	packer := &packer{listening: make(chan struct{}, 10), packed: make(chan int, 100)}
	stop := packer.start(ctx, os.Getenv("DIRECT_URL"))
	err = errors.Join(scene(ctx, l, pool, packer, out), stop())
	if err != nil {
		return err
	}
	if err := l.Report(out); err != nil {
		return err
	}
	return throughTheProxy(ctx, l, out)
}

// scene places orders before and after the listener loses its connection, and some
// while it has none.
func scene(ctx context.Context, l *lab.Lab, pool *pgxpool.Pool, p *packer, out io.Writer) error {
	if err := p.await(ctx, p.listening); err != nil {
		return err
	}
	if err := place(ctx, pool, 1, 2, 3); err != nil {
		return err
	}
	ids, err := p.wait(ctx, 3)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "placed through the proxy, packed by the listener: %v\n", ids)

	// The listener's session ends and is not let in again for a while, as in a failover.
	err = lab.Exec(ctx, l.AdminURL(l.Primary), "alter role "+lab.User+" connection limit 0",
		"select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'direct'")
	if err != nil {
		return err
	}
	if err := lab.Exec(ctx, l.AdminURL(l.Primary), "insert into orders values (4, 'tea'), (5, 'tea')", "notify orders",
		"alter role "+lab.User+" connection limit -1"); err != nil {
		return err
	}
	if err := p.await(ctx, p.listening); err != nil { // again
		return err
	}
	if ids, err = p.wait(ctx, 2); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "placed while the listener had no connection, packed when it was back: %v\n", ids)
	if err := place(ctx, pool, 6); err != nil {
		return err
	}
	if ids, err = p.wait(ctx, 1); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "placed after that: %v\n", ids)
	return nil
}

// place takes orders. NOTIFY is sent with COMMIT, and not if the transaction is undone.
// It does not pin.
func place(ctx context.Context, pool *pgxpool.Pool, ids ...int) error {
	return retry.Tx(ctx, pool, func(tx pgx.Tx) error {
		for _, id := range ids {
			if _, err := tx.Exec(ctx, "insert into orders (id, item) values ($1, 'tea')", id); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, "notify orders")
		return err
	})
}

// packer packs orders when it is told that there are some.
type packer struct {
	listening chan struct{}
	packed    chan int
}

// start listens until stop is called. Listener connects again whenever it has to, and
// proxy.Connect waits for a database that is not there.
func (p *packer) start(ctx context.Context, connString string) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	listener := &pgxlisten.Listener{
		Connect:        func(ctx context.Context) (*pgx.Conn, error) { return proxy.Connect(ctx, connString) },
		ReconnectDelay: 100 * time.Millisecond, // its default is a minute
	}
	listener.Handle("orders", p)
	done := make(chan error, 1)
	go func() { done <- listener.Listen(ctx) }()
	return func() error {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	}
}

// HandleNotification is called for each notification. What it says is only that there
// is something to do: the table says what.
func (p *packer) HandleNotification(ctx context.Context, _ *pgconn.Notification, conn *pgx.Conn) error {
	return p.pack(ctx, conn)
}

// HandleBacklog is called after each LISTEN, for what was missed while nobody listened.
func (p *packer) HandleBacklog(ctx context.Context, _ string, conn *pgx.Conn) error {
	p.listening <- struct{}{}
	return p.pack(ctx, conn)
}

func (p *packer) pack(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `with todo as (select id from orders where not packed order by id for update skip locked)
		update orders set packed = true from todo where orders.id = todo.id returning orders.id`)
	if err != nil {
		return err
	}
	var id int
	_, err = pgx.ForEachRow(rows, []any{&id}, func() error {
		p.packed <- id
		return nil
	})
	return err
}

func (p *packer) await(ctx context.Context, c <-chan struct{}) error {
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// wait returns the next n orders that were packed.
func (p *packer) wait(ctx context.Context, n int) (ids []int, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, fmt.Errorf("orders were not packed, only %v were", ids))
	defer cancel()
	for len(ids) < n {
		select {
		case id := <-p.packed:
			ids = append(ids, id)
		case <-ctx.Done():
			return ids, context.Cause(ctx)
		}
	}
	return ids, nil
}

// throughTheProxy shows what LISTEN does there.
func throughTheProxy(ctx context.Context, l *lab.Lab, out io.Writer) (err error) {
	conn, err := proxy.Connect(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	if _, err := conn.Exec(ctx, "listen orders"); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(out, "\nLISTEN through the proxy, as it should not be")
	return l.Report(out)
}
