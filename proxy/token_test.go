package proxy_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/rds/auth"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
	"github.com/aurorapgx/aurorapgx/secrets"
)

// pipes is a network inside the process, so that a whole login runs in virtual time.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 5432} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// options reach px through the pipes, with the access key it knows.
func (p *pipes) options(t *testing.T, px *proxytest.Proxy) []proxy.Option {
	t.Helper()
	return []proxy.Option{
		proxy.WithDialer(p.dial), proxy.WithLookup(loopback),
		proxy.WithAWSConfig(aws.Config{Credentials: credentials.StaticCredentialsProvider{Value: px.Credentials()}}),
	}
}

func TestEachConnectionCarriesAFreshlySignedToken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logins []proxytest.Login
		net := newPipes()
		px := proxytest.NewProxy(t, "", proxytest.WithListener(net), proxytest.WithUser("app", password), proxytest.WithIAMUser("app"),
			proxytest.WithOnLogin(func(l proxytest.Login) { logins = append(logins, l) }))
		pool, err := proxy.NewPool(t.Context(), px.URL("app", "orders"), net.options(t, px)...)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		var want []time.Time
		for range 3 {
			want = append(want, time.Now().Truncate(time.Second)) // tokens are dated to the second
			conn, err := pool.Acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			conn.Hijack().Close(t.Context())
			time.Sleep(15*time.Minute + time.Second)
		}
		if len(logins) != 3 {
			t.Fatalf("%d logins for 3 connections", len(logins))
		}
		tokens := map[string]bool{}
		for i, l := range logins {
			tokens[l.TokenHash] = true
			if l.Err != nil || l.Method != "IAM" || !l.SignedAt.Equal(want[i]) {
				t.Errorf("login %d: %s at %s, want %s: %v", i, l.Method, l.SignedAt, want[i], l.Err)
			}
		}
		if len(tokens) != 3 {
			t.Errorf("%d different tokens in 3 logins", len(tokens))
		}
	})
}

func TestRefusedTokensNameTheLikelyCause(t *testing.T) {
	t.Parallel()
	const endpoint = proxyHost + ":5432"
	// sign makes a token as a service would that does it by hand, and gets it wrong.
	sign := func(host, region, user string, age time.Duration) func(context.Context, aws.Credentials) (string, error) {
		return func(ctx context.Context, key aws.Credentials) (string, error) {
			token, err := auth.BuildAuthToken(ctx, host, region, user, credentials.StaticCredentialsProvider{Value: key})
			time.Sleep(age) // virtual
			return token, err
		}
	}
	tests := []struct {
		name  string
		token func(context.Context, aws.Credentials) (string, error)
		want  string
	}{
		{"expired", sign(endpoint, "eu-west-1", "app", 15*time.Minute+time.Second), "valid for 15 minutes"},
		{"wrong host", sign("other.proxy-0123456789ab.eu-west-1.rds.amazonaws.com:5432", "eu-west-1", "app", 0), "signed for host other.proxy-"},
		{"wrong port", sign(proxyHost+":6432", "eu-west-1", "app", 0), ":6432"},
		{"upper-case host", sign(strings.ToUpper(proxyHost)+":5432", "eu-west-1", "app", 0), "signed for host APP.PROXY"},
		{"wrong user", sign(endpoint, "eu-west-1", "root", 0), `signed for the user "root"`},
		{"wrong region", sign(endpoint, "us-east-1", "app", 0), "region us-east-1"},
		{"tampered", func(ctx context.Context, key aws.Credentials) (string, error) {
			token, err := sign(endpoint, "eu-west-1", "app", 0)(ctx, key)
			head, signature, _ := strings.Cut(token, "X-Amz-Signature=")
			raw, _ := hex.DecodeString(signature)
			raw[0] ^= 1
			return head + "X-Amz-Signature=" + hex.EncodeToString(raw), err
		}, "may rds-db:connect"},
		{"unknown key", func(ctx context.Context, _ aws.Credentials) (string, error) {
			return sign(endpoint, "eu-west-1", "app", 0)(ctx, aws.Credentials{AccessKeyID: "AKIDOTHER", SecretAccessKey: password})
		}, "may rds-db:connect"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				net := newPipes()
				px := proxytest.NewProxy(t, "", proxytest.WithListener(net), proxytest.WithHost(proxyHost), proxytest.WithUser("app", password), proxytest.WithIAMUser("app"))
				src := secrets.Func(func(ctx context.Context) (secrets.Credentials, error) {
					token, err := tt.token(ctx, px.Credentials())
					return secrets.Credentials{Password: token}, err
				})
				opts := append(net.options(t, px), proxy.WithCredentials(src), proxy.WithConnectBudget(2*time.Hour), proxy.WithAttemptTimeout(time.Hour))
				_, err := proxy.Connect(t.Context(), px.URL("app", "orders"), opts...)
				var pgErr *pgconn.PgError
				if !errors.As(err, &pgErr) || pgErr.Code != "28P01" || !errors.Is(err, proxy.ErrCredentialsRejected) {
					t.Fatalf("got %v", err)
				}
				t.Log(err)
				if !strings.Contains(err.Error(), tt.want) {
					t.Errorf("the error does not say %q", tt.want)
				}
				if shown := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(shown, "X-Amz-Signature") || strings.Contains(shown, password) {
					t.Error("the error shows the token")
				}
				if n := px.Stats().ClientConnectionsSetupFailedAuth; n > 2 {
					t.Errorf("%d logins with refused tokens", n)
				}
			})
		})
	}
}

func TestTwentyColdConnectsResolveAWSCredentialsOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		network := newPipes()
		px := proxytest.NewProxy(t, "", proxytest.WithListener(network), proxytest.WithUser("app", password), proxytest.WithIAMUser("app"))
		slow := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			calls.Add(1)
			time.Sleep(300 * time.Millisecond) // as a container's credentials endpoint takes
			return px.Credentials(), nil
		})
		opts := append(network.options(t, px), proxy.WithAWSConfig(aws.Config{Credentials: slow}), proxy.WithMaxConns(20), proxy.WithConnectLimit(20))
		pool, err := proxy.NewPool(t.Context(), px.URL("app", "orders"), opts...)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		var wg sync.WaitGroup
		var all sync.WaitGroup
		all.Add(20)
		for range 20 {
			wg.Go(func() {
				conn, err := pool.Acquire(t.Context())
				all.Done()
				if err != nil {
					t.Error(err)
					return
				}
				all.Wait()
				conn.Release()
			})
		}
		wg.Wait()
		if n := calls.Load(); n != 1 || pool.Stat().TotalConns() != 20 {
			t.Errorf("%d retrievals of AWS credentials for %d connections", n, pool.Stat().TotalConns())
		}
	})
}

// Where the proxy is asked to check more tokens than it can, it has not looked at this one: it is tried
// again after a while, however often, and the AWS credentials behind it are kept.
func TestThrottledTokensAreTriedAgain(t *testing.T) {
	t.Parallel()
	trust := trusted(t) // made outside of virtual time
	for _, code := range []string{"53300", "28000"} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var calls, logins atomic.Int64
				throttled := refuse(code, "The IAM authentication failed because of too many competing requests.")
				network := newPipes()
				serveScripted(t, network, func(d *dialogue) {
					if logins.Add(1) <= 3 {
						throttled(d)
						return
					}
					login(d)
				})
				provider := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
					calls.Add(1)
					return aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: password}, nil
				})
				start := time.Now()
				conn, err := proxy.Connect(t.Context(), "postgres://app@"+proxyHost+"/orders", trust,
					proxy.WithAWSConfig(aws.Config{Credentials: provider}), proxy.WithDialer(network.dial), proxy.WithLookup(loopback))
				if err != nil {
					t.Fatal(err)
				}
				_ = conn.Close(t.Context())
				if n, took := calls.Load(), time.Since(start); n != 1 || took < 1500*time.Millisecond {
					t.Errorf("AWS credentials were had %d times in %s", n, took)
				}
			})
		})
	}
}
