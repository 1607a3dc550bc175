// Function is a Lambda function that takes orders. Build it for the runtime
// provided.al2023 with
//
//	GOOS=linux GOARCH=arm64 CGO_ENABLED=0 go build -tags lambda.norpc -o bootstrap ./lambda/function
//
// It wants DATABASE_URL, and an execution role that may rds-db:connect.
package main

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

// main is the INIT phase: it runs once in each execution environment. What it opens
// stays open for every invocation there.
func main() {
	logger := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	pool, err := proxy.NewPool(context.Background(), os.Getenv("DATABASE_URL"), proxy.Lambda(), proxy.WithLogger(logger))
	if err != nil {
		log.Fatal(err) // a mistake in the configuration; the error says which, and what to write instead
	}
	connect(pool, logger)
	h := &handler{pool: pool}
	// An environment that is retired gets SIGTERM, if it asks for it, and has 500 ms.
	lambda.StartWithOptions(h.place, lambda.WithEnableSIGTERM(pool.Close))
}

// connect opens the first connection while INIT lasts, so that no event has to wait for
// TLS and login. INIT has 10 s; a database that needs longer is waited for by the first
// event, and does not fail the environment. To acquire sends no statement.
func connect(pool *pgxpool.Pool, logger *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	conn, err := pool.Acquire(ctx)
	if err != nil {
		logger.Warn("no connection yet", "error", err)
		return
	}
	conn.Release()
}

type order struct {
	ID       string `json:"id"` // the caller's, the same when it asks again
	Item     string `json:"item"`
	Quantity int    `json:"quantity"`
}

type receipt struct {
	ID         string `json:"id"`
	Orders     int64  `json:"orders"`     // of this item, up to now
	Invocation int    `json:"invocation"` // of this environment
	Connects   int64  `json:"connects"`   // that its pool has made
}

type handler struct {
	pool        *pgxpool.Pool
	invocations int // one at a time
}

// answerMargin is kept of the function's time for saying what went wrong. When ctx ends,
// Lambda kills the process, and then nobody learns what it was waiting for.
const answerMargin = 500 * time.Millisecond

// withMargin ends that much before ctx does.
func withMargin(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok { // on Lambda there always is one
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, deadline.Add(-answerMargin))
}

// place takes an order.
//
// Lambda delivers asynchronous events and those of queues at least once. So an order has
// an id, and placing it again changes nothing: that makes it right to run the transaction
// again even if the answer to its COMMIT was lost.
func (h *handler) place(ctx context.Context, o order) (receipt, error) {
	h.invocations++
	ctx, cancel := withMargin(ctx)
	defer cancel()
	orders, err := retry.TxValue(retry.Idempotent(ctx), h.pool, func(tx pgx.Tx) (n int64, err error) {
		_, err = tx.Exec(ctx, "insert into orders (id, item, quantity) values ($1, $2, $3) on conflict (id) do nothing", o.ID, o.Item, o.Quantity)
		if err != nil {
			return 0, err
		}
		err = tx.QueryRow(ctx, "select count(*) from orders where item = $1", o.Item).Scan(&n)
		return n, err
	})
	if err != nil {
		return receipt{}, fmt.Errorf("place order %s: %w", o.ID, err)
	}
	return receipt{ID: o.ID, Orders: orders, Invocation: h.invocations, Connects: h.pool.Stat().NewConnsCount()}, nil
}
