// Minimal is the shortest Lambda function: a pool that is opened in INIT, and a query.
package main

import (
	"context"
	"log"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/aurorapgx/aurorapgx/proxy"
)

func main() {
	pool, err := proxy.NewPool(context.Background(), os.Getenv("DATABASE_URL"), proxy.Lambda())
	if err != nil {
		log.Fatal(err)
	}
	lambda.Start(func(ctx context.Context) (orders int64, err error) {
		// Lambda kills the process when ctx ends: half a second is for telling the error.
		if deadline, ok := ctx.Deadline(); ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, deadline.Add(-500*time.Millisecond))
			defer cancel()
		}
		err = pool.QueryRow(ctx, "select count(*) from orders").Scan(&orders)
		return orders, err
	})
}
