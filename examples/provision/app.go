package main

// The application and its neighbours: each is given a URL and knows no more. The options
// of connect are what this machine has instead of a VPC and a task role.

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

func connect(ctx context.Context, databaseURL string, stack *localStack) (*pgxpool.Pool, error) {
	return proxy.NewPool(ctx, databaseURL, stack.insteadOfVPC()...)
}

// migrate creates what the application works with, past the proxy. It takes a lock, as tools for
// migrations do, which would pin its session there.
func migrate(ctx context.Context, databaseURL string, stack *localStack) (string, error) {
	pool, err := connect(ctx, databaseURL, stack)
	if err != nil {
		return "", err
	}
	defer pool.Close()
	err = pool.AcquireFunc(ctx, func(conn *pgxpool.Conn) error {
		if _, err := conn.Exec(ctx, "select pg_advisory_lock(1)"); err != nil { // until the session ends, with the pool
			return err
		}
		_, err := conn.Exec(ctx, "create table sales.item (id bigint generated always as identity primary key, name text not null)")
		return err
	})
	return "created a table in schema sales, under a lock", err
}

// serve is the service: it writes in a transaction that is run again when that is safe.
func serve(ctx context.Context, databaseURL string, stack *localStack) (string, error) {
	pool, err := connect(ctx, databaseURL, stack)
	if err != nil {
		return "", err
	}
	defer pool.Close()
	var id int64
	err = retry.Tx(ctx, pool, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, "insert into sales.item (name) values ('tea') returning id").Scan(&id)
	})
	if err != nil {
		return "", err
	}
	var timeout string
	if err := pool.QueryRow(ctx, "show statement_timeout").Scan(&timeout); err != nil {
		return "", err
	}
	if _, err := pool.Exec(ctx, "drop table sales.item"); !refused(err) {
		return "", fmt.Errorf("dropping a table is not for this user, and gave: %w", err)
	}
	return fmt.Sprintf("wrote item %d; statement_timeout is %s; may not drop the table", id, timeout), nil
}

// read is a report.
func read(ctx context.Context, databaseURL string, stack *localStack) (string, error) {
	pool, err := connect(ctx, databaseURL, stack)
	if err != nil {
		return "", err
	}
	defer pool.Close()
	var items int
	if err := pool.QueryRow(ctx, "select count(*) from sales.item").Scan(&items); err != nil {
		return "", err
	}
	if _, err := pool.Exec(ctx, "insert into sales.item (name) values ('coffee')"); !refused(err) {
		return "", fmt.Errorf("writing is not for this user, and gave: %w", err)
	}
	return fmt.Sprintf("read %d item; may not write", items), nil
}

// refused reports whether the user lacks the privilege (SQLSTATE 42501).
func refused(err error) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == "42501"
}
