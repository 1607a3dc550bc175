package integration

import (
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

var execModes = []pgx.QueryExecMode{
	pgx.QueryExecModeCacheStatement, pgx.QueryExecModeCacheDescribe, pgx.QueryExecModeDescribeExec,
	pgx.QueryExecModeExec, pgx.QueryExecModeSimpleProtocol,
}

func TestProxytestExecModes(t *testing.T) {
	t.Parallel()
	for _, mode := range execModes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			px := proxytest.NewProxy(t, backend(t), proxytest.WithMaxConnections(3))
			pool := pxPool(t, px, func(c *pgxpool.Config) { c.ConnConfig.DefaultQueryExecMode = mode })
			var wg sync.WaitGroup
			for g := range 12 {
				wg.Go(func() {
					for i := range 50 {
						want := g*1000 + i
						var got int
						var text string
						sql := fmt.Sprintf("select $1::int, $2::text /* %d */", i%5)
						err := pool.QueryRow(t.Context(), sql, want, fmt.Sprint("t", want)).Scan(&got, &text)
						if err != nil || got != want || text != fmt.Sprint("t", want) {
							t.Errorf("got %d, %q, %v; want %d", got, text, err, want)
							return
						}
					}
				})
			}
			wg.Wait()
			st := px.Stats()
			t.Logf("%+v", st)
			if st.DatabaseConnections > 3 || st.PinnedSessions != 0 || st.DatabaseConnectionsCurrentlyBorrowed != 0 {
				t.Errorf("stats: %+v", st)
			}
		})
	}
}
