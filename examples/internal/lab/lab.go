// Package lab is where the examples run: a PostgreSQL of their own, an RDS Proxy in
// front of it, and the environment that a service on AWS would find. An example reads
// DATABASE_URL and is none the wiser.
//
// What is real: PostgreSQL, TLS, IAM tokens and their signatures. What is not: the
// proxy is package proxytest's emulation.
package lab

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/jackc/pgx/v5"

	"github.com/aurorapgx/aurorapgx/internal/pgtest"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

const (
	// User is the application's database user.
	User = "app"
	// Database is its database.
	Database = "app"

	startTimeout = 10 * time.Minute // the first run may have to build an image
)

// Setup says what an example needs.
type Setup struct {
	Admin   string             // SQL for a superuser, in the application's database
	Schema  string             // SQL for the application's user, after Admin
	Standby bool               // a synchronous standby, for a failover
	Proxy   []proxytest.Option // for the RDS Proxy
}

// Lab is what runs. Close ends all of it.
type Lab struct {
	Primary, Standby *pgtest.Server
	Proxy            *proxytest.Proxy

	password string // the application's on the database, which it never sees

	mu     sync.Mutex
	logins []proxytest.Login
}

// Main runs an example until it ends or somebody presses Ctrl-C.
func Main(name string, run func(ctx context.Context, out io.Writer) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Start starts what setup asks for. Where PostgreSQL comes from is told on standard
// error, so that an example's output is its own.
func Start(ctx context.Context, setup Setup) (_ *Lab, err error) {
	starting, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("no PostgreSQL within %s", startTimeout))
	defer cancel()
	l := &Lab{password: rand.Text()}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start the laboratory: %w", err), l.Close())
		}
	}()
	fmt.Fprintln(os.Stderr, "starting PostgreSQL; the first run may have to pull or build an image ...")
	// The setting asks for a server of our own: the one of PGTEST_DSN takes none.
	if l.Primary, err = pgtest.Start(starting, pgtest.WithSetting("max_connections", "100")); err != nil {
		return nil, err
	}
	fmt.Fprintln(os.Stderr, l.Primary.Source())
	if setup.Standby {
		if l.Standby, err = l.Primary.Standby(starting, pgtest.WithSynchronous()); err != nil {
			return nil, err
		}
	}
	if err := l.createDatabase(starting, setup); err != nil {
		return nil, err
	}
	return l, l.startProxy(ctx, setup.Proxy)
}

func (l *Lab) createDatabase(ctx context.Context, setup Setup) error {
	err := Exec(ctx, l.Primary.DSN(),
		"create role "+User+" login password '"+l.password+"'", // rand.Text has nothing to escape
		"create database "+Database+" owner "+User)
	if err != nil {
		return err
	}
	return errors.Join(
		Exec(ctx, l.AdminURL(l.Primary), setup.Admin),
		Exec(ctx, l.DirectURL(l.Primary), setup.Schema))
}

func (l *Lab) startProxy(ctx context.Context, opts []proxytest.Option) (err error) {
	l.Proxy, err = proxytest.Start(context.WithoutCancel(ctx), l.DirectURL(l.Primary), append([]proxytest.Option{
		proxytest.WithAccessKey(aws.Credentials{ // with a session token, as those of a role
			AccessKeyID: "ASIA" + rand.Text()[:16], SecretAccessKey: rand.Text(), SessionToken: rand.Text(),
		}),
		proxytest.WithOnLogin(func(login proxytest.Login) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.logins = append(l.logins, login)
		}),
	}, opts...)...)
	return err
}

// Failover kills the primary and promotes the standby, of which the proxy is told as
// Aurora would tell it. It returns when the proxy serves again.
func (l *Lab) Failover(ctx context.Context, outage time.Duration) error {
	l.Proxy.StartFailover()
	if err := l.Primary.Kill(ctx); err != nil {
		return err
	}
	timer := time.NewTimer(outage)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := l.Standby.Promote(ctx); err != nil {
		return err
	}
	return l.Proxy.FinishFailover(l.DirectURL(l.Standby))
}

// Logins are the connects that the proxy has seen, refused ones included.
func (l *Lab) Logins() []proxytest.Login {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]proxytest.Login(nil), l.logins...)
}

// DirectURL leads the application to a server past the proxy. It stands for a cluster
// endpoint; there is a password in it, because a local PostgreSQL knows no IAM.
func (l *Lab) DirectURL(s *pgtest.Server) string {
	return databaseURL(s, url.UserPassword(User, l.password))
}

// AdminURL leads a superuser there.
func (l *Lab) AdminURL(s *pgtest.Server) string {
	super, err := url.Parse(s.DSN())
	if err != nil {
		return "" // pgtest puts it together with net/url
	}
	return databaseURL(s, super.User)
}

func databaseURL(s *pgtest.Server, user *url.Userinfo) string {
	u := url.URL{
		Scheme: "postgres", User: user, Path: "/" + Database, RawQuery: "sslmode=disable",
		Host: net.JoinHostPort(s.Host(), strconv.Itoa(int(s.Port()))),
	}
	return u.String()
}

// Exec runs statements at a server, past everything.
func Exec(ctx context.Context, url string, statements ...string) (err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	for _, sql := range statements {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// Close ends everything and removes it.
func (l *Lab) Close() error {
	var errs []error
	if l.Proxy != nil {
		errs = append(errs, l.Proxy.Close())
	}
	for _, s := range []*pgtest.Server{l.Standby, l.Primary} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// Report says what the proxy saw of an example: what pinned, above all.
func (l *Lab) Report(out io.Writer) error {
	stats := l.Proxy.Stats()
	_, err := fmt.Fprintf(out, "\nat the proxy: %d client connections opened, %d statements, %d pinned sessions\n",
		stats.ClientConnectionsSetupSucceeded, stats.Statements, stats.PinnedSessions)
	for _, pin := range l.Proxy.Pins() {
		_, err = fmt.Fprintf(out, "  pinned by: %s\n", pin.Digest)
	}
	return err
}
