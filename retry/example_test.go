package retry_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/aurorapgx/aurorapgx/retry"
)

// exampleServer is a pool whose server is in trouble: the first time it gets a statement
// that contains where, it answers with fault. Then it says status of the transaction
// that it lost, or of the row in the ledger.
func exampleServer(where string, fault reply, status any) (pool *pgxpool.Pool, stop func()) {
	met := false
	return scripted(func(sql string) reply {
		switch {
		case !met && strings.Contains(sql, where):
			met = true
			return fault
		case strings.Contains(sql, "pg_xact_status"):
			return reply{row: []any{false, "1000.5", "1000.5", status}}
		case strings.Contains(sql, "pg_current_xact_id()"):
			return reply{row: []any{"4711", "1000.5", "1000.5"}}
		case strings.Contains(sql, "on conflict"):
			return reply{row: []any{status}}
		case strings.HasPrefix(sql, "select balance"):
			return reply{row: []any{"100"}}
		}
		return reply{}
	})
}

func ExampleClassify() {
	for _, err := range []error{
		&pgconn.PgError{Severity: "ERROR", Code: "40001"},
		&pgconn.PgError{Severity: "ERROR", Code: "23505"},
		&pgconn.PgError{Severity: "FATAL", Code: "57P01"},
		io.ErrUnexpectedEOF,
	} {
		fmt.Println(retry.Classify(err))
	}
	// Output:
	// rolled back
	// permanent
	// ambiguous
	// ambiguous
}

func ExampleReason() {
	err := &pgconn.PgError{Severity: "ERROR", Code: "40P01", Message: "deadlock detected"}
	fmt.Printf("%v: %s\n", retry.Classify(err), retry.Reason(err))
	// Output: rolled back: PostgreSQL undid the transaction in favour of another
}

// Code that knows more than its error says so.
func ExampleMark() {
	err := retry.Mark(errors.New("queue is full, nothing was sent"), retry.NotExecuted)
	fmt.Println(err, "-", retry.Classify(err), retry.Classify(err).Retryable())
	// Output: queue is full, nothing was sent - not executed true
}

func ExampleDo() {
	attempts := 0
	err := retry.Do(context.Background(), retry.Policy{Attempts: 5, Base: time.Millisecond}, func(context.Context) error {
		if attempts++; attempts < 3 {
			return &pgconn.PgError{Severity: "ERROR", Code: "40001"} // undone by the server
		}
		return nil
	})
	fmt.Println(attempts, err)
	// Output: 3 <nil>
}

// A hook for logs, metrics and spans sees every attempt, also the last.
func ExamplePolicy() {
	policy := retry.Policy{Attempts: 2, Base: time.Millisecond, OnAttempt: func(_ context.Context, a retry.Attempt) {
		fmt.Printf("attempt %d, last=%v: %v (%s)\n", a.Number, a.Last, a.Verdict, a.Reason)
	}}
	_ = retry.Do(context.Background(), policy, func(context.Context) error {
		return &pgconn.PgError{Severity: "FATAL", Code: "53300"}
	})
	// Output:
	// attempt 1, last=false: not executed (the server takes no session at the moment)
	// attempt 2, last=true: not executed (the server takes no session at the moment)
}

func ExampleSerialization() {
	p := retry.Serialization()
	fmt.Println(p.Attempts, p.Budget, p.Base, p.Cap)
	// Output: 20 30s 10ms 1s
}

func ExampleFailover() {
	p := retry.Failover()
	p.Budget = 45 * time.Second // a policy is a plain value
	fmt.Println(p.Attempts, p.Budget, p.Base, p.Cap)
	// Output: 0 45s 50ms 1s
}

func ExampleColdStart() {
	p := retry.ColdStart()
	fmt.Println(p.Attempts, p.Budget, p.Base, p.Cap)
	// Output: 0 1m0s 100ms 2s
}

func ExampleIdempotent() {
	attempts := 0
	ctx := retry.Idempotent(context.Background())
	err := retry.Do(ctx, retry.Policy{Attempts: 3, Base: time.Millisecond}, func(context.Context) error {
		if attempts++; attempts == 1 {
			return io.ErrUnexpectedEOF // whether the server got the statement is not known
		}
		return nil
	})
	fmt.Println(attempts, err)
	// Output: 2 <nil>
}

func ExampleNever() {
	attempts := 0
	ctx := retry.Never(context.Background())
	_ = retry.Do(ctx, retry.Policy{Attempts: 3}, func(context.Context) error {
		attempts++
		return &pgconn.PgError{Severity: "ERROR", Code: "40001"}
	})
	fmt.Println(attempts)
	// Output: 1
}

// The first attempt runs into a serialization failure.
func ExampleTx() {
	ctx := context.Background()
	pool, stop := exampleServer("update", reply{code: "40001"}, nil) // proxy.NewPool, in a service
	defer stop()

	runs := 0
	err := retry.Tx(ctx, pool, func(tx pgx.Tx) error {
		runs++
		_, err := tx.Exec(ctx, "update account set balance = balance - 10 where id = 1")
		return err
	})
	fmt.Println(runs, err)
	// Output: 2 <nil>
}

func ExampleTxValue() {
	ctx := context.Background()
	pool, stop := exampleServer("begin", reply{cut: true}, nil)
	defer stop()

	balance, err := retry.TxValue(ctx, pool, func(tx pgx.Tx) (balance string, err error) {
		err = tx.QueryRow(ctx, "select balance from account where id = 1").Scan(&balance)
		return balance, err
	})
	fmt.Println(balance, err)
	// Output: 100 <nil>
}

func ExampleSQLTx() {
	ctx := context.Background()
	pool, stop := exampleServer("update", reply{code: "40P01"}, nil)
	defer stop()
	db := stdlib.OpenDBFromPool(pool) // proxy.OpenDB, in a service
	defer db.Close()

	runs := 0
	err := retry.SQLTx(ctx, db, &sql.TxOptions{Isolation: sql.LevelSerializable}, func(tx *sql.Tx) error {
		runs++
		_, err := tx.ExecContext(ctx, "update account set balance = balance - 10 where id = 1")
		return err
	})
	fmt.Println(runs, err)
	// Output: 2 <nil>
}

func ExampleWithTxOptions() {
	ctx := context.Background()
	pool, stop := scripted(func(sql string) reply {
		fmt.Println(sql)
		return reply{}
	})
	defer stop()

	_ = retry.Tx(ctx, pool, func(pgx.Tx) error { return nil },
		retry.WithTxOptions(pgx.TxOptions{IsoLevel: pgx.Serializable, AccessMode: pgx.ReadOnly}))
	// Output:
	// begin isolation level serializable read only
	// commit
}

func ExampleWithPolicy() {
	ctx := context.Background()
	pool, stop := scripted(func(sql string) reply {
		if strings.HasPrefix(sql, "update") {
			return reply{code: "40001"}
		}
		return reply{}
	})
	defer stop()

	runs := 0
	err := retry.Tx(ctx, pool, func(tx pgx.Tx) error {
		runs++
		_, err := tx.Exec(ctx, "update account set balance = 0")
		return err
	}, retry.WithPolicy(retry.Policy{Attempts: 3, Base: time.Millisecond}))
	fmt.Println(runs, errors.As(err, new(*retry.Error)))
	// Output: 3 true
}

// The answer to COMMIT is lost. The server still knows the transaction.
func ExampleSettleCommits() {
	ctx := context.Background()
	pool, stop := exampleServer("commit", reply{cut: true}, "committed")
	defer stop()

	runs := 0
	err := retry.Tx(ctx, pool, func(tx pgx.Tx) error {
		runs++
		_, err := tx.Exec(ctx, "update account set balance = balance - 10 where id = 1")
		return err
	}, retry.SettleCommits())
	fmt.Println(runs, err)
	// Output: 1 <nil>
}

// The COMMIT never arrived. The ledger makes sure that it cannot arrive any more, and the
// transaction runs again.
func ExampleSettleIn() {
	ctx := context.Background()
	pool, stop := exampleServer("commit", reply{cut: true}, false)
	defer stop()

	ledger, err := retry.NewLedger("app.commits")
	if err != nil {
		log.Fatal(err)
	}
	runs := 0
	err = retry.Tx(ctx, pool, func(tx pgx.Tx) error {
		runs++
		_, err := tx.Exec(ctx, "update account set balance = balance - 10 where id = 1")
		return err
	}, retry.SettleIn(ledger))
	fmt.Println(runs, err)
	// Output: 2 <nil>
}

// A caller with a short deadline leaves settling five seconds of its own.
func ExampleWithSettleBudget() {
	pool, stop := exampleServer("commit", reply{cut: true}, "committed")
	defer stop()

	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := retry.Tx(ctx, pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "update account set balance = balance - 10 where id = 1")
		return err
	}, retry.SettleCommits(), retry.WithSettleBudget(5*time.Second))
	fmt.Println(err)
	// Output: <nil>
}

// What is left when a COMMIT could not be settled.
func ExampleAmbiguousCommitError() {
	ctx := context.Background()
	pool, stop := exampleServer("commit", reply{cut: true}, nil) // the server has forgotten
	defer stop()

	err := retry.Tx(ctx, pool, func(pgx.Tx) error { return nil }, retry.SettleCommits())
	if doubt, ok := errors.AsType[*retry.AmbiguousCommitError](err); ok {
		fmt.Println(doubt.XID)
		fmt.Println(doubt.Unsettled)
	}
	// Output:
	// 4711
	// the transaction is so old that the server has forgotten its outcome
}

func ExampleNewLedger() {
	_, err := retry.NewLedger("commits")
	fmt.Println(err)
	// Output: retry: "commits" does not name a ledger's table: write schema.table, and put what is not in lower case in double quotes, as in app.commits or "App".commits
}

func ExampleLedger_SQL() {
	ledger, err := retry.NewLedger("app.commits")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ledger.SQL())
	// Output:
	// create table if not exists "app"."commits" (
	// 	token uuid primary key,
	// 	committed boolean not null,
	// 	at timestamptz not null default pg_catalog.clock_timestamp()
	// )
}

func ExampleLedger_Create() {
	ctx := context.Background()
	pool, stop := scripted(func(string) reply { return reply{} })
	defer stop()

	ledger, err := retry.NewLedger("app.commits")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(ledger.Create(ctx, pool))
	// Output: <nil>
}

func ExampleLedger_Prune() {
	ctx := context.Background()
	pool, stop := scripted(func(string) reply { return reply{} })
	defer stop()

	ledger, err := retry.NewLedger("app.commits")
	if err != nil {
		log.Fatal(err)
	}
	_, err = ledger.Prune(ctx, pool, 24*time.Hour) // once a day
	fmt.Println(err)
	_, err = ledger.Prune(ctx, pool, time.Minute)
	fmt.Println(err)
	// Output:
	// <nil>
	// retry: rows of the ledger that are younger than 1h0m0s may be asked for, and must stay: give Prune a longer time than 1m0s
}
