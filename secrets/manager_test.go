package secrets_test

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

	"github.com/aurorapgx/aurorapgx/secrets"
	"github.com/aurorapgx/aurorapgx/secrets/secretstest"
)

const name = "prod/orders"

func secretOf(user, password string) string {
	return fmt.Sprintf(`{"username":%q,"password":%q}`, user, password)
}

// once is the server's client without the SDK's own retries, so that a read is a request.
func once(srv *secretstest.Server) *secretsmanager.Client {
	return secretsmanager.NewFromConfig(srv.Config(), func(o *secretsmanager.Options) { o.Retryer = aws.NopRetryer{} })
}

func get(t *testing.T, src secrets.Source) secrets.Credentials {
	t.Helper()
	c, err := src.Credentials(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAThousandCallersAreOneRequest(t *testing.T) {
	t.Parallel()
	srv := secretstest.NewServer(t)
	arn := srv.Put(name, secretOf("app", password))
	srv.SetLatency(50 * time.Millisecond)
	src := secrets.FromManager(srv.Client(), arn)
	var wg sync.WaitGroup
	begin := make(chan struct{})
	for range 1000 {
		wg.Go(func() {
			<-begin
			if c := get(t, src); c.User != "app" || c.Password != password {
				t.Errorf("got %v", c)
			}
		})
	}
	close(begin)
	wg.Wait()
	if stats := srv.Stats(); stats.Requests != 1 || stats.GetSecretValue != 1 {
		t.Errorf("%+v", stats)
	}
}

func TestTheFirstCallerMayLeave(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := secretstest.NewServer(t, secretstest.InMemory())
		srv.Put(name, secretOf("app", password))
		srv.SetLatency(time.Second)
		src := secrets.FromManager(srv.Client(), name)
		first, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := src.Credentials(first); !errors.Is(err, context.Canceled) {
				t.Errorf("the first: %v", err)
			}
		})
		synctest.Wait()
		for range 99 {
			wg.Go(func() { get(t, src) })
		}
		synctest.Wait()
		cancel()
		wg.Wait()
		if n := srv.Stats().Requests; n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

// A request that nobody waits for any more is given up, so that none outlives a pool.
func TestARequestEndsWithItsLastCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		client := &blockingClient{}
		src := secrets.FromManager(client, name)
		ctx, cancel := context.WithCancel(t.Context())
		for range 10 {
			go func() { _, _ = src.Credentials(ctx) }()
		}
		synctest.Wait()
		if client.calls.Load() != 1 || client.running.Load() != 1 {
			t.Errorf("%d calls, %d running", client.calls.Load(), client.running.Load())
		}
		cancel()
		synctest.Wait()
		if n := client.running.Load(); n != 0 {
			t.Errorf("%d requests still run", n)
		}
	})
}

type blockingClient struct{ calls, running atomic.Int64 }

func (c *blockingClient) GetSecretValue(ctx context.Context, _ *secretsmanager.GetSecretValueInput, _ ...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error) {
	c.calls.Add(1)
	c.running.Add(1)
	defer c.running.Add(-1)
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestFirstReadsThatFailSayWhatToDo(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		fault     secretstest.Fault
		temporary bool
		want      string
	}{
		{secretstest.AccessDenied, false, "allow secretsmanager:GetSecretValue"},
		{secretstest.DecryptionFailed, false, "kms:Decrypt"},
		{secretstest.NotFound, false, "check the name, the region"},
		{secretstest.Scheduled, false, "scheduled for deletion"},
		{secretstest.Throttled, true, "ThrottlingException"},
		{secretstest.InternalError, true, "InternalServiceError"},
		{secretstest.Unavailable, true, "503"},
		{secretstest.Cut, true, "EOF"},
		{secretstest.Garbled, true, "could not be decoded"},
		{secretstest.Silent, true, "does not answer"},
	} {
		t.Run(tt.want, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				srv := secretstest.NewServer(t, secretstest.InMemory())
				srv.Put(name, secretOf("app", password))
				srv.Fail(tt.fault)
				src := secrets.FromManager(once(srv), name)
				start := time.Now()
				_, err := src.Credentials(t.Context())
				e, ok := errors.AsType[*secrets.Error](err)
				if !ok || e.Secret != name || e.Temporary() != tt.temporary || !strings.Contains(err.Error(), tt.want) {
					t.Fatalf("got %v", err)
				}
				if shown := fmt.Sprintf("%v %+v %#v %s", err, err, errors.Unwrap(err), src); strings.Contains(shown, "Passw0rd") {
					t.Errorf("the error quotes the secret: %s", shown)
				}
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("it took %s", took)
				}
				srv.Fail(secretstest.None)
				if n := srv.Stats().Requests; n != 1 {
					t.Errorf("%d requests", n)
				}
				for range 100 { // at once: the same error without asking
					_, _ = src.Credentials(t.Context())
				}
				if n := srv.Stats().Requests; n != 1 {
					t.Errorf("%d requests", n)
				}
				time.Sleep(250 * time.Millisecond)
				get(t, src)
			})
		})
	}
}

// Must hold for an hour without Secrets Manager, and then follow a rotation.
func TestAnHourWithoutSecretsManager(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		srv := secretstest.NewServer(t, secretstest.InMemory())
		srv.Put(name, secretOf("app", password))
		src := secrets.FromManager(once(srv), name, secrets.Logger(slog.New(slog.NewTextHandler(&log, nil))))
		get(t, src)
		srv.Fail(secretstest.Unavailable)
		before := srv.Stats().Requests
		for range 36_000 { // a connect every 100 ms
			if c := get(t, src); c.Password != password {
				t.Fatalf("got %v", c)
			}
			time.Sleep(100 * time.Millisecond)
		}
		asked := srv.Stats().Requests - before
		warnings := strings.Count(log.String(), "level=WARN")
		t.Logf("36,000 connects in an hour without Secrets Manager: %d requests, %d warnings", asked, warnings)
		if asked > 130 || warnings != 1 {
			t.Errorf("%d requests and %d warnings:\n%s", asked, warnings, log.String())
		}

		srv.Fail(secretstest.None)
		srv.Put(name, secretOf("app", "new-"+password))
		back := time.Now()
		for get(t, src).Password == password {
			time.Sleep(100 * time.Millisecond)
		}
		t.Logf("the new value was in use %s after Secrets Manager's return", time.Since(back))
		if took := time.Since(back); took > time.Minute {
			t.Errorf("%s is more than a step of the backoff", took)
		}
		if !strings.Contains(log.String(), "can be read again") || !strings.Contains(log.String(), "has changed") {
			t.Errorf("log:\n%s", log.String())
		}
		if strings.Contains(log.String(), password) {
			t.Error("the log shows the password")
		}
	})
}

// The server refuses: the secret is read again at once, whatever the backoff says, and
// no more than four times a second.
func TestARefusedValueIsReadAgainAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := secretstest.NewServer(t, secretstest.InMemory())
		srv.Put(name, secretOf("app", password))
		src := secrets.FromManager(once(srv), name)
		old := get(t, src)
		time.Sleep(10 * time.Second)
		srv.Put(name, secretOf("app", "new-"+password))
		src.Rejected(t.Context(), old)
		if c := get(t, src); c.Password != "new-"+password {
			t.Errorf("got %v", c)
		}
		src.Rejected(t.Context(), old) // a slower connect reports it too
		get(t, src)
		if n := srv.Stats().Requests; n != 2 {
			t.Errorf("%d requests", n)
		}

		stuck := get(t, src)
		time.Sleep(10 * time.Second)
		srv.Fail(secretstest.Throttled)
		before := srv.Stats().Requests
		for range 1000 { // 10 s
			src.Rejected(t.Context(), stuck)
			if get(t, src) != stuck {
				t.Error("it changed")
			}
			time.Sleep(10 * time.Millisecond)
		}
		if n := srv.Stats().Requests - before; n > 41 {
			t.Errorf("%d requests in 10 s", n)
		}
		if !strings.Contains(src.String(), "ThrottlingException") {
			t.Errorf("%s does not tell", src)
		}
		srv.Fail(secretstest.None)
		srv.Put(name, secretOf("app", "newer-"+password))
		time.Sleep(250 * time.Millisecond)
		if c := get(t, src); c.Password != "newer-"+password {
			t.Errorf("got %v", c)
		}
	})
}

func TestFallbackStages(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		srv := secretstest.NewServer(t, secretstest.InMemory())
		srv.Put(name, secretOf("app", password))
		src := secrets.FromManager(once(srv), name, secrets.FallbackStages("AWSPENDING", "AWSPREVIOUS"))
		plain := secrets.FromManager(once(srv), name)
		old := get(t, src)
		get(t, plain)
		inWindow := func(ctx context.Context, step string) error {
			if step != secretstest.SetSecret {
				return nil
			}
			time.Sleep(time.Second)
			src.Rejected(ctx, old)
			plain.Rejected(ctx, old)
			if c := get(t, plain); c != old {
				t.Errorf("without the option: %v", c)
			}
			pending := get(t, src)
			if pending == old {
				t.Error("AWSPENDING was not tried")
			}
			time.Sleep(time.Second)
			src.Rejected(ctx, pending) // AWSPREVIOUS does not exist yet
			if c := get(t, src); c != old {
				t.Errorf("everything refused: %v", c)
			}
			return nil
		}
		if err := srv.Rotate(t.Context(), name, secretstest.Rotation{After: inWindow}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		current := get(t, src)
		time.Sleep(time.Second)
		src.Rejected(t.Context(), current) // by a proxy that is behind
		if c := get(t, src); c != old {
			t.Errorf("AWSPREVIOUS was not tried: %v, and not %v", c, old)
		}
	})
}

func TestOtherFormsOfSecrets(t *testing.T) {
	t.Parallel()
	srv := secretstest.NewServer(t)
	arn := srv.Put("plain", password)
	srv.Put("keys", `{"login":"app","pw":"correct-horse"}`)
	srv.Put("whole", `{"username":"app","password":"correct-horse","host":"db.example.com","port":"6432","dbname":"orders"}`)
	if c := get(t, secrets.FromManager(srv.Client(), arn[:len(arn)-7], secrets.PlainPassword("app"))); c.User != "app" || c.Password != password {
		t.Errorf("plain: %v", c)
	}
	if c := get(t, secrets.FromManager(srv.Client(), "keys", secrets.Keys("login", "pw"))); c.User != "app" || c.Password != password {
		t.Errorf("keys: %v", c)
	}
	refused := secrets.FromManager(srv.Client(), "whole")
	refused.Rejected(t.Context(), get(t, refused))
	for _, form := range []string{"%v", "%+v", "%#v", "%s"} {
		if shown := fmt.Sprintf(form, refused); strings.Contains(shown, password) || !strings.Contains(shown, "whole") {
			t.Errorf("%s shows the refused password: %s", form, shown)
		}
	}
	s, err := secrets.FromManager(srv.Client(), "whole").Secret(t.Context())
	if err != nil || s.Host != "db.example.com" || s.Port != 6432 || s.Database != "orders" || s.User != "app" {
		t.Errorf("%v: %v", s, err)
	}
	for _, form := range []string{"%v", "%+v", "%#v", "%x", "%s"} {
		if shown := fmt.Sprintf(form, s); strings.Contains(shown, password) || strings.Contains(shown, fmt.Sprintf("%x", password)) {
			t.Errorf("%s shows the password: %s", form, shown)
		}
	}
	_, err = secrets.FromManager(srv.Client(), "whole", secrets.Stage("AWSPENDING")).Secret(t.Context())
	if err == nil || !strings.Contains(err.Error(), "stage") {
		t.Errorf("a stage that is not there: %v", err)
	}
}

func TestManagerOptionsThatCannotWork(t *testing.T) {
	t.Parallel()
	client := &blockingClient{}
	for want, src := range map[string]*secrets.Manager{
		"client is nil":       secrets.FromManager(nil, name),
		"name is empty":       secrets.FromManager(client, ""),
		"5*time.Minute":       secrets.FromManager(client, name, secrets.TTL(5)),
		"stage is empty":      secrets.FromManager(client, name, secrets.Stage("")),
		"two different names": secrets.FromManager(client, name, secrets.Keys("x", "x")),
		"logger is nil":       secrets.FromManager(client, name, secrets.Logger(nil)),
	} {
		_, err := src.Credentials(t.Context())
		if err == nil || src.Validate() == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if client.calls.Load() != 0 {
		t.Error("a misconfigured source asked")
	}
}

// What a service does with a secret in AWS Secrets Manager, here one that runs inside
// the example.
func ExampleFromManager() {
	srv, err := secretstest.Start()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer srv.Close()
	srv.Put("prod/orders", `{"username":"app","password":"correct-horse","host":"app.proxy-abc.eu-west-1.rds.amazonaws.com"}`)

	client := secretsmanager.NewFromConfig(srv.Config()) // in a service: config.LoadDefaultConfig's
	src := secrets.FromManager(client, "prod/orders", secrets.FallbackStages("AWSPENDING"))
	c, err := src.Credentials(context.Background())
	fmt.Println(c, err)
	// Output: {User:app Password:[redacted]} <nil>
}
