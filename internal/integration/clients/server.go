package main

// The proxies in front of a real PostgreSQL, and how a client program is run against them.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/rds/auth"
	"github.com/jackc/pgx/v5"

	"github.com/aurorapgx/aurorapgx/internal/pgtest"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

const (
	user     = "app"
	password = "app-Passw0rd"
	rows     = 20_000
)

// testServer has two proxies, as RDS Proxy signs a user in one way or the other.
type testServer struct {
	server     *pgtest.Server
	scram, iam *proxytest.Proxy
	database   string
	token      string
}

func startServer(ctx context.Context) (_ *testServer, err error) {
	s := &testServer{}
	if s.server, err = pgtest.Start(ctx); err != nil {
		return nil, err
	}
	if err := s.fill(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *testServer) fill(ctx context.Context) error {
	dsn, err := s.server.NewDatabase(ctx)
	if err != nil {
		return err
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return err
	}
	s.database = u.Path[1:]
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, fmt.Sprintf("create role %s login password '%s'; alter database %s owner to %[1]s; grant all on schema public to %[1]s",
		user, password, pgx.Identifier{s.database}.Sanitize()))
	if err != nil {
		return err
	}
	u.User = url.UserPassword(user, password)
	// A host name that resolves everywhere: not all of these clients know hostaddr.
	opts := []proxytest.Option{proxytest.WithUser(user, password), proxytest.WithHost("localhost"), proxytest.WithMaxConnections(4)}
	if s.scram, err = proxytest.Start(ctx, u.String(), opts...); err != nil {
		return err
	}
	if s.iam, err = proxytest.Start(ctx, u.String(), append(opts, proxytest.WithIAMUser(user))...); err != nil {
		return err
	}
	s.token, err = auth.BuildAuthToken(ctx, net.JoinHostPort(s.iam.Host(), strconv.Itoa(int(s.iam.Port()))), s.iam.Region(), user,
		credentials.StaticCredentialsProvider{Value: s.iam.Credentials()})
	return err
}

func (s *testServer) close() (err error) {
	for _, px := range []*proxytest.Proxy{s.scram, s.iam} {
		if px != nil {
			err = errors.Join(err, px.Close())
		}
	}
	return errors.Join(err, s.server.Close())
}

// check runs a client and says what is wrong with what it did.
func (s *testServer) check(ctx context.Context, c client, check string, args []string) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	px, secret := s.scram, password
	if check == "iam" || c.iamOnly {
		px, secret = s.iam, s.token
	}
	before := px.Stats()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = append(cleanEnv(), "PGHOST="+px.Host(), "PGPORT="+strconv.Itoa(int(px.Port())), "PGUSER="+user, "PGPASSWORD="+secret,
		"PGDATABASE="+s.database, "PGSSLMODE=verify-full", "PGSSLROOTCERT="+px.CAFile(), "CHECK="+check, "ROWS="+strconv.Itoa(rows), nodePath())
	if stdin := c.input(check); stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	if want := c.wants(check); !strings.Contains(string(out), want) {
		return fmt.Errorf("%q is not in what it said:\n%s", want, out)
	}
	after := px.Stats()
	switch {
	case after.ClientConnectionsSetupSucceeded == before.ClientConnectionsSetupSucceeded:
		return errors.New("it was not the proxy that it spoke to")
	case check == "cancel" && after.CancelRequests == before.CancelRequests:
		return errors.New("no CancelRequest came")
	}
	return s.settled(ctx, px)
}

// settled waits until the database connections are given back.
func (*testServer) settled(ctx context.Context, px *proxytest.Proxy) error {
	for px.Stats().DatabaseConnectionsCurrentlyBorrowed > 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("a database connection is still borrowed: %+v", px.Stats())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// nodePath lets a Node that is not Debian's find Debian's modules, after those that it is told of.
func nodePath() string {
	return "NODE_PATH=" + strings.TrimPrefix(os.Getenv("NODE_PATH")+":/usr/share/nodejs:/usr/lib/nodejs", ":")
}

// cleanEnv is the environment without libpq's variables.
func cleanEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PG") })
}
