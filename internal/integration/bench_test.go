package integration

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

// comparePairs runs ours and plain in turn, so that whatever slows the machine down
// slows both, and reports the median of the ratios of the pairs. One iteration is a
// pair of blocks.
func comparePairs(b *testing.B, block int, ours, plain func() error) {
	b.Helper()
	timed := func(f func() error) time.Duration {
		start := time.Now()
		for range block {
			if err := f(); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(start)
	}
	timed(ours) // warm up
	timed(plain)
	var ratios, oursTook, plainTook []float64
	for i := 0; b.Loop(); i++ {
		var o, p time.Duration
		if i%2 == 0 {
			o, p = timed(ours), timed(plain)
		} else {
			p, o = timed(plain), timed(ours)
		}
		ratios = append(ratios, float64(o)/float64(p))
		oursTook = append(oursTook, float64(o)/float64(block))
		plainTook = append(plainTook, float64(p)/float64(block))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(oursTook), "ours-ns")
	b.ReportMetric(median(plainTook), "plain-ns")
	b.ReportMetric(median(ratios), "ours/plain")
	b.ReportMetric(testing.AllocsPerRun(200, func() { _ = ours() }), "ours-allocs")
	b.ReportMetric(testing.AllocsPerRun(200, func() { _ = plain() }), "plain-allocs")
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func selectOne(pool *pgxpool.Pool) func() error {
	return func() error {
		var n int
		return pool.QueryRow(context.Background(), "select $1::int", 42).Scan(&n)
	}
}

// BenchmarkQuery: the cost of one query through our pool beside plain pgxpool, same
// server, same settings.
func BenchmarkQuery(b *testing.B) {
	b.Run("direct", func(b *testing.B) {
		dsn := database(b, shared)
		ours := newPool(b, dsn, proxy.WithMaxConns(4))
		plain, err := pgxpool.New(b.Context(), dsn)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(plain.Close)
		comparePairs(b, 20, selectOne(ours), selectOne(plain))
	})
	b.Run("proxy", func(b *testing.B) {
		px, url, _ := startProxy(b)
		comparePairs(b, 20, selectOne(newPool(b, url, signedBy(px), proxy.WithMaxConns(4))), selectOne(plainPool(b, px, url, 4)))
	})
}

// connect opens a connection through the pool and closes it.
func connect(pool *pgxpool.Pool) func() error {
	return func() error {
		conn, err := pool.Acquire(context.Background())
		if err != nil {
			return err
		}
		return conn.Hijack().Close(context.Background())
	}
}

// BenchmarkConnect: the cost of a whole connect, beside plain pgxpool: TCP and SCRAM to
// PostgreSQL, and TCP, TLS and an IAM token to the proxy.
func BenchmarkConnect(b *testing.B) {
	b.Run("direct", func(b *testing.B) {
		dsn := database(b, shared)
		plain, err := pgxpool.New(b.Context(), dsn)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(plain.Close)
		comparePairs(b, 2, connect(newPool(b, dsn)), connect(plain))
	})
	b.Run("proxy", func(b *testing.B) {
		px, url, _ := startProxy(b)
		comparePairs(b, 2, connect(newPool(b, url, signedBy(px))), connect(plainPool(b, px, url, 4)))
	})
}

// BenchmarkTx: retry.Tx beside pgx.BeginFunc, on the same pool, for a transaction of one
// statement.
func BenchmarkTx(b *testing.B) {
	pool := newPool(b, database(b, shared), proxy.WithMaxConns(4))
	ctx := context.Background()
	work := func(tx pgx.Tx) error {
		var n int
		return tx.QueryRow(ctx, "select $1::int", 42).Scan(&n)
	}
	comparePairs(b, 20,
		func() error { return retry.Tx(ctx, pool, work) },
		func() error { return pgx.BeginFunc(ctx, pool, work) })
}

// BenchmarkSettle: what settling adds to a transaction of one update, beside the same retry.Tx
// without it. Round trips are in TestRoundTripsOfSettling.
func BenchmarkSettle(b *testing.B) {
	pool := newPool(b, database(b, shared), proxy.WithMaxConns(4))
	ctx := context.Background()
	if _, err := pool.Exec(ctx, "create table counter (n int); insert into counter values (0)"); err != nil {
		b.Fatal(err)
	}
	work := func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "update counter set n = n + 1")
		return err
	}
	bare := func() error { return retry.Tx(ctx, pool, work) }
	b.Run("xid", func(b *testing.B) {
		comparePairs(b, 20, func() error { return retry.Tx(ctx, pool, work, retry.SettleCommits()) }, bare)
	})
	b.Run("ledger", func(b *testing.B) {
		l := ledger(b, pool)
		comparePairs(b, 20, func() error { return retry.Tx(ctx, pool, work, retry.SettleIn(l)) }, bare)
	})
}
