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
	"log/slog"
	"os"
	"sync"
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

	packer := newPacker(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	ticks := make(chan time.Time) // in a service time.Tick(time.Minute); here the scene says when a minute is over
	stop := packer.start(ctx, os.Getenv("DIRECT_URL"), pool, ticks)
	err = scene(ctx, l, pool, packer, out)
	if err == nil {
		err = locked(ctx, l, pool, packer, ticks, out)
	}
	if err = errors.Join(err, stop()); err != nil {
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

// locked places an order that somebody else has locked when the listener comes for it, and
// does not pack in the end. No notification tells of that.
func locked(ctx context.Context, l *lab.Lab, pool *pgxpool.Pool, p *packer, ticks chan<- time.Time, out io.Writer) (err error) {
	other, err := pgx.Connect(ctx, l.AdminURL(l.Primary))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, other.Close(ctx)) }()
	if _, err := other.Exec(ctx, "insert into orders values (7, 'tea')"); err != nil {
		return err
	}
	tx, err := other.Begin(ctx)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, "update orders set packed = true where id = 7"); err != nil {
		return err
	}
	if err := place(ctx, pool, 8); err != nil {
		return err
	}
	ids, err := p.wait(ctx, 1)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "placed while another packs 7: %v\n", ids)
	if err := tx.Rollback(ctx); err != nil {
		return err
	}
	select {
	case ticks <- time.Now():
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if ids, err = p.wait(ctx, 1); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "the other has rolled back; packed at the next look: %v\n", ids)
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

// packer packs orders when it is told that there are some, and looks now and then whether
// it was not told.
type packer struct {
	log       *slog.Logger
	listening chan struct{} // a signal after each LISTEN
	packed    chan int
}

func newPacker(log *slog.Logger) *packer {
	return &packer{log: log, listening: make(chan struct{}, 1), packed: make(chan int, 100)}
}

// start listens until stop is called. Listener connects again whenever it has to, and
// proxy.Connect waits for a database that is not there.
func (p *packer) start(ctx context.Context, connString string, pool *pgxpool.Pool, ticks <-chan time.Time) (stop func() error) {
	ctx, cancel := context.WithCancel(ctx)
	listener := &pgxlisten.Listener{
		Connect:        func(ctx context.Context) (*pgx.Conn, error) { return proxy.Connect(ctx, connString) },
		LogError:       p.logError,  // it tells nobody else
		ReconnectDelay: time.Second, // its default is a minute
	}
	listener.Handle("orders", p)
	done := make(chan error, 1)
	go func() { done <- listener.Listen(ctx) }()
	var looking sync.WaitGroup
	looking.Go(func() { p.look(ctx, pool, ticks) })
	return func() error {
		cancel()
		looking.Wait()
		if err := <-done; !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	}
}

// logError hears of a lost connection, of a connect that failed, and of what the handlers
// return. Listen goes on after all of them.
func (p *packer) logError(ctx context.Context, err error) {
	if ctx.Err() == nil { // or it is only stop
		p.log.ErrorContext(ctx, "listen", "error", err)
	}
}

// look packs at every tick what no notification led to: one was lost with a connection that
// ended in silence, or the order was locked by somebody who then rolled back. It goes
// through the pool and does not depend on the listener's connection.
func (p *packer) look(ctx context.Context, pool *pgxpool.Pool, ticks <-chan time.Time) {
	for {
		select {
		case <-ticks:
			if err := p.pack(ctx, pool); err != nil {
				p.logError(ctx, err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// HandleNotification is called for each notification. What it says is only that there
// is something to do: the table says what.
func (p *packer) HandleNotification(ctx context.Context, _ *pgconn.Notification, conn *pgx.Conn) error {
	return p.pack(ctx, conn)
}

// HandleBacklog is called after each LISTEN, for what was missed while nobody listened.
func (p *packer) HandleBacklog(ctx context.Context, _ string, conn *pgx.Conn) error {
	select {
	case p.listening <- struct{}{}:
	default: // nobody has looked at the last signal, and nothing is to wait for that
	}
	return p.pack(ctx, conn)
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

func (p *packer) pack(ctx context.Context, db querier) error {
	rows, err := db.Query(ctx, `with todo as (select id from orders where not packed order by id for update skip locked)
		update orders set packed = true from todo where orders.id = todo.id returning orders.id`)
	if err != nil {
		return err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return err
	}
	for _, id := range ids {
		select {
		case p.packed <- id:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
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
