// Handwritten is the minimal function without aurorapgx: pgxpool, the AWS SDK and what
// one writes between them. It is here to be measured against; it has no answer to a
// database that is not there yet, to a proxy that is full, or to a connection that was
// lost while the environment was frozen.
package main

import (
	"context"
	"log"
	"net"
	"net/url"
	"os"
	"strconv"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/rds/auth"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

func main() {
	pool, err := open(context.Background(), os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	lambda.Start(func(ctx context.Context) (orders int64, err error) {
		err = pool.QueryRow(ctx, "select count(*) from orders").Scan(&orders)
		return orders, err
	})
}

func open(ctx context.Context, connString string) (*pgxpool.Pool, error) {
	u, err := url.Parse(connString)
	if err != nil {
		return nil, err
	}
	query := u.Query()
	address := query.Get("hostaddr") // on this machine the name of an RDS Proxy does not resolve
	query.Del("hostaddr")
	u.RawQuery = query.Encode()
	cfg, err := pgxpool.ParseConfig(u.String())
	if err != nil {
		return nil, err
	}
	if address != "" {
		cfg.ConnConfig.LookupFunc = func(context.Context, string) ([]string, error) { return []string{address}, nil }
	}
	awsConfig, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = 2
	cfg.BeforeConnect = func(ctx context.Context, cc *pgx.ConnConfig) (err error) {
		endpoint := net.JoinHostPort(cc.Host, strconv.Itoa(int(cc.Port)))
		cc.Password, err = auth.BuildAuthToken(ctx, endpoint, awsConfig.Region, cc.User, awsConfig.Credentials)
		return err
	}
	return pgxpool.NewWithConfig(ctx, cfg)
}
