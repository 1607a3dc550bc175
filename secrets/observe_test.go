package secrets_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aurorapgx/aurorapgx/observe"
	"github.com/aurorapgx/aurorapgx/secrets"
	"github.com/aurorapgx/aurorapgx/secrets/secretstest"
)

type reads struct {
	mu  sync.Mutex
	all []observe.SecretRead
}

func (r *reads) Start(ctx context.Context, _ observe.Operation) context.Context { return ctx }

func (r *reads) Observe(_ context.Context, e observe.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if read, ok := e.(observe.SecretRead); ok {
		r.all = append(r.all, read)
	}
}

// Each read is told once, however many ask, with what came of it and never with the value.
func TestObserverOfASecret(t *testing.T) {
	t.Parallel()
	const name = "prod/orders"
	srv := secretstest.NewServer(t)
	r := &reads{}
	src := secrets.FromManager(srv.Client(), name, secrets.Observer(r))
	if _, err := src.Credentials(t.Context()); err == nil {
		t.Fatal("there is no secret")
	}
	put := func(password string) { srv.Put(name, `{"username": "app", "password": "`+password+`"}`) }
	read := func() secrets.Credentials {
		t.Helper()
		for {
			c, err := src.Credentials(t.Context())
			if err == nil {
				return c
			}
			time.Sleep(5 * time.Millisecond) // it is read at most four times a second
		}
	}
	put("first-Passw0rd")
	first := read()
	var wg sync.WaitGroup
	for range 10 { // from memory
		wg.Go(func() { _, _ = src.Credentials(t.Context()) })
	}
	wg.Wait()
	put("second-Passw0rd")
	src.Rejected(t.Context(), first)
	for read() == first {
		time.Sleep(5 * time.Millisecond)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var got []string
	for _, e := range r.all {
		if text := fmt.Sprintf("%+v", e); strings.Contains(text, "Passw0rd") {
			t.Errorf("a password: %s", text)
		}
		line := fmt.Sprintf("%s %s version=%v changed=%v stale=%v err=%v", e.Secret, e.Stage, e.Version != "", e.Changed, e.Stale, e.Err != nil)
		if len(got) == 0 || got[len(got)-1] != line {
			got = append(got, line)
		}
		if e.Took <= 0 {
			t.Errorf("took %s", e.Took)
		}
	}
	want := []string{
		"prod/orders  version=false changed=false stale=false err=true",
		"prod/orders AWSCURRENT version=true changed=false stale=false err=false",
		"prod/orders AWSCURRENT version=true changed=true stale=false err=false",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("told\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
