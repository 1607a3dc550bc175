package proxytest

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/rds/auth"
)

// sign makes a token with the AWS SDK, at the time the bubble shows.
func sign(t *testing.T, endpoint, region, user string, key aws.Credentials) string {
	t.Helper()
	token, err := auth.BuildAuthToken(context.Background(), endpoint, region, user, credentials.StaticCredentialsProvider{Value: key})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestTokenVerifier(t *testing.T) {
	t.Parallel()
	const endpoint, region, user = "app.proxy-0123456789ab.eu-west-1.rds.amazonaws.com:5432", "eu-west-1", "app"
	longTerm := aws.Credentials{AccessKeyID: "AKIDEXAMPLE", SecretAccessKey: "secret+/key"}
	session := aws.Credentials{AccessKeyID: "ASIAEXAMPLE", SecretAccessKey: "other", SessionToken: "a/session+token=="}
	with := func(c aws.Credentials, change func(*aws.Credentials)) aws.Credentials { change(&c); return c }
	tests := []struct {
		name     string
		endpoint string
		region   string
		user     string
		signer   aws.Credentials
		key      aws.Credentials
		age      time.Duration
		edit     func(string) string
		want     string // part of the error, "" for none
	}{
		{name: "valid"},
		{name: "valid with session token", signer: session, key: session},
		{name: "almost expired", age: 900 * time.Second},
		{name: "expired", age: 901 * time.Second, want: "expired"},
		{name: "clock ahead within reason", age: -5 * time.Minute},
		{name: "from the future", age: -5*time.Minute - time.Second, want: "in the future"},
		{name: "other host", endpoint: "other.rds.amazonaws.com:5432", want: "signed for"},
		{name: "upper-case host", endpoint: strings.ToUpper(endpoint), want: "signed for"},
		{name: "other port", endpoint: strings.Replace(endpoint, "5432", "5433", 1), want: "signed for"},
		{name: "other user", user: "admin", want: "signed for user"},
		{name: "other region", region: "us-east-1", want: "scope"},
		{name: "other key", signer: with(longTerm, func(c *aws.Credentials) { c.AccessKeyID = "AKIDOTHER" }), want: "unknown access key"},
		{name: "other secret", signer: with(longTerm, func(c *aws.Credentials) { c.SecretAccessKey = "x" }), want: "signature"},
		{name: "session token missing", signer: with(session, func(c *aws.Credentials) { c.SessionToken = "" }), key: session, want: "session token"},
		{name: "session token wrong", signer: with(session, func(c *aws.Credentials) { c.SessionToken = "x" }), key: session, want: "session token"},
		{name: "session token where there is none", signer: with(longTerm, func(c *aws.Credentials) { c.SessionToken = "x" }), want: "session token"},
		{name: "key expired", key: with(longTerm, func(c *aws.Credentials) { c.CanExpire, c.Expires = true, time.Now().AddDate(-90, 0, 0) }), want: "has expired"},
		{name: "tampered signature", edit: func(s string) string { return s[:len(s)-4] + "0000" }, want: "signature"},
		{name: "tampered parameter", edit: func(s string) string { return s + "&extra=1" }, want: "signature"},
		{name: "repeated parameter", edit: func(s string) string { return s + "&DBUser=app" }, want: "more than once"},
		{name: "lives too long", edit: func(s string) string { return strings.Replace(s, "Expires=900", "Expires=901", 1) }, want: "at most"},
		{name: "other action", edit: func(s string) string { return strings.Replace(s, "Action=connect", "Action=drop", 1) }, want: "action"},
		{name: "no signature", edit: func(s string) string { return s[:strings.Index(s, "&X-Amz-Signature")] }, want: "signature"},
		{name: "a password", edit: func(string) string { return "hunter2" }, want: "not an IAM token"},
		{name: "empty", edit: func(string) string { return "" }, want: "not an IAM token"},
		{name: "slash before the query", edit: func(s string) string { return strings.Replace(s, "?", "/?", 1) }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				or := func(s, fallback string) string {
					if s == "" {
						return fallback
					}
					return s
				}
				signer, key := tt.signer, tt.key
				if signer.AccessKeyID == "" {
					signer = longTerm
				}
				if key.AccessKeyID == "" {
					key = longTerm
				}
				token := sign(t, or(tt.endpoint, endpoint), or(tt.region, region), or(tt.user, user), signer)
				if tt.edit != nil {
					token = tt.edit(token)
				}
				v := &tokenVerifier{endpoint: endpoint, region: region, key: key}
				signedAt := time.Now().UTC()
				got, err := v.verify(token, user, signedAt.Add(tt.age))
				switch {
				case tt.want == "" && err != nil:
					t.Errorf("refused: %v", err)
				case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
					t.Errorf("got %v, want an error with %q", err, tt.want)
				case tt.want == "" && !got.Equal(signedAt):
					t.Errorf("signed at %s, want %s", got, signedAt)
				}
				if err != nil && (strings.Contains(err.Error(), key.SecretAccessKey) || strings.Contains(err.Error(), "X-Amz-Signature=")) {
					t.Errorf("the error gives something away: %v", err)
				}
			})
		})
	}
}
