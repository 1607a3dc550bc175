// Gorm runs GORM over a pool of package proxy:
//
//	go run ./gorm
//
// GORM wants a *sql.DB. proxy.OpenDB makes one that does not let database/sql run a
// statement again which the server may have received.
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

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"

	"github.com/aurorapgx/aurorapgx/examples/internal/lab"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

// Order is a row of the table orders.
type Order struct {
	ID       string `gorm:"primaryKey"`
	Item     string `gorm:"index"`
	Quantity int
	Placed   time.Time `gorm:"autoCreateTime"`
}

// Stock is a row of the table stocks.
type Stock struct {
	Item string `gorm:"primaryKey"`
	Sold int64
}

func main() { lab.Main("gorm", run) }

func run(ctx context.Context, out io.Writer) (err error) {
	l, err := lab.Start(ctx, lab.Setup{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	restore, err := l.SetEnvironment()
	if err != nil {
		return err
	}
	defer restore()
	if err := migrate(ctx, out); err != nil {
		return err
	}
	if err := takeOrders(ctx, out); err != nil {
		return err
	}
	return l.Report(out)
}

// open opens GORM over a *sql.DB. ctx is that of opening: each statement gets its own with
// WithContext.
func open(ctx context.Context, connString string) (*gorm.DB, *sql.DB, error) {
	sqlDB, err := proxy.OpenDB(ctx, connString)
	if err != nil {
		return nil, nil, err
	}
	db, err := gorm.Open(postgres.New(postgres.Config{Conn: sqlDB}), &gorm.Config{
		DisableAutomaticPing: true, // or Open waits for the database
		TranslateError:       true, // gorm.ErrDuplicatedKey and the like
		Logger:               logger.Discard,
	})
	if err != nil {
		return nil, nil, errors.Join(err, sqlDB.Close())
	}
	return db, sqlDB, nil
}

// migrate creates the tables, past the proxy, as a deployment's own step.
func migrate(ctx context.Context, out io.Writer) error {
	db, sqlDB, err := open(ctx, os.Getenv("DIRECT_URL"))
	if err != nil {
		return err
	}
	defer func() { _ = sqlDB.Close() }()
	_, _ = fmt.Fprintln(out, "tables created on the direct endpoint")
	db = db.WithContext(ctx)
	return errors.Join(db.AutoMigrate(&Order{}, &Stock{}), db.Create(&Stock{Item: "tea"}).Error)
}

const buyers, each = 4, 5

// takeOrders is the application.
func takeOrders(ctx context.Context, out io.Writer) error {
	db, sqlDB, err := open(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer func() { _ = sqlDB.Close() }()

	old := []Order{{ID: "old-1", Item: "tea", Quantity: 3}, {ID: "old-2", Item: "coffee", Quantity: 1}}
	if err := db.WithContext(ctx).Create(&old).Error; err != nil {
		return err
	}
	// One statement each, and one transaction: the first is undone with the second.
	more := []Order{{ID: "new-1", Item: "coffee", Quantity: 1}, {ID: "old-1", Item: "coffee", Quantity: 1}}
	duplicate := db.WithContext(ctx).CreateInBatches(&more, 1).Error
	_, _ = fmt.Fprintf(out, "%d orders created; two more, one under an id that is taken: %v\n", len(old), duplicate)
	if !errors.Is(duplicate, gorm.ErrDuplicatedKey) {
		return fmt.Errorf("got %w, want gorm.ErrDuplicatedKey", duplicate)
	}

	again, err := placeAll(ctx, sqlDB, db)
	if err != nil {
		return err
	}
	var byItem []struct {
		Item     string
		Orders   int64
		Quantity int64
	}
	err = db.WithContext(ctx).Model(&Order{}).Select("item, count(*) as orders, sum(quantity) as quantity").
		Group("item").Order("item").Scan(&byItem).Error
	if err != nil {
		return err
	}
	for _, row := range byItem {
		_, _ = fmt.Fprintf(out, "  %-6s  %d orders, %d pieces\n", row.Item, row.Orders, row.Quantity)
	}
	var tea Stock
	err = db.WithContext(ctx).First(&tea, "item = ?", "tea").Error
	_, _ = fmt.Fprintf(out, "%d orders placed by %d at a time, serializable, %d attempts in vain; sold: %d\n", buyers*each, buyers, again, tea.Sold)
	return err
}

// placeAll has several buyers order the same item at the same time, and counts how
// often PostgreSQL undid a transaction in favour of another.
func placeAll(ctx context.Context, sqlDB *sql.DB, db *gorm.DB) (again int64, err error) {
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
// transaction, because only who sends the COMMIT knows what an error at that point
// means; GORM works within.
func place(ctx context.Context, sqlDB *sql.DB, db *gorm.DB, id string, attempts *atomic.Int64) error {
	return retry.SQLTx(ctx, sqlDB, &sql.TxOptions{Isolation: sql.LevelSerializable}, func(tx *sql.Tx) error {
		attempts.Add(1)
		db := within(ctx, db, tx)
		placed := db.Clauses(clause.OnConflict{DoNothing: true}).Create(&Order{ID: id, Item: "tea", Quantity: 1})
		if placed.Error != nil || placed.RowsAffected == 0 {
			return placed.Error
		}
		var tea Stock
		if err := db.First(&tea, "item = ?", "tea").Error; err != nil {
			return err
		}
		tea.Sold++
		return db.Save(&tea).Error
	})
}

// within is db in a transaction that somebody else began and will end.
func within(ctx context.Context, db *gorm.DB, tx *sql.Tx) *gorm.DB {
	session := db.Session(&gorm.Session{NewDB: true, Context: ctx})
	session.Statement.ConnPool = tx
	return session
}
