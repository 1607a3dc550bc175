package otelaurora_test

import (
	"context"
	"os"

	"github.com/jackc/pgx/v5"

	otelaurora "github.com/aurorapgx/aurorapgx/otel"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

func ExampleNewObserver() {
	ctx := context.Background()
	observer := otelaurora.NewObserver() // of the global providers
	pool, err := proxy.NewPool(ctx, os.Getenv("DATABASE_URL"), proxy.WithObserver(observer))
	if err != nil {
		return
	}
	defer pool.Close()
	stop, err := observer.ObservePool(pool)
	if err != nil {
		return
	}
	defer func() { _ = stop() }()
	_ = retry.TxContext(ctx, pool, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "insert into orders values ($1)", "order-1")
		return err
	}, retry.WithObserver(observer))
}
