package integration

import (
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

func BenchmarkProxytest(b *testing.B) {
	for _, conns := range []int32{1, 32} {
		for _, through := range []bool{false, true} {
			b.Run(fmt.Sprintf("conns=%d/proxy=%t", conns, through), func(b *testing.B) {
				var pool *pgxpool.Pool
				if through {
					px := proxytest.NewProxy(b, backend(b), proxytest.WithMaxConnections(int(conns)))
					pool = pxPool(b, px, func(c *pgxpool.Config) { c.MaxConns = conns })
				} else {
					cfg, err := pgxpool.ParseConfig(backend(b))
					if err != nil {
						b.Fatal(err)
					}
					cfg.MaxConns = conns
					if pool, err = pgxpool.NewWithConfig(b.Context(), cfg); err != nil {
						b.Fatal(err)
					}
					defer pool.Close()
				}
				b.SetParallelism(int(conns) / 2)
				if conns == 1 {
					for b.Loop() {
						var n int
						if err := pool.QueryRow(b.Context(), "select 1").Scan(&n); err != nil {
							b.Fatal(err)
						}
					}
					return
				}
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						var n int
						if err := pool.QueryRow(b.Context(), "select 1").Scan(&n); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}

func BenchmarkProxytestRows(b *testing.B) {
	for _, through := range []bool{false, true} {
		b.Run(fmt.Sprintf("proxy=%t", through), func(b *testing.B) {
			cfg, err := pgxpool.ParseConfig(backend(b))
			if through {
				cfg = proxyConfig(b, proxytest.NewProxy(b, backend(b)))
			}
			if err != nil {
				b.Fatal(err)
			}
			pool, err := pgxpool.NewWithConfig(b.Context(), cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer pool.Close()
			for b.Loop() {
				rows, err := pool.Query(b.Context(), "select n, repeat('x', 100) from generate_series(1, 100000) n")
				if err != nil {
					b.Fatal(err)
				}
				n := 0
				for rows.Next() {
					n += len(rows.RawValues()[1])
				}
				if rows.Err() != nil || n != 10_000_000 {
					b.Fatal(n, rows.Err())
				}
				b.SetBytes(int64(n))
			}
		})
	}
}
