package aurora_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/aurorapgx/aurorapgx/aurora"
	"github.com/aurorapgx/aurorapgx/proxy"
)

// From the outputs of a deployed stack to what arrives at the proxy: the environment is
// all a service gets, and the pool asks the deployed host, as the deployed user, for the
// deployed database, over TLS that proves the host, with a token for exactly that.
func TestEnvironmentIsAllAPoolNeeds(t *testing.T) {
	t.Parallel()
	spec := aurora.EarlyProduction()
	spec.Name, spec.Database = "orders", "orders"
	h, _, _ := deployedHandoff(t, spec)
	for _, test := range []struct{ user, variable, host string }{
		{"app", "DATABASE_URL", "orders.proxy-c1a2b3d4e5f6.eu-west-1.rds.amazonaws.com"},
		{"migrate", "DATABASE_URL", "orders.proxy-c1a2b3d4e5f6.eu-west-1.rds.amazonaws.com"},
		{"app", "DATABASE_READER_URL", "orders-read-only.endpoint.proxy-c1a2b3d4e5f6.eu-west-1.rds.amazonaws.com"},
	} {
		t.Run(test.user+" "+test.variable, func(t *testing.T) {
			t.Parallel()
			env, err := h.Env(test.user)
			if err != nil {
				t.Fatal(err)
			}
			server := newLogin(t, test.host)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			pool, err := proxy.NewPool(ctx, env[test.variable], server.options()...)
			if err != nil {
				t.Fatal(err)
			}
			defer pool.Close()
			cfg := pool.Config().ConnConfig
			if cfg.Host != test.host || cfg.Port != 5432 || cfg.User != test.user || cfg.Database != "orders" {
				t.Errorf("the pool goes to %s:%d/%s as %s", cfg.Host, cfg.Port, cfg.Database, cfg.User)
			}
			conn, err := pool.Acquire(ctx)
			if err != nil {
				t.Fatal(err)
			}
			conn.Release()
			got := <-server.seen
			token, err := url.Parse("https://" + got.password)
			if err != nil {
				t.Fatal(err)
			}
			scope := strings.Split(token.Query().Get("X-Amz-Credential"), "/")
			if got.serverName != test.host || got.parameters["user"] != test.user || got.parameters["database"] != "orders" ||
				token.Host != test.host+":5432" || token.Query().Get("DBUser") != test.user || len(scope) < 4 || scope[2] != h.Region || scope[3] != "rds-db" {
				t.Errorf("seen at the proxy: %+v, scope %v", got, scope)
			}
		})
	}
}

// The certificate must be the deployed host's: another one of the same authority is
// refused before a token is sent.
func TestPoolOfAHandoffVerifiesTheHost(t *testing.T) {
	t.Parallel()
	h, _, _ := deployedHandoff(t, aurora.EarlyProduction())
	env, err := h.Env("")
	if err != nil {
		t.Fatal(err)
	}
	server := newLogin(t, "other.proxy-c1a2b3d4e5f6.eu-west-1.rds.amazonaws.com")
	pool, err := proxy.NewPool(t.Context(), env["DATABASE_URL"], server.options()...)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if err := pool.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("connected to another host: %v", err)
	}
}

// login is a server that lets in whoever logs in over TLS, and says what it saw.
type login struct {
	listener net.Listener
	rootCA   []byte
	seen     chan loginSeen
}

type loginSeen struct {
	serverName string
	parameters map[string]string
	password   string
}

func (l *login) options() []proxy.Option {
	return []proxy.Option{
		proxy.WithRootCAs(l.rootCA),
		proxy.WithLookup(func(context.Context, string) ([]string, error) { return []string{"192.0.2.1"}, nil }),
		proxy.WithDialer(func(ctx context.Context, _, addr string) (net.Conn, error) {
			if addr != "192.0.2.1:5432" {
				return nil, errors.New("nothing at " + addr)
			}
			return new(net.Dialer).DialContext(ctx, "tcp", l.listener.Addr().String())
		}),
		proxy.WithAWSConfig(aws.Config{Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", "")}),
	}
}

func newLogin(t *testing.T, host string) *login {
	t.Helper()
	cert, root := certificate(t, host)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &login{listener, root, make(chan loginSeen, 1)}
	done := make(chan struct{})
	t.Cleanup(func() { _ = listener.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			l.serve(conn, cert)
			_ = conn.Close()
		}
	}()
	return l
}

// serve goes as far as ReadyForQuery and then waits for the client to leave.
func (l *login) serve(raw net.Conn, cert tls.Certificate) {
	_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := pgproto3.NewBackend(raw, raw).ReceiveStartupMessage(); err != nil { // SSLRequest
		return
	}
	if _, err := raw.Write([]byte{'S'}); err != nil {
		return
	}
	conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12})
	backend := pgproto3.NewBackend(conn, conn)
	startup, err := backend.ReceiveStartupMessage()
	if err != nil {
		return
	}
	message, ok := startup.(*pgproto3.StartupMessage)
	if !ok {
		return
	}
	backend.Send(&pgproto3.AuthenticationCleartextPassword{})
	if backend.Flush() != nil || backend.SetAuthType(pgproto3.AuthTypeCleartextPassword) != nil {
		return
	}
	answer, err := backend.Receive()
	password, ok := answer.(*pgproto3.PasswordMessage)
	if err != nil || !ok {
		return
	}
	l.seen <- loginSeen{serverName: conn.ConnectionState().ServerName, parameters: message.Parameters, password: password.Password}
	backend.Send(&pgproto3.AuthenticationOk{})
	backend.Send(&pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"})
	backend.Send(&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"})
	backend.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if backend.Flush() == nil {
		_, _ = backend.Receive()
	}
}

// certificate makes one for host, and the authority that signed it.
func certificate(t *testing.T, host string) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
