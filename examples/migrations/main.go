// Migrations runs goose on a direct endpoint, from two deployments at once:
//
//	go run ./migrations
package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/aurorapgx/aurorapgx/examples/internal/lab"
	"github.com/aurorapgx/aurorapgx/proxy"
)

//go:embed sql/*.sql
var embedded embed.FS

func main() { lab.Main("migrations", run) }

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

	if err := twoAtOnce(ctx, out); err != nil {
		return err
	}
	if err := lab.Exec(ctx, os.Getenv("DIRECT_URL"), "drop index concurrently orders_by_item", "delete from goose_db_version where version_id = 3"); err != nil {
		return err
	}
	_, _ = fmt.Fprintln(out, "\nthe last one again, through the proxy, as it should not be")
	applied, err := migrate(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "  applied %v\n", applied)
	return l.Report(out)
}

// migrate brings the schema up to date and returns the versions that it applied. It
// may run in several places at a time: a session-level advisory lock lets one of them
// in, and the others wait and find nothing left to do.
func migrate(ctx context.Context, connString string) (applied []int64, err error) {
	db, err := proxy.OpenDB(ctx, connString)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	files, err := fs.Sub(embedded, "sql")
	if err != nil {
		return nil, err
	}
	// Asks every second, for up to ten minutes.
	locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 600))
	if err != nil {
		return nil, err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker))
	if err != nil {
		return nil, err
	}
	results, err := provider.Up(ctx)
	for _, r := range results {
		applied = append(applied, r.Source.Version)
	}
	return applied, err
}

// twoAtOnce is a deployment whose tasks all migrate before they serve.
func twoAtOnce(ctx context.Context, out io.Writer) error {
	var (
		wg      sync.WaitGroup
		applied [2][]int64
		errs    [2]error
	)
	began := time.Now()
	for i := range applied {
		wg.Go(func() { applied[i], errs[i] = migrate(ctx, os.Getenv("DIRECT_URL")) })
	}
	wg.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	if len(applied[0]) < len(applied[1]) { // whoever got the lock first
		slices.Reverse(applied[:])
	}
	_, err := fmt.Fprintf(out, "two migrators at once on the direct endpoint, in %s\n  one applied %v\n  the other waited for the lock and applied %v\n",
		time.Since(began).Round(time.Millisecond), applied[0], applied[1])
	return err
}
