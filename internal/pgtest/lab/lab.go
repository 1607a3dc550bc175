// Package lab runs a cluster that behaves like Aurora's towards its clients: a writer and a
// reader, the names by which AWS lets them be found, and what can go wrong with each.
//
// What is real: both PostgreSQL servers, the replication between them, promotion and
// the way back, TLS, and every byte of the protocol that is not an error of a fault's own. What
// is not: storage is replicated and not shared; the names resolve by [Cluster.Lookup] and
// not by DNS, and lead to addresses that [Cluster.Dial] alone can dial; Aurora's two
// status functions are SQL functions that tell the truth about the pair.
//
//	c, err := lab.Start(ctx)
//	pool, err := proxy.NewPool(ctx, c.URL(c.WriterHost()), proxy.WithLookup(c.Lookup), proxy.WithDialer(c.Dial), proxy.WithRootCAs(c.CA()))
//	c.Writer().Kill(ctx)
//	accepted, err := c.Promote(ctx)
//
// Each instance stands behind a front, a TCP relay that ends TLS as the server itself
// would and that can lose packets, refuse, delay, reset and lie: see [Instance].
package lab

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aurorapgx/aurorapgx/internal/pgtest"
)

// The cluster's names, in the form of AWS's.
const (
	clusterName = "orders"
	clusterID   = "c0ffee0lab"
	domain      = ".eu-west-1.rds.amazonaws.com"

	// Database is the application's database, and User its role.
	Database = "orders"
	User     = "app"
)

// Cluster is a running cluster of two instances. Its methods may be called from any
// goroutine; those that change who is the writer, from one at a time.
type Cluster struct {
	instances []*Instance
	names     *names
	certs     *certificates
	password  string
	dir       string

	mu     sync.Mutex
	writer *Instance
}

// Start starts a cluster: two servers, of which orders-1 is the writer. The caller closes it.
// The replica is synchronous, as Aurora's storage is: what was acknowledged survives the writer.
func Start(ctx context.Context, opts ...pgtest.Option) (_ *Cluster, err error) {
	c := &Cluster{names: newNames(), password: rand.Text()}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if c.certs, err = newCertificates(); err != nil {
		return nil, err
	}
	if c.dir, err = os.MkdirTemp("", "lab-"); err != nil {
		return nil, err
	}
	if err := os.WriteFile(c.CAFile(), c.CA(), 0o600); err != nil {
		return nil, err
	}
	const ids = clusterName + "-1," + clusterName + "-2"
	settings := func(id string) []pgtest.Option {
		return append(slices.Clone(opts), pgtest.WithSetting("lab.instance", id), pgtest.WithSetting("lab.instances", ids))
	}
	first, err := pgtest.Start(ctx, settings(clusterName+"-1")...)
	if err != nil {
		return nil, err
	}
	if err := c.add(clusterName+"-1", first); err != nil {
		return nil, errors.Join(err, first.Close())
	}
	if err := c.prepare(ctx, first); err != nil {
		return nil, err
	}
	second, err := first.Standby(ctx, append(settings(clusterName+"-2"), pgtest.WithSynchronous())...)
	if err != nil {
		return nil, err
	}
	if err := c.add(clusterName+"-2", second); err != nil {
		return nil, errors.Join(err, second.Close())
	}
	c.writer = c.instances[0]
	c.names.point(c.WriterHost(), 0, c.instances[0].addr)
	c.names.point(c.ReaderHost(), 0, c.instances[1].addr)
	return c, nil
}

// add puts a server behind a front, under an instance's name.
func (c *Cluster) add(id string, server *pgtest.Server) error {
	i := &Instance{
		id: id, host: id + "." + clusterID + domain, server: server,
		addr: netip.AddrFrom4([4]byte{10, 0, byte(len(c.instances)), 10}), // a subnet in each zone
	}
	tlsConfig, err := c.certs.server(i.host, c.WriterHost(), c.ReaderHost())
	if err != nil {
		return err
	}
	if i.front, err = newFront(tlsConfig, func() string { return net.JoinHostPort(server.Host(), strconv.Itoa(int(server.Port()))) }); err != nil {
		return err
	}
	c.names.point(i.host, 0, i.addr)
	c.instances = append(c.instances, i)
	return nil
}

// prepare creates the application's role and database, and Aurora's functions.
func (c *Cluster) prepare(ctx context.Context, s *pgtest.Server) error {
	err := exec(ctx, s.DSN(),
		"create role "+User+" login password '"+c.password+"'", // rand.Text has nothing to escape
		"create database "+Database+" owner "+User)
	if err != nil {
		return err
	}
	return exec(ctx, c.adminDSN(s), auroraFunctions)
}

// auroraFunctions are what clients ask an Aurora instance about its cluster. Of
// aurora_replica_status() the columns are those that clients look at; a replica knows who the
// writer is, and believes it until it is promoted.
// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora_replica_status.html
const auroraFunctions = `
create function pg_catalog.aurora_db_instance_identifier() returns text language sql stable as
	$$ select pg_catalog.current_setting('lab.instance') $$;
create function pg_catalog.aurora_replica_status() returns table (
	server_id text, session_id text, last_update_timestamp timestamptz, replica_lag_in_msec double precision, cpu double precision
) language sql stable as $$
	select id,
		case when (id = pg_catalog.current_setting('lab.instance')) <> pg_catalog.pg_is_in_recovery()
			then 'MASTER_SESSION_ID' else pg_catalog.md5(id) end,
		case when id <> pg_catalog.current_setting('lab.instance') then pg_catalog.now() end,
		0, 0
	from pg_catalog.unnest(pg_catalog.string_to_array(pg_catalog.current_setting('lab.instances'), ',')) id
$$;`

// WriterHost is the cluster endpoint.
func (c *Cluster) WriterHost() string { return clusterName + ".cluster-" + clusterID + domain }

// ReaderHost is the reader endpoint.
func (c *Cluster) ReaderHost() string { return clusterName + ".cluster-ro-" + clusterID + domain }

// URL is the application's connection string for one of the cluster's hosts, or several
// separated by commas, with its password. TLS is left to the client's defaults.
func (c *Cluster) URL(host string) string {
	return "postgres://" + User + ":" + c.password + "@" + host + "/" + Database
}

// CA is the certificate of the CA that all instances' certificates are signed by, as PEM.
func (c *Cluster) CA() []byte { return c.certs.pem }

// CAFile is a file with what CA returns.
func (c *Cluster) CAFile() string { return filepath.Join(c.dir, "ca.pem") }

// Instances are both instances.
func (c *Cluster) Instances() []*Instance { return c.instances }

// Writer is the instance that accepts writes, or did before it was lost.
func (c *Cluster) Writer() *Instance {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writer
}

// Reader is the other one.
func (c *Cluster) Reader() *Instance {
	if w := c.Writer(); w == c.instances[0] {
		return c.instances[1]
	}
	return c.instances[0]
}

// SetDNSLag sets how long after a promotion the endpoints' names go on leading to the
// old places. AWS gives the records a TTL of 5 s; caches add to it
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/AuroraPostgreSQL.BestPractices.FastFailover.html).
func (c *Cluster) SetDNSLag(d time.Duration) { c.names.setLag(d) }

// SettleDNS has all names lead to where they should, at once.
func (c *Cluster) SettleDNS() { c.names.settle() }

// AppDSN is the application's connection string for an instance's server past the front, for
// what stands between the application and the cluster, as an RDS Proxy.
func (c *Cluster) AppDSN(i *Instance) string {
	u, err := url.Parse(c.adminDSN(i.server))
	if err != nil {
		return ""
	}
	u.User = url.UserPassword(User, c.password)
	return u.String()
}

// Lookup resolves the cluster's names.
func (c *Cluster) Lookup(ctx context.Context, host string) ([]string, error) {
	return c.names.lookup(ctx, host)
}

// Dial dials the addresses that Lookup returns. Others it dials as they are.
func (c *Cluster) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	for _, i := range c.instances {
		if host == i.addr.String() {
			return i.front.dial(ctx)
		}
		if address == i.front.addr() { // a CancelRequest goes where the connection went
			return i.front.dial(ctx)
		}
	}
	var d net.Dialer
	return d.DialContext(ctx, network, address)
}

// adminDSN is the application's database for a superuser, past the front.
func (c *Cluster) adminDSN(s *pgtest.Server) string {
	u, err := url.Parse(s.DSN())
	if err != nil {
		return s.DSN() // pgtest puts it together with net/url
	}
	u.Path = "/" + Database
	return u.String()
}

// AdminDSN is the application's database on the writer for a superuser, past the front.
func (c *Cluster) AdminDSN() string { return c.adminDSN(c.Writer().server) }

// Close ends servers and fronts.
func (c *Cluster) Close() error {
	var errs []error
	for _, i := range slices.Backward(c.instances) {
		i.front.close()
		errs = append(errs, i.server.Close())
	}
	if c.dir != "" {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}

func exec(ctx context.Context, dsn string, statements ...string) (err error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", strings.SplitN(sql, "\n", 2)[0], err)
		}
	}
	return nil
}
