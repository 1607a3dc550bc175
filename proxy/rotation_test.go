package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/observe"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
	"github.com/aurorapgx/aurorapgx/secrets"
	"github.com/aurorapgx/aurorapgx/secrets/secretstest"
)

// vault is a Secrets Manager, an RDS Proxy and a pool that logs in with a secret, in
// virtual time. The proxy's own knowledge of the secret is what the test says it is.
type vault struct {
	srv    *secretstest.Server
	px     *proxytest.Proxy
	pool   *pgxpool.Pool
	log    *bytes.Buffer
	logins []proxytest.Login
	mu     sync.Mutex
}

const secretID = "prod/orders"

func appSecret(user, password string) string {
	return fmt.Sprintf(`{"username":%q,"password":%q}`, user, password)
}

func newVault(t *testing.T, opts []proxy.Option, more ...proxytest.Option) *vault {
	t.Helper()
	v := &vault{srv: secretstest.NewServer(t, secretstest.InMemory()), log: &bytes.Buffer{}}
	v.srv.Put(secretID, appSecret("app", password))
	net := newPipes()
	v.px = proxytest.NewProxy(t, "", append([]proxytest.Option{
		proxytest.WithListener(net), proxytest.WithUser("app", password),
		proxytest.WithLogger(slog.New(slog.DiscardHandler)),
		proxytest.WithOnLogin(func(l proxytest.Login) {
			v.mu.Lock()
			defer v.mu.Unlock()
			v.logins = append(v.logins, l)
		}),
	}, more...)...)
	src := secrets.FromManager(v.client(), secretID, secrets.Logger(slog.New(slog.NewTextHandler(v.log, nil))))
	all := append([]proxy.Option{proxy.WithCredentials(src)}, net.options(t, v.px)...)
	pool, err := proxy.NewPool(t.Context(), v.px.URL("", "orders"), append(all, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	cfg := pool.Config()
	pool.Close()
	// pgxpool counts a connection's idling from the beginning of its connect, and through a
	// pipe nobody sees without a ping whether it is closed. There is no database to answer.
	cfg.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return false }
	if v.pool, err = pgxpool.NewWithConfig(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.pool.Close)
	return v
}

// client makes one request per read, so that requests can be counted.
func (v *vault) client() *secretsmanager.Client {
	return secretsmanager.NewFromConfig(v.srv.Config(), func(o *secretsmanager.Options) { o.Retryer = aws.NopRetryer{} })
}

// connect opens a connection and leaves the pool without it.
func (v *vault) connect(ctx context.Context) error {
	conn, err := v.pool.Acquire(ctx)
	if err == nil {
		_ = conn.Hijack().Close(ctx)
	}
	return err
}

func (v *vault) mustConnect(t *testing.T) {
	t.Helper()
	if err := v.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// refused counts the logins that were refused.
func (v *vault) refused() (n int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, l := range v.logins {
		if l.Err != nil {
			n++
		}
	}
	return n
}

// The gap of a single-user rotation: 20 connects wait for its end, one of them asks.
func TestConnectsWaitForTheEndOfARotation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &witness{}
		v := newVault(t, []proxy.Option{proxy.WithMaxConns(20), proxy.WithObserver(w)})
		v.mustConnect(t)
		time.Sleep(time.Minute)
		before := v.srv.Stats().GetSecretValue
		var waiting sync.WaitGroup
		window := func(_ context.Context, step string) error {
			if step != secretstest.SetSecret {
				return nil
			}
			v.px.SetUser("app", "not-known-yet") // as a direct endpoint: the database is ahead of the secret
			for range 20 {
				waiting.Go(func() { v.mustConnect(t) })
			}
			return nil
		}
		if err := v.srv.Rotate(t.Context(), secretID, secretstest.Rotation{Window: 5 * time.Second, After: window}); err != nil {
			t.Fatal(err)
		}
		end := time.Now()
		user, pass := v.srv.Credentials(secretID)()
		v.px.SetUser(user, pass)
		waiting.Wait()
		asked := v.srv.Stats().GetSecretValue - before - 1 // the rotation's own
		t.Logf("20 connects were done %s after the end of the rotation: %d requests, %d refused logins", time.Since(end).Round(time.Millisecond), asked, v.refused())
		if took := time.Since(end); took > 2*time.Second {
			t.Errorf("%s is too late", took)
		}
		if asked > 10 || v.refused() > 8 {
			t.Errorf("%d requests, %d refused logins", asked, v.refused())
		}
		if told := w.refusals(); told != v.refused() {
			t.Errorf("the observer was told of %d refused logins, and there were %d", told, v.refused())
		}
	})
}

// refusals counts the logins that were refused, as the pool tells it.
func (w *witness) refusals() (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if a, ok := e.(observe.ConnectAttempt); ok && errors.Is(a.Cause, proxy.ErrCredentialsRejected) {
			n++
		}
	}
	return n
}

// A login that began before the password was changed, and whose success comes in after others
// were refused, does not send the pool into the same refusal again.
func TestALateSuccessDoesNotUndoRefusals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limit = 4
		release := make(chan struct{})
		var held atomic.Bool
		late := proxytest.WithOnLogin(func(proxytest.Login) {
			if !held.Swap(true) {
				<-release
			}
		})
		v := newVault(t, []proxy.Option{proxy.WithMaxConns(20), proxy.WithConnectLimit(limit)}, late)
		var waiting sync.WaitGroup
		waiting.Go(func() { v.mustConnect(t) })
		synctest.Wait() // the proxy has looked at its password
		v.px.SetUser("app", "new-"+password)
		for range 19 {
			waiting.Go(func() { v.mustConnect(t) })
		}
		time.Sleep(100 * time.Millisecond)
		first := v.refused()
		close(release)
		time.Sleep(700 * time.Millisecond)
		if n := v.refused(); first == 0 || n > first {
			t.Errorf("%d refused logins, and %d more when one succeeded that had begun before", first, n-first)
		}
		v.srv.Put(secretID, appSecret("app", "new-"+password))
		waiting.Wait()
		if n := v.refused(); n > limit+1 {
			t.Errorf("%d refused logins", n)
		}
	})
}

// A secret that is simply wrong: the budget passes, the error tells, nothing is stormed.
func TestAWrongSecretIsReportedWhenTheBudgetEnds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := newVault(t, []proxy.Option{proxy.WithMaxConns(20), proxy.WithConnectBudget(30 * time.Second)})
		v.px.SetUser("app", "something-else")
		start := time.Now()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				err := v.connect(t.Context())
				var connectErr *proxy.ConnectError
				if !errors.Is(err, proxy.ErrCredentialsRejected) || !errors.As(err, &connectErr) {
					t.Errorf("got %v", err)
					return
				}
				for _, part := range []string{`secret "prod/orders" (AWSCURRENT, version`, "setSecret and finishSecret", "28P01"} {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("%v does not say %q", err, part)
					}
				}
				if strings.Contains(fmt.Sprintf("%v %+v %#v", err, err, err), password) {
					t.Error("the error shows the password")
				}
			})
		}
		wg.Wait()
		took, asked := time.Since(start), v.srv.Stats().GetSecretValue
		t.Logf("after %s: %d requests, %d refused logins", took.Round(time.Millisecond), asked, v.refused())
		if took < 25*time.Second || took > 32*time.Second {
			t.Errorf("it took %s", took)
		}
		if asked > 40 || v.refused() > 12 {
			t.Errorf("%d requests, %d refused logins", asked, v.refused())
		}

		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		err := v.connect(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, proxy.ErrCredentialsRejected) {
			t.Errorf("with a deadline of the caller's: %v", err)
		}
	})
}

func TestAnHourWithoutSecretsManagerAndThenARotation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := newVault(t, nil)
		v.mustConnect(t)
		v.srv.Fail(secretstest.Throttled)
		before := v.srv.Stats().Requests
		for range 120 {
			v.mustConnect(t)
			time.Sleep(30 * time.Second)
		}
		asked := v.srv.Stats().Requests - before
		warnings := strings.Count(v.log.String(), "level=WARN")
		t.Logf("120 connects in an hour without Secrets Manager: %d requests, %d warnings", asked, warnings)
		if asked > 130 || warnings != 1 || v.refused() != 0 {
			t.Errorf("%d requests, %d warnings, %d refused logins", asked, warnings, v.refused())
		}

		// The password changes while Secrets Manager is still away, for 10 s.
		v.px.SetUser("app", "new-"+password)
		connected := make(chan time.Time)
		go func() {
			v.mustConnect(t)
			connected <- time.Now()
		}()
		time.Sleep(10 * time.Second)
		v.srv.Put(secretID, appSecret("app", "new-"+password))
		v.srv.Fail(secretstest.None)
		back := time.Now()
		took := (<-connected).Sub(back)
		t.Logf("connected %s after Secrets Manager's return, %d refused logins", took.Round(time.Millisecond), v.refused())
		if took > 2*time.Second {
			t.Errorf("%s is more than one step", took)
		}
	})
}

// A proxy that takes a while to see the new version refuses what is right.
func TestAProxyThatIsBehindTheSecret(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := newVault(t, nil)
		v.srv.Put(secretID, appSecret("app", "new-"+password))
		time.AfterFunc(5*time.Second, func() { v.px.SetUser("app", "new-"+password) })
		start := time.Now()
		v.mustConnect(t)
		took := time.Since(start)
		t.Logf("the proxy was 5 s behind: connected after %s, %d refused logins", took.Round(time.Millisecond), v.refused())
		if took > 15*time.Second || v.refused() > 5 {
			t.Errorf("%s, %d refused logins", took, v.refused())
		}
	})
}

func TestAlternatingUsersBehindAProxyAreCalledWhatTheyAre(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		v := newVault(t, []proxy.Option{proxy.WithConnectBudget(10 * time.Second)})
		v.mustConnect(t)
		if err := v.srv.Rotate(t.Context(), secretID, secretstest.Rotation{Strategy: secretstest.AlternatingUsers}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Minute)
		err := v.connect(t.Context())
		if !errors.Is(err, proxy.ErrCredentialsRejected) {
			t.Fatalf("got %v", err)
		}
		t.Log(err)
		for _, part := range []string{
			`no credentials for the role app_clone`, `alternates between the users "app" and "app_clone"`,
			"does not work behind RDS Proxy", "single-user strategy", "IAM", "the cluster's own endpoint",
		} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("the error does not say %q", part)
			}
		}
	})
}

// Sources that do not rotate are asked twice and no more.
func TestRefusalsOfSourcesThatDoNotRotate(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		src  secrets.Source
		want int
	}{
		"static": {secrets.Static("app", "wrong"), 1},
		"func, same": {secrets.Func(func(context.Context) (secrets.Credentials, error) {
			return secrets.Credentials{User: "app", Password: "wrong"}, nil
		}), 1},
		"func, always other": {secrets.Func(func() func(context.Context) (secrets.Credentials, error) {
			n := 0
			return func(context.Context) (secrets.Credentials, error) {
				n++
				return secrets.Credentials{User: "app", Password: fmt.Sprint("wrong", n)}, nil
			}
		}()), 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				net := newPipes()
				px := proxytest.NewProxy(t, "", proxytest.WithListener(net), proxytest.WithUser("app", password))
				start := time.Now()
				_, err := proxy.Connect(t.Context(), px.URL("", "orders"), append(net.options(t, px), proxy.WithCredentials(tt.src))...)
				if !errors.Is(err, proxy.ErrCredentialsRejected) || time.Since(start) > time.Second {
					t.Errorf("after %s: %v", time.Since(start), err)
				}
				if n := px.Stats().ClientConnectionsSetupFailedAuth; n != int64(tt.want) {
					t.Errorf("%d refused logins", n)
				}
			})
		})
	}
}
