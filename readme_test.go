package aurorapgx_test

import (
	"context"
	"errors"
	"log"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
	"github.com/aurorapgx/aurorapgx/retry"
	"github.com/aurorapgx/aurorapgx/secrets"
)

// TestReadmeSnippets finds each Go block of the README in this file, which compiles.
func TestReadmeSnippets(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("readme_test.go")
	if err != nil {
		t.Fatal(err)
	}
	flat := func(text string) string {
		var lines []string
		for line := range strings.Lines(text) {
			lines = append(lines, strings.TrimSpace(line))
		}
		return strings.Join(lines, "\n")
	}
	blocks := strings.Split(string(readme), "```go\n")[1:]
	if len(blocks) != 6 {
		t.Errorf("%d Go blocks in the README, want 6", len(blocks))
	}
	for _, block := range blocks {
		snippet, _, _ := strings.Cut(block, "```")
		if !strings.Contains(flat(string(source)), flat(strings.TrimSpace(snippet))) {
			t.Errorf("this snippet of the README is not compiled here:\n%s", snippet)
		}
	}
}

// Tests of the snippets that need nothing but themselves.
func TestReadmeServiceAndLambda(t *testing.T) {
	t.Setenv("DATABASE_URL", "postgres://app@app.proxy-abc.eu-west-1.rds.amazonaws.com/orders")
	if err := service(t.Context()); err != nil {
		t.Error(err)
	}
	for _, open := range []func(context.Context) (*pgxpool.Pool, error){lambdaFunction, fromVault} {
		pool, err := open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		ping(ended, pool)
		if err := withdraw(ended, pool, 1, 100); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		pool.Close()
	}
}

func TestReadmePins(t *testing.T) {
	t.Parallel()
	pinTest(t.Context(), t, "postgres://app:secret@localhost/orders", func(context.Context, *pgxpool.Pool) {})
}

func service(ctx context.Context) error {
	// DATABASE_URL=postgres://app@app.proxy-abc.eu-west-1.rds.amazonaws.com/orders
	pool, err := proxy.NewPool(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()
	return nil
}

func lambdaFunction(ctx context.Context) (*pgxpool.Pool, error) {
	pool, err := proxy.NewPool(ctx, os.Getenv("DATABASE_URL"), proxy.Lambda(), proxy.WithLogger(slog.Default()))
	return pool, err
}

func readFromVault(context.Context, string) (secrets.Credentials, error) {
	return secrets.Credentials{User: "app", Password: "secret"}, nil
}

func fromVault(ctx context.Context) (*pgxpool.Pool, error) {
	vault := secrets.Func(func(ctx context.Context) (secrets.Credentials, error) {
		return readFromVault(ctx, "orders/app")
	})
	pool, err := proxy.NewPool(ctx, "postgres://app.proxy-abc.eu-west-1.rds.amazonaws.com/orders", proxy.WithCredentials(vault))
	return pool, err
}

func ping(ctx context.Context, pool *pgxpool.Pool) {
	err := pool.Ping(ctx)
	switch {
	case errors.Is(err, proxy.ErrCredentialsRejected):
		log.Print("check the role's rds-db:connect permission: ", err)
	case errors.Is(err, proxy.ErrBorrowTimeout):
		log.Print("the proxy has no connection to lend: ", err)
	}
}

func withdraw(ctx context.Context, pool *pgxpool.Pool, from, amount int) error {
	err := retry.Tx(ctx, pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "update account set balance = balance - $2 where id = $1", from, amount)
		return err
	})
	if errors.As(err, new(*retry.AmbiguousCommitError)) {
		return lookUp(ctx, pool, from)
	}
	return err
}

func lookUp(context.Context, *pgxpool.Pool, int) error { return nil }

func pinTest(ctx context.Context, t *testing.T, backendDSN string, runTheService func(context.Context, *pgxpool.Pool)) {
	t.Helper()
	px := proxytest.NewProxy(t, backendDSN) // an RDS Proxy in front of your test database
	pool, err := proxy.NewPool(ctx, px.URL("app", "orders"), proxy.WithAWSConfig(aws.Config{
		Credentials: credentials.StaticCredentialsProvider{Value: px.Credentials()},
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	runTheService(ctx, pool)
	proxytest.RequireNoPins(t, px)
}
