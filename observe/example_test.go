package observe_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/aurorapgx/aurorapgx/observe"
	"github.com/aurorapgx/aurorapgx/retry"

	"github.com/jackc/pgx/v5/pgconn"
)

// alarm is an Observer that looks at what it cares for, and lets all else pass.
type alarm struct{}

func (alarm) Start(ctx context.Context, _ observe.Operation) context.Context { return ctx }

func (alarm) Observe(_ context.Context, e observe.Event) {
	switch e := e.(type) {
	case observe.FailoverNoticed:
		fmt.Println("failover:", e.Endpoint, e.Sign)
	case observe.TransactionAttempt:
		if e.Err != nil {
			fmt.Printf("attempt %d: %s, %s\n", e.Number, e.Verdict, e.Reason)
		}
	}
}

// An Observer of one's own is two methods. Pools take it with proxy.WithObserver, retry.Tx with
// retry.WithObserver, and a Policy has a field for it.
func ExampleObserver() {
	attempts := 0
	_ = retry.Do(context.Background(), retry.Policy{Attempts: 3, Base: time.Millisecond, Observer: alarm{}}, func(context.Context) error {
		if attempts++; attempts == 1 {
			return &pgconn.PgError{Severity: "ERROR", Code: "40001"}
		}
		return nil
	})
	// Output: attempt 1: rolled back, PostgreSQL undid the transaction in favour of another
}

func ExampleLog() {
	withoutTime := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}
	o := observe.Log(slog.New(slog.NewTextHandler(os.Stdout, withoutTime)))
	o.Observe(context.Background(), observe.FailoverNoticed{
		Endpoint: "orders.cluster-abc.eu-west-1.rds.amazonaws.com:5432", Kind: "writer", Address: "10.0.0.10", Sign: observe.EvictedMoved,
	})
	// Output: level=WARN msg="aurorapgx: failover noticed" endpoint=orders.cluster-abc.eu-west-1.rds.amazonaws.com:5432 kind=writer address=10.0.0.10 sign=moved
}
