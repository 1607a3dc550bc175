package proxy_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/secrets"
)

// What will not get better by waiting fails at the first attempt, and says what to do.

func TestCertificatesThatDoNotVerifyFailAtOnce(t *testing.T) {
	t.Parallel()
	s := newScripted(t, login)
	dsn := func(host string) string {
		return "postgres://app:" + password + "@" + host + ":" + s.port() + "/orders"
	}
	lookup := proxy.WithLookup(loopback)
	for name, tt := range map[string]struct {
		dsn  string
		opts []proxy.Option
		want string
	}{
		"proxy, unknown authority":   {dsn(proxyHost), []proxy.Option{lookup}, "Amazon Trust Services"},
		"cluster, unknown authority": {dsn(clusterHost), []proxy.Option{lookup}, "sslrootcert=global-bundle.pem"},
		"other, unknown authority":   {dsn("127.0.0.1") + "?sslmode=verify-full", nil, "sslrootcert=FILE"},
		"custom name":                {dsn("db.example.com"), []proxy.Option{lookup, trusted(t)}, "by its RDS name"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			_, err := proxy.Connect(t.Context(), tt.dsn, tt.opts...)
			var certErr *tls.CertificateVerificationError
			var connectErr *proxy.ConnectError
			if !errors.Is(err, proxy.ErrCertificate) || !errors.As(err, &certErr) || !errors.As(err, &connectErr) || connectErr.Attempts != 1 {
				t.Fatalf("got %v", err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v does not say %q", err, tt.want)
			}
			t.Logf("after %s: %v", time.Since(start).Round(time.Millisecond), err)
		})
	}
}

func TestAServerWithoutTLSFailsAtOnce(t *testing.T) {
	t.Parallel()
	s := newScripted(t, func(d *dialogue) {
		if _, err := d.ReceiveStartupMessage(); err == nil { // the SSLRequest
			_, _ = d.conn.Write([]byte{'N'})
		}
	})
	_, err := proxy.Connect(t.Context(), s.dsn()+"?sslmode=verify-full")
	if !errors.Is(err, proxy.ErrTLSRefused) || s.accepted.Load() != 1 || !strings.Contains(err.Error(), "sslmode=disable") {
		t.Errorf("%d attempts: %v", s.accepted.Load(), err)
	}
}

func TestCredentialsThatCannotBeHad(t *testing.T) {
	t.Parallel()
	s := newScripted(t, login)
	iam := "postgres://app@" + proxyHost + ":" + s.port() + "/orders"
	noRole := errors.New("no EC2 IMDS role found")
	provider := proxy.WithAWSConfig(aws.Config{Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{}, noRole
	})})
	_, err := proxy.Connect(t.Context(), iam, provider, trusted(t), proxy.WithLookup(loopback))
	if !errors.Is(err, proxy.ErrCredentials) || !errors.Is(err, noRole) || !strings.Contains(err.Error(), "give the task or function a role") {
		t.Errorf("got %v", err)
	}

	calls := 0
	flaky := secrets.Func(func(context.Context) (secrets.Credentials, error) {
		if calls++; calls < 3 {
			return secrets.Credentials{}, &net.OpError{Op: "read", Err: errors.New("connection reset by peer")}
		}
		return secrets.Credentials{Password: password}, nil
	})
	conn, err := proxy.Connect(t.Context(), "postgres://app@127.0.0.1:"+s.port()+"/orders", proxy.WithCredentials(flaky))
	if err != nil {
		t.Fatalf("a source that fails for a moment: %v", err)
	}
	_ = conn.Close(t.Context())
	if n := s.accepted.Load(); n != 1 {
		t.Errorf("%d connections for logins that had no credentials", n-1)
	}
}

// The roots that come with the package are certificates, and they are the ones that
// sign RDS Proxy's.
func TestAmazonRoots(t *testing.T) {
	t.Parallel()
	for _, subject := range []string{"Amazon Root CA 1", "Amazon Root CA 2", "Amazon Root CA 3", "Amazon Root CA 4", "Starfield Services Root Certificate Authority - G2"} {
		found := false
		for _, cert := range proxy.AmazonRoots(t) {
			found = found || cert.Subject.CommonName == subject && cert.IsCA && cert.CheckSignatureFrom(cert) == nil && time.Until(cert.NotAfter) > 0
		}
		if !found {
			t.Errorf("%s is missing, expired or no root", subject)
		}
	}
}
