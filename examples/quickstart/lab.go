package main

// This file is where the application runs: PostgreSQL, its standby and RDS Proxy, and
// an environment like that of a service on ECS.

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/jackc/pgx/v5"

	"github.com/aurorapgx/aurorapgx/internal/pgtest"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

const (
	appUser     = "app"
	appDatabase = "bank"

	// backends is how many database connections the proxy has: fewer than the pool has
	// client connections, or there would be nothing to multiplex.
	backends = 4
)

type lab struct {
	primary, standby *pgtest.Server
	proxy            *proxytest.Proxy
	listener         *lateListener
	password         string // the application's on the database; the application never sees it

	mu     sync.Mutex
	logins []proxytest.Login
}

// startLab starts everything but the proxy's listener. The caller closes the lab.
func startLab(ctx context.Context, tl *timeline) (_ *lab, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, labTimeout, fmt.Errorf("no PostgreSQL within %s", labTimeout))
	defer cancel()
	l := &lab{password: rand.Text()}
	defer func() {
		if errors.Is(ctx.Err(), context.Canceled) {
			err = context.Cause(ctx) // by the user, who need not be told what could not be started
		}
		if err != nil {
			err = errors.Join(err, l.close())
		}
	}()
	err = tl.step("PostgreSQL", func() (string, error) {
		// The setting makes it a small server, and one of our own: the server of
		// PGTEST_DSN takes no settings, and is nobody's to kill.
		if l.primary, err = pgtest.Start(ctx, pgtest.WithSetting("max_connections", "50")); err != nil {
			return "", err
		}
		return l.primary.Source(), nil
	})
	if err != nil {
		return l, err
	}
	err = tl.step("standby", func() (string, error) {
		l.standby, err = l.primary.Standby(ctx, pgtest.WithSynchronous())
		return "synchronous: no COMMIT is acknowledged before the standby has it", err
	})
	if err != nil {
		return l, err
	}
	err = tl.step("database", func() (string, error) {
		return fmt.Sprintf("%s, with %d accounts of %d", appDatabase, accounts, openingBalance), l.createBank(ctx)
	})
	if err != nil {
		return l, err
	}
	return l, tl.step("RDS Proxy", func() (string, error) {
		return fmt.Sprintf("%d database connections, IAM only; not listening yet", backends), l.startProxy(ctx)
	})
}

// createBank creates role, database and tables.
func (l *lab) createBank(ctx context.Context) error {
	err := execAt(ctx, l.primary.DSN(),
		"create role "+appUser+" login password '"+l.password+"'", // rand.Text has nothing to escape
		"create database "+appDatabase+" owner "+appUser)
	if err != nil {
		return err
	}
	return execAt(ctx, l.appDSN(l.primary), fmt.Sprintf(schema, openingBalance, accounts))
}

func execAt(ctx context.Context, dsn string, statements ...string) (err error) {
	conn, err := pgx.Connect(ctx, dsn)
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

func (l *lab) startProxy(ctx context.Context) error {
	var err error
	if l.listener, err = newLateListener(); err != nil {
		return err
	}
	// Not ctx, which ends when the lab is set up.
	l.proxy, err = proxytest.Start(context.WithoutCancel(ctx), l.appDSN(l.primary),
		proxytest.WithListener(l.listener),
		proxytest.WithMaxConnections(backends),
		proxytest.WithAccessKey(aws.Credentials{ // with a session token, as those of a role
			AccessKeyID: "ASIA" + rand.Text()[:16], SecretAccessKey: rand.Text(), SessionToken: rand.Text(),
		}),
		proxytest.WithOnLogin(func(login proxytest.Login) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.logins = append(l.logins, login)
		}))
	return err
}

// loginsSoFar are those that the proxy has seen, refused ones included.
func (l *lab) loginsSoFar() []proxytest.Login {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clip(l.logins)
}

// appDSN is how the proxy logs in to a server: with the secret it has for the user.
func (l *lab) appDSN(s *pgtest.Server) string {
	return dsnFor(s, url.UserPassword(appUser, l.password))
}

// adminDSN is the application's database for a superuser, past the proxy.
func (l *lab) adminDSN(s *pgtest.Server) string {
	super, err := url.Parse(s.DSN())
	if err != nil {
		return "" // pgtest puts it together with net/url
	}
	return dsnFor(s, super.User)
}

func dsnFor(s *pgtest.Server, user *url.Userinfo) string {
	u := url.URL{
		Scheme: "postgres", User: user, Path: "/" + appDatabase, RawQuery: "sslmode=disable",
		Host: net.JoinHostPort(s.Host(), strconv.Itoa(int(s.Port()))),
	}
	return u.String()
}

// setEnvironment gives this process the environment of a service: DATABASE_URL, and
// AWS credentials as a task role brings them. What your shell has for AWS and
// PostgreSQL is out of the way until restore is called.
func (l *lab) setEnvironment() (restore func(), err error) {
	before := map[string]string{}
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		isPG := strings.HasPrefix(name, "PG") && !strings.HasPrefix(name, "PGTEST_")
		if isPG || strings.HasPrefix(name, "AWS_") || name == "DATABASE_URL" {
			before[name] = value
		}
	}
	key := l.proxy.Credentials()
	now := map[string]string{
		"DATABASE_URL":          l.proxy.URL(appUser, appDatabase),
		"AWS_ACCESS_KEY_ID":     key.AccessKeyID,
		"AWS_SECRET_ACCESS_KEY": key.SecretAccessKey,
		"AWS_SESSION_TOKEN":     key.SessionToken,
		// Without these, the SDK reads the files in the home directory.
		"AWS_CONFIG_FILE":             os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	}
	if err := replaceEnvironment(before, now); err != nil {
		return nil, errors.Join(err, replaceEnvironment(now, before))
	}
	return func() { _ = replaceEnvironment(now, before) }, nil // the same names as above
}

func replaceEnvironment(old, with map[string]string) error {
	var errs []error
	for name := range old {
		errs = append(errs, os.Unsetenv(name))
	}
	for name, value := range with {
		errs = append(errs, os.Setenv(name, value))
	}
	return errors.Join(errs...)
}

// close ends the proxy and both servers, and removes all of it.
func (l *lab) close() error {
	var errs []error
	if l.proxy != nil {
		errs = append(errs, l.proxy.Close())
	}
	for _, s := range []*pgtest.Server{l.standby, l.primary} {
		if s != nil {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}
