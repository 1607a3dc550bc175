package integration

import (
	"context"
	"net"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

// turns counts round trips: how often something is sent after something was received.
type turns struct {
	net.Conn

	received atomic.Bool
	n        *atomic.Int64
}

func (c *turns) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.received.Store(true)
	return n, err
}

func (c *turns) Write(p []byte) (int, error) {
	if c.received.Swap(false) {
		c.n.Add(1)
	}
	return c.Conn.Write(p)
}

// What settling costs on the wire when nothing is lost: nothing on connections of package
// proxy, and a round trip for the transaction's id on others.
func TestRoundTripsOfSettling(t *testing.T) {
	t.Parallel()
	dsn := database(t, shared)
	var n atomic.Int64
	counting := func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &turns{Conn: conn, n: &n}, nil
	}
	ours := newPool(t, dsn, proxy.WithMaxConns(1), proxy.WithDialer(counting))
	cfg, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	cfg.MaxConns, cfg.ConnConfig.DialFunc = 1, counting
	plain, err := pgxpool.NewWithConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(plain.Close)
	if _, err := ours.Exec(t.Context(), "create table counter (n int); insert into counter values (0)"); err != nil {
		t.Fatal(err)
	}
	l := ledger(t, ours)

	const bare = 3 // BEGIN, the update, COMMIT
	for _, tt := range []struct {
		name string
		pool *pgxpool.Pool
		opts []retry.TxOption
		want int64
	}{
		{"proxy's pool", ours, nil, bare},
		{"proxy's pool, by xid", ours, []retry.TxOption{retry.SettleCommits()}, bare},
		{"proxy's pool, in a ledger", ours, []retry.TxOption{retry.SettleIn(l)}, bare},
		{"pgxpool", plain, nil, bare},
		{"pgxpool, by xid", plain, []retry.TxOption{retry.SettleCommits()}, bare + 1},
		{"pgxpool, in a ledger", plain, []retry.TxOption{retry.SettleIn(l)}, bare},
	} {
		run := func() error {
			return retry.Tx(t.Context(), tt.pool, func(tx pgx.Tx) error {
				_, err := tx.Exec(t.Context(), "update counter set n = n + 1")
				return err
			}, tt.opts...)
		}
		if err := run(); err != nil { // connects
			t.Fatalf("%s: %v", tt.name, err)
		}
		n.Store(0)
		if err := run(); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if got := n.Load(); got != tt.want {
			t.Errorf("%s: %d round trips, want %d", tt.name, got, tt.want)
		}
	}
}
