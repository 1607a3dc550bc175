package otelaurora_test

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	otelaurora "github.com/aurorapgx/aurorapgx/otel"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

// One observer for the pool and for transactions, of the global providers.
func ExampleNewObserver() {
	ctx := context.Background()
	observer := otelaurora.NewObserver()
	pool, err := proxy.NewPool(ctx, "postgres://app@app.proxy-abc.eu-west-1.rds.amazonaws.com/orders", proxy.WithObserver(observer))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	stop, err := observer.ObservePool(pool)
	if err != nil {
		fmt.Println(err)
		return
	}
	place := func(ctx context.Context, pool *pgxpool.Pool, id string) error {
		return retry.TxContext(ctx, pool, func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "insert into orders values ($1)", id)
			return err
		}, retry.WithObserver(observer))
	}
	_ = place // in a handler
	fmt.Println(stop())
	// Output: <nil>
}
