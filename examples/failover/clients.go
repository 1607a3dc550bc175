package main

// The three clients. Each is a pool, and a way to get a transaction done over it.

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/rds/auth"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/internal/pgtest/lab"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

// operation is what a transaction may take, connecting included.
const operation = 2 * time.Second

const schema = "create table work (client int not null, id bigint not null)"

// client is a pool and what is around it. perform gets one transaction done, however often it has to
// try, and says of each attempt that failed why.
type client struct {
	name    string
	pool    *pgxpool.Pool
	perform func(ctx context.Context, u unit, failed func(error)) error
}

// unit is the work of one transaction. Rows are not unique, so that work done twice shows.
type unit struct {
	client int
	id     int64
}

func (u unit) in(ctx context.Context, tx pgx.Tx) error {
	// The lock is held until COMMIT has been done or undone, so that whoever waits for it knows
	// which: see happened.
	if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1, $2)", u.client, int32(u.id)); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "insert into work (client, id) values ($1, $2)", u.client, u.id)
	return err
}

// happened is for a COMMIT that was not answered.
func (u unit) happened(ctx context.Context, pool *pgxpool.Pool) (there bool, err error) {
	err = retry.Tx(retry.Idempotent(ctx), pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1, $2)", u.client, int32(u.id)); err != nil {
			return err
		}
		return tx.QueryRow(ctx, "select exists (select from work where client = $1 and id = $2)", u.client, u.id).Scan(&there)
	}, retry.WithPolicy(retry.Failover()))
	return there, err
}

// usualLoop is how people do it: whatever went wrong, pause and try again.
func usualLoop(pool *pgxpool.Pool) func(context.Context, unit, func(error)) error {
	return func(ctx context.Context, u unit, failed func(error)) error {
		const first, most = 100 * time.Millisecond, 2 * time.Second
		for pause := first; ; pause = min(2*pause, most) {
			err := func() error {
				ctx, cancel := context.WithTimeout(ctx, operation)
				defer cancel()
				return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error { return u.in(ctx, tx) })
			}()
			if err == nil {
				return nil
			}
			failed(err)
			if ctx.Err() != nil {
				return err
			}
			if sleep(ctx, pause/2+rand.N(pause)) != nil {
				return err
			}
		}
	}
}

// ourLoop is retry.Tx, with a limit for each transaction, and a look at the database where a
// COMMIT has gone unanswered.
func ourLoop(pool *pgxpool.Pool) func(context.Context, unit, func(error)) error {
	return func(ctx context.Context, u unit, failed func(error)) error {
		return retry.Do(ctx, retry.Failover(), func(ctx context.Context) error {
			err := func() error {
				ctx, cancel := context.WithTimeout(ctx, operation)
				defer cancel()
				policy := retry.Failover()
				policy.OnAttempt = func(_ context.Context, a retry.Attempt) {
					if a.Err != nil && !a.Last {
						failed(a.Err)
					}
				}
				return retry.Tx(ctx, pool, func(tx pgx.Tx) error { return u.in(ctx, tx) }, retry.WithPolicy(policy))
			}()
			if err == nil {
				return nil
			}
			failed(err)
			if !errors.As(err, new(*retry.AmbiguousCommitError)) {
				return err
			}
			there, lookErr := u.happened(ctx, pool)
			switch {
			case lookErr != nil:
				return errors.Join(err, lookErr)
			case there:
				return nil
			default:
				return retry.Mark(err, retry.RolledBack)
			}
		})
	}
}

// directClients connect straight to the cluster. They differ in where they are told to go, and in
// what they do with it.
func (b *bench) directClients(ctx context.Context) ([]*client, error) {
	c := b.cluster
	plain := func(hosts, tuning string) func() (*pgxpool.Pool, error) {
		return func() (*pgxpool.Pool, error) {
			cfg, err := pgxpool.ParseConfig(c.URL(hosts) + "?sslmode=verify-full&sslrootcert=" + c.CAFile() + tuning)
			if err != nil {
				return nil, err
			}
			cfg.MaxConns = b.maxConns()
			cfg.ConnConfig.LookupFunc, cfg.ConnConfig.DialFunc = c.Lookup, c.Dial
			for _, f := range cfg.ConnConfig.Fallbacks {
				if f.TLSConfig != nil {
					f.TLSConfig.ServerName = f.Host
				}
			}
			return pgxpool.NewWithConfig(ctx, cfg)
		}
	}
	instances := make([]string, 0, len(c.Instances()))
	for _, i := range c.Instances() {
		instances = append(instances, i.Host())
	}
	return b.clients(
		plain(c.WriterHost(), ""),
		plain(strings.Join(instances, ","), "&target_session_attrs=read-write&connect_timeout=2&pool_ping_timeout=1s"),
		func() (*pgxpool.Pool, error) {
			return proxy.NewPool(ctx, c.URL(c.WriterHost()), proxy.WithTopology(), proxy.WithMaxConns(b.maxConns()),
				proxy.WithLookup(c.Lookup), proxy.WithDialer(c.Dial), proxy.WithRootCAs(c.CA()))
		})
}

// proxiedClients go through RDS Proxy, with IAM tokens.
func (b *bench) proxiedClients(ctx context.Context) ([]*client, error) {
	px := b.proxy
	key := credentials.StaticCredentialsProvider{Value: px.Credentials()}
	url := px.URL(lab.User, lab.Database)
	plain := func(tuning string) func() (*pgxpool.Pool, error) {
		return func() (*pgxpool.Pool, error) {
			bare, _, _ := strings.Cut(url, "?") // pgx does not know hostaddr
			cfg, err := pgxpool.ParseConfig(bare + "?sslmode=verify-full&sslrootcert=" + px.CAFile() + tuning)
			if err != nil {
				return nil, err
			}
			cfg.MaxConns = b.maxConns()
			cfg.ConnConfig.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"127.0.0.1"}, nil }
			cfg.BeforeConnect = func(ctx context.Context, cc *pgx.ConnConfig) (err error) {
				_, port, _ := net.SplitHostPort(px.Addr())
				cc.Password, err = auth.BuildAuthToken(ctx, net.JoinHostPort(px.Host(), port), px.Region(), cc.User, key)
				return err
			}
			return pgxpool.NewWithConfig(ctx, cfg)
		}
	}
	return b.clients(
		plain(""),
		plain("&target_session_attrs=read-write&connect_timeout=2&pool_ping_timeout=1s"),
		func() (*pgxpool.Pool, error) {
			return proxy.NewPool(ctx, url, proxy.WithMaxConns(b.maxConns()), proxy.WithAWSConfig(aws.Config{Credentials: key}))
		})
}

// names of the clients, as they are shown.
var clientNames = []string{"pgxpool", "pgxpool, read-write hosts", "aurorapgx"}

func (b *bench) clients(pools ...func() (*pgxpool.Pool, error)) ([]*client, error) {
	var list []*client
	for i, open := range pools {
		pool, err := open()
		if err != nil {
			closeAll(list)
			return nil, err
		}
		perform := usualLoop(pool)
		if i == len(pools)-1 {
			perform = ourLoop(pool)
		}
		list = append(list, &client{name: clientNames[i], pool: pool, perform: perform})
	}
	return list, nil
}

func closeAll(clients []*client) {
	for _, c := range clients {
		c.pool.Close()
	}
}

// maxConns leaves nobody waiting for a connection while all is well.
func (b *bench) maxConns() int32 { return int32(b.settings.workers + 2) }
