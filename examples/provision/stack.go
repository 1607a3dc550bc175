package main

// Instead of AWS: the stack's outputs, and what stands where they lead to.

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/jackc/pgx/v5"

	"github.com/aurorapgx/aurorapgx/aurora"
	"github.com/aurorapgx/aurorapgx/internal/pgtest"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

// attributes are what AWS would fill in for the resources that the template's outputs refer to.
var attributes = map[string]string{
	"AWS::Region":                        "eu-west-1",
	"Cluster.DBClusterArn":               "arn:aws:rds:eu-west-1:111122223333:cluster:orders",
	"Cluster.Endpoint.Address":           "orders.cluster-0123456789ab.eu-west-1.rds.amazonaws.com",
	"Cluster.DBClusterResourceId":        "cluster-0123456789ABCDEFGHIJKLMNOP",
	"Cluster.MasterUserSecret.SecretArn": "arn:aws:secretsmanager:eu-west-1:111122223333:secret:rds!cluster-0123",
	"Proxy.Endpoint":                     "orders.proxy-0123456789ab.eu-west-1.rds.amazonaws.com",
	"Proxy.DBProxyArn":                   "arn:aws:rds:eu-west-1:111122223333:db-proxy:prx-0123456789abcdef0",
	"ProxyReaderEndpoint.Endpoint":       "orders-read-only.endpoint.proxy-0123456789ab.eu-west-1.rds.amazonaws.com",
	"ConnectApp":                         "arn:aws:iam::111122223333:policy/orders-ConnectApp",
	"ConnectReport":                      "arn:aws:iam::111122223333:policy/orders-ConnectReport",
	"ConnectMigrate":                     "arn:aws:iam::111122223333:policy/orders-ConnectMigrate",
	"HandoffParameter":                   "/aurora/orders",
}

// localStack is a stack that was deployed here.
type localStack struct {
	outputs  map[string]string
	spec     aurora.Spec
	server   *pgtest.Server
	proxy    *proxytest.Proxy
	cluster  *proxytest.Proxy // what takes IAM tokens in front of the server, which cannot by itself
	password string           // of every role here; on AWS, of none
}

// deploy works out the template's outputs and starts what they lead to. The caller closes the
// stack.
func deploy(ctx context.Context, spec aurora.Spec, template []byte) (_ *localStack, err error) {
	s := &localStack{spec: spec, password: rand.Text()}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.outputs, err = resolveOutputs(template, attributes); err != nil {
		return nil, err
	}
	// The setting makes it a server of our own: the users are roles of the whole server.
	if s.server, err = pgtest.Start(ctx, pgtest.WithSetting("max_connections", "50")); err != nil {
		return nil, err
	}
	if err = s.createCluster(ctx); err != nil {
		return nil, err
	}
	var names, direct []string
	for _, u := range spec.Users {
		names = append(names, u.Name)
		if u.Direct {
			direct = append(direct, u.Name)
		}
	}
	if len(direct) == 0 {
		return nil, errors.New("no user is direct, and this example has one that goes past the proxy")
	}
	s.proxy, err = proxytest.Start(context.WithoutCancel(ctx), s.dsn(names[0], spec.Database),
		proxytest.WithHost(s.outputs["Host"]), proxytest.WithIAMUser(names...))
	if err != nil {
		return nil, err
	}
	s.cluster, err = proxytest.Start(context.WithoutCancel(ctx), s.dsn(direct[0], spec.Database),
		proxytest.WithHost(s.outputs["ClusterHost"]), proxytest.WithIAMUser(direct...), proxytest.WithAccessKey(s.proxy.Credentials()))
	if err != nil {
		return nil, err
	}
	s.outputs["Port"] = strconv.Itoa(int(s.proxy.Port())) // 5432 on AWS, and here whichever was free
	return s, nil
}

// createCluster leaves a server as RDS leaves a cluster: with an administrator who is no
// superuser, a database, and the roles rds_iam and rdsproxyadmin.
func (s *localStack) createCluster(ctx context.Context) error {
	admin := pgx.Identifier{s.spec.MasterUser}.Sanitize()
	return s.asSuperuser(ctx,
		"create role rds_iam", "create role rdsproxyadmin",
		"create role "+admin+" login createrole createdb password '"+s.password+"'", // rand.Text has nothing to escape
		"alter database postgres owner to "+admin,
		"create database "+pgx.Identifier{s.spec.Database}.Sanitize()+" owner "+admin)
}

// setPasswords is what the emulation needs because it does no end-to-end IAM: it takes a token
// from the client, as RDS Proxy does, but logs in to the database with a password.
func (s *localStack) setPasswords(ctx context.Context, users []aurora.User) error {
	var statements []string
	for _, u := range users {
		statements = append(statements, "alter role "+pgx.Identifier{u.Name}.Sanitize()+" password '"+s.password+"'")
	}
	return s.asSuperuser(ctx, statements...)
}

func (s *localStack) asSuperuser(ctx context.Context, statements ...string) (err error) {
	conn, err := pgx.Connect(ctx, s.server.DSN())
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

// adminDSN is how the administrator gets to the cluster; on AWS with the password in the secret
// MasterSecretArn.
func (s *localStack) adminDSN() string { return s.dsn(s.spec.MasterUser, s.spec.Database) }

func (s *localStack) dsn(user, database string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(user, s.password), Path: "/" + database, RawQuery: "sslmode=disable",
		Host: net.JoinHostPort(s.server.Host(), strconv.Itoa(int(s.server.Port()))),
	}
	return u.String()
}

// pastProxy is the URL of a user who may connect to the cluster itself, from its environment. On
// AWS the port is AURORA_PORT; here the cluster has one of its own.
func (s *localStack) pastProxy(env map[string]string) string {
	u := url.URL{
		Scheme: "postgres", User: url.User(env["AURORA_USER"]), Path: "/" + env["AURORA_DATABASE"],
		Host: net.JoinHostPort(env["AURORA_CLUSTER_HOST"], strconv.Itoa(int(s.cluster.Port()))),
	}
	return u.String()
}

// insteadOfVPC is what leads to the proxy and the cluster from here: a resolver that knows the
// endpoints, the certificate authorities of the emulation, and a task role's credentials. On AWS
// all three are there by themselves, but for the cluster's roots (sslrootcert=global-bundle.pem).
func (s *localStack) insteadOfVPC() []proxy.Option {
	ca, _ := os.ReadFile(s.proxy.CAFile()) // without them, the handshake says what is wrong
	clusterCA, _ := os.ReadFile(s.cluster.CAFile())
	return []proxy.Option{
		proxy.WithLookup(func(_ context.Context, host string) ([]string, error) {
			if host != s.proxy.Host() && host != s.cluster.Host() {
				return nil, fmt.Errorf("no such host: %s", host)
			}
			return []string{"127.0.0.1"}, nil
		}),
		proxy.WithRootCAs(append(ca, clusterCA...)),
		proxy.WithAWSConfig(aws.Config{Credentials: credentials.StaticCredentialsProvider{Value: s.proxy.Credentials()}}),
	}
}

func (s *localStack) source() string {
	return s.server.Source() + ", RDS Proxy emulated as " + s.proxy.Host()
}

func (s *localStack) close() error {
	var errs []error
	for _, p := range []*proxytest.Proxy{s.cluster, s.proxy} {
		if p != nil {
			errs = append(errs, p.Close())
		}
	}
	if s.server != nil {
		errs = append(errs, s.server.Close())
	}
	return errors.Join(errs...)
}
