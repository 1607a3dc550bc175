// Package hiddenset is a small program that keeps its data in PostgreSQL, as a program does that has
// never met RDS Proxy. One of its statements pins every session it runs in. It is what the tests of
// RequireNoPins look at.
package hiddenset

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Store keeps orders.
type Store struct{ pool *pgxpool.Pool }

// New makes the table if there is none.
func New(ctx context.Context, pool *pgxpool.Pool) (*Store, error) {
	_, err := pool.Exec(ctx, "create table if not exists orders (id bigserial primary key, item text not null)")
	return &Store{pool: pool}, err
}

// Add stores an order.
func (s *Store) Add(ctx context.Context, item string) (id int64, err error) {
	err = s.pool.QueryRow(ctx, "insert into orders (item) values ($1) returning id", item).Scan(&id)
	return id, err
}

// Count counts the orders of an item.
func (s *Store) Count(ctx context.Context, item string) (n int, err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Release()
	if err := patience(ctx, conn); err != nil {
		return 0, err
	}
	err = conn.QueryRow(ctx, "select count(*) from orders where item = $1", item).Scan(&n)
	return n, err
}

// patience lets a report take longer than other statements may.
func patience(ctx context.Context, conn *pgxpool.Conn) error {
	_, err := conn.Exec(ctx, "set statement_timeout = '1min'") // the hidden SET
	return err
}
