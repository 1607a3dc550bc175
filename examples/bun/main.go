// Bun runs Bun over a pool of package proxy:
//
//	go run ./bun
//
// Bun wants a *sql.DB, which proxy.OpenDB makes.
package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/aurorapgx/aurorapgx/examples/internal/lab"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

const schema = `
	create table orders (id text primary key, item text not null, quantity int not null, tags text[], placed timestamptz not null default now());
	create table stock (item text primary key, sold bigint not null);
	insert into stock values ('tea', 0)`

// Order is a row of the table orders.
type Order struct {
	bun.BaseModel `bun:"table:orders"`

	ID       string    `bun:",pk"`
	Item     string    `bun:",notnull"`
	Quantity int       `bun:",notnull"`
	Tags     []string  `bun:",array"`
	Placed   time.Time `bun:",nullzero,default:now()"`
}

// Stock is a row of the table stock.
type Stock struct {
	bun.BaseModel `bun:"table:stock"`

	Item string `bun:",pk"`
	Sold int64
}

func main() { lab.Main("bun", run) }

func run(ctx context.Context, out io.Writer) (err error) {
	l, err := lab.Start(ctx, lab.Setup{Schema: schema})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	restore, err := l.SetEnvironment()
	if err != nil {
		return err
	}
	defer restore()
	if err := takeOrders(ctx, out); err != nil {
		return err
	}
	err = l.Report(out)
	_, _ = fmt.Fprintf(out, "statements prepared under a name: %d\n", l.Proxy.Stats().NamedStatements)
	return err
}

// takeOrders is the application.
func takeOrders(ctx context.Context, out io.Writer) error {
	// Bun writes values into the text and passes no arguments. pgx by itself would prepare
	// each SELECT with other values as another statement, which is never used again.
	sqlDB, err := proxy.OpenDB(ctx, os.Getenv("DATABASE_URL"), proxy.WithExecMode(pgx.QueryExecModeExec))
	if err != nil {
		return err
	}
	defer func() { _ = sqlDB.Close() }()
	db := bun.NewDB(sqlDB, pgdialect.New())

	old := []Order{{ID: "old-1", Item: "tea", Quantity: 3, Tags: []string{"loose", "green"}}, {ID: "old-2", Item: "coffee", Quantity: 1}}
	if _, err := db.NewInsert().Model(&old).Exec(ctx); err != nil {
		return err
	}
	var green []string
	if err := db.NewSelect().Model((*Order)(nil)).Column("id").Where("? = any(tags)", "green").Scan(ctx, &green); err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "%d orders inserted; green: %v\n", len(old), green)

	again, err := placeAll(ctx, sqlDB, db)
	if err != nil {
		return err
	}
	var byItem []struct {
		Item     string
		Orders   int64
		Quantity int64
	}
	err = db.NewSelect().Model((*Order)(nil)).Column("item").ColumnExpr("count(*) as orders").ColumnExpr("sum(quantity) as quantity").
		Group("item").Order("item").Scan(ctx, &byItem)
	if err != nil {
		return err
	}
	for _, row := range byItem {
		_, _ = fmt.Fprintf(out, "  %-6s  %d orders, %d pieces\n", row.Item, row.Orders, row.Quantity)
	}
	var tea Stock
	err = db.NewSelect().Model(&tea).Where("item = ?", "tea").Scan(ctx)
	_, _ = fmt.Fprintf(out, "%d orders placed by %d at a time, serializable, %d attempts in vain; sold: %d\n", buyers*each, buyers, again, tea.Sold)
	return err
}

const buyers, each = 4, 5

// placeAll has several buyers order the same item at the same time, and counts how
// often PostgreSQL undid a transaction in favour of another.
func placeAll(ctx context.Context, sqlDB *sql.DB, db *bun.DB) (again int64, err error) {
	var (
		wg       sync.WaitGroup
		attempts atomic.Int64
		errs     = make([]error, buyers)
	)
	for b := range buyers {
		wg.Go(func() {
			for n := range each {
				errs[b] = errors.Join(errs[b], place(ctx, sqlDB, db, fmt.Sprintf("order-%d-%d", b, n), &attempts))
			}
		})
	}
	wg.Wait()
	return attempts.Load() - buyers*each, errors.Join(errs...)
}

// place reads what was sold, adds to it and writes it back. retry.SQLTx owns the
// transaction; Bun's queries are told to use it with Conn.
func place(ctx context.Context, sqlDB *sql.DB, db *bun.DB, id string, attempts *atomic.Int64) error {
	return retry.SQLTx(ctx, sqlDB, &sql.TxOptions{Isolation: sql.LevelSerializable}, func(tx *sql.Tx) error {
		attempts.Add(1)
		placed, err := db.NewInsert().Conn(tx).Model(&Order{ID: id, Item: "tea", Quantity: 1}).On("conflict (id) do nothing").Exec(ctx)
		if err != nil {
			return err
		}
		if n, err := placed.RowsAffected(); err != nil || n == 0 {
			return err
		}
		var tea Stock
		if err := db.NewSelect().Conn(tx).Model(&tea).Where("item = ?", "tea").Scan(ctx); err != nil {
			return err
		}
		_, err = db.NewUpdate().Conn(tx).Model(&tea).Set("sold = ?", tea.Sold+1).WherePK().Exec(ctx)
		return err
	})
}
