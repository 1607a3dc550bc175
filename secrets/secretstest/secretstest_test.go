package secretstest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/smithy-go"

	"github.com/aurorapgx/aurorapgx/secrets/secretstest"
)

func code(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

func get(ctx context.Context, c *secretsmanager.Client, id string) (string, error) {
	out, err := c.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &id})
	if err != nil {
		return "", err
	}
	return *out.SecretString, nil
}

// Requests that are not signed as they should be are refused.
func TestSignatures(t *testing.T) {
	t.Parallel()
	srv := secretstest.NewServer(t)
	srv.Put("x", "value")
	for name, tt := range map[string]struct {
		change func(*aws.Config)
		want   string
	}{
		"right":        {func(*aws.Config) {}, ""},
		"other key":    {func(c *aws.Config) { c.Credentials = credentials.NewStaticCredentialsProvider("AKIAOTHER", "x", "") }, "UnrecognizedClientException"},
		"other region": {func(c *aws.Config) { c.Region = "us-east-1" }, "InvalidSignatureException"},
		"other secret key": {func(c *aws.Config) {
			key, _ := c.Credentials.Retrieve(t.Context())
			c.Credentials = credentials.NewStaticCredentialsProvider(key.AccessKeyID, key.SecretAccessKey+"x", "")
		}, "InvalidSignatureException"},
		"changed body": {func(c *aws.Config) {
			c.HTTPClient = tamper{c.HTTPClient, func(r *http.Request) {
				r.Body = io.NopCloser(strings.NewReader(`{"SecretId":"y"}`))
				r.ContentLength = int64(len(`{"SecretId":"y"}`))
			}}
		}, "InvalidSignatureException"},
		"old date": {func(c *aws.Config) {
			c.HTTPClient = tamper{c.HTTPClient, func(r *http.Request) { r.Header.Set("X-Amz-Date", "20200101T000000Z") }}
		}, "InvalidSignatureException"},
		"no signature": {func(c *aws.Config) {
			c.HTTPClient = tamper{c.HTTPClient, func(r *http.Request) { r.Header.Del("Authorization") }}
		}, "MissingAuthenticationTokenException"},
	} {
		cfg := srv.Config()
		tt.change(&cfg)
		client := secretsmanager.NewFromConfig(cfg, func(o *secretsmanager.Options) { o.Retryer = aws.NopRetryer{} })
		if v, err := get(t.Context(), client, "x"); code(err) != tt.want || (err == nil) != (v == "value") {
			t.Errorf("%s: %q, %v", name, v, err)
		}
	}
	if s := srv.Stats(); s.Requests != 7 || s.Unsigned != 6 || s.GetSecretValue != 1 {
		t.Errorf("%+v", s)
	}
}

type tamper struct {
	next   aws.HTTPClient
	change func(*http.Request)
}

func (c tamper) Do(r *http.Request) (*http.Response, error) {
	c.change(r)
	return c.next.Do(r)
}

// The four steps, seen from outside: the labels after each of them.
func TestRotateMovesTheLabels(t *testing.T) {
	t.Parallel()
	srv := secretstest.NewServer(t)
	arn := srv.Put("x", `{"username":"app","password":"first","host":"db"}`)
	labels := func() string {
		out, err := srv.Client().DescribeSecret(t.Context(), &secretsmanager.DescribeSecretInput{SecretId: &arn})
		if err != nil {
			t.Fatal(err)
		}
		all := map[string]int{}
		for _, stages := range out.VersionIdsToStages {
			for _, stage := range stages {
				all[stage]++
			}
		}
		return fmt.Sprint(all)
	}
	var seen []string
	rotate := func(strategy secretstest.Strategy) {
		t.Helper()
		err := srv.Rotate(t.Context(), arn, secretstest.Rotation{Strategy: strategy, Window: time.Millisecond, After: func(_ context.Context, step string) error {
			seen = append(seen, step+" "+labels())
			return nil
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	rotate(secretstest.SingleUser)
	want := []string{
		"createSecret map[AWSCURRENT:1 AWSPENDING:1]", "setSecret map[AWSCURRENT:1 AWSPENDING:1]",
		"testSecret map[AWSCURRENT:1 AWSPENDING:1]", "finishSecret map[AWSCURRENT:1 AWSPREVIOUS:1]",
	}
	if fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("got %v", seen)
	}
	user, first := srv.Credentials("x")()
	rotate(secretstest.AlternatingUsers)
	clone, second := srv.Credentials("x")()
	rotate(secretstest.AlternatingUsers)
	back, third := srv.Credentials("x")()
	if user != "app" || clone != "app_clone" || back != "app" || first == second || second == third || !strings.Contains(srv.Current("x"), `"host":"db"`) {
		t.Errorf("users %s, %s, %s: %s", user, clone, back, srv.Current("x"))
	}
	err := srv.Rotate(t.Context(), arn, secretstest.Rotation{After: func(context.Context, string) error { return errors.New("timed out") }})
	if err == nil || !strings.Contains(err.Error(), "createSecret: timed out") || labels() != "map[AWSCURRENT:1 AWSPENDING:1 AWSPREVIOUS:1]" {
		t.Errorf("%v, %s", err, labels())
	}
}

func ExampleServer_Rotate() {
	srv, err := secretstest.Start()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer srv.Close()
	srv.Put("prod/orders", `{"username":"app","password":"first"}`)
	err = srv.Rotate(context.Background(), "prod/orders", secretstest.Rotation{
		Strategy: secretstest.AlternatingUsers,
		After: func(_ context.Context, step string) error {
			user, _ := srv.Credentials("prod/orders")()
			fmt.Println(step, user)
			return nil
		},
	})
	fmt.Println(err)
	// Output:
	// createSecret app
	// setSecret app
	// testSecret app
	// finishSecret app_clone
	// <nil>
}
