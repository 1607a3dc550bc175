package main

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

const checkPassword = "s3cr3t-hunter2"

// The way ends where nothing listens, behind an RDS Proxy's name.
func TestCheckNamesTheCause(t *testing.T) {
	t.Parallel()
	closed := proxytest.NewProxy(t, "", proxytest.WithUser("app", checkPassword))
	url := strings.Replace(closed.URL("app", "orders"), "app@", "app:"+checkPassword+"@", 1)
	_ = closed.Close()
	for _, args := range [][]string{{"check", url}, {"check"}} {
		w := world{terminal: true}
		if len(args) == 1 {
			w.env = map[string]string{"DATABASE_URL": url}
		}
		r := w.run(t, args...)
		if r.code != exitFailed || r.stderr != "" {
			t.Errorf("exit code %d: %s", r.code, r.stderr)
		}
		for _, want := range []string{"✗", "sslrootcert cannot be read", "cause", "fix", "name a PEM file", "case root-certificates"} {
			if !strings.Contains(r.stdout, want) {
				t.Errorf("it does not say %q:\n%s", want, r.stdout)
			}
		}
		if strings.Contains(r.stdout, checkPassword) {
			t.Error("it shows the password")
		}
	}
}

func TestCheckAsJSON(t *testing.T) {
	t.Parallel()
	px := proxytest.NewProxy(t, "", proxytest.WithUser("other", checkPassword), proxytest.WithAccessKey(aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "x"}))
	url := strings.Replace(px.URL("app", "orders"), "app@", "app:"+checkPassword+"@", 1)
	r := run(t, "check", "--json", "--timeout=20s", url)
	got := decode[struct {
		OK                       bool
		Case, Cause, Fix, Error  string
		Steps                    []struct{ Name, Status, Summary string }
		Endpoint, User, Database string
	}](t, r.stdout)
	if r.code != exitFailed || got.OK || got.Case != "proxy-no-secret" || got.Cause == "" || !strings.Contains(got.Fix, "register one") || got.Error == "" || got.User != "app" || got.Database != "orders" {
		t.Errorf("exit code %d: %s", r.code, r.stdout)
	}
	if len(got.Steps) != 11 || got.Steps[7].Name != "login" || got.Steps[7].Status != "failed" || got.Steps[4].Status != "ok" || got.Steps[8].Status != "skipped" {
		t.Errorf("steps %+v", got.Steps)
	}
	if strings.Contains(r.stdout, checkPassword) {
		t.Error("it shows the password")
	}
}

func TestCheckWithoutURL(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"check"}, {"check", "--timeout=0s", "postgres://x"}, {"check", "a", "b"}} {
		if r := run(t, args...); r.code != exitUsage || !strings.Contains(r.stderr, `run "aurorapgx help check"`) {
			t.Errorf("%q: %+v", args, r)
		}
	}
}
