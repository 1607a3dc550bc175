// Minimal is the shortest Lambda function: a pool that is opened in INIT, and a query.
package main

import (
	"context"
	"log"
	"os"

	"github.com/aws/aws-lambda-go/lambda"

	"github.com/aurorapgx/aurorapgx/proxy"
)

func main() {
	pool, err := proxy.NewPool(context.Background(), os.Getenv("DATABASE_URL"), proxy.Lambda())
	if err != nil {
		log.Fatal(err)
	}
	lambda.Start(func(ctx context.Context) (orders int64, err error) {
		err = pool.QueryRow(ctx, "select count(*) from orders").Scan(&orders)
		return orders, err
	})
}
