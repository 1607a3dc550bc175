package proxy

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/rds/auth"

	"github.com/aurorapgx/aurorapgx/secrets"
)

// iamSigner signs an IAM token for every connect attempt. Tokens are not cached:
// signing is local and takes microseconds, while a cached token can outlive the
// credentials that signed it. What is cached, by the SDK, are those credentials.
type iamSigner struct {
	region func(Endpoint) (string, error)
	load   func(context.Context) (aws.CredentialsProvider, error)
}

// newIAMSigner takes credentials from cfg, or from the SDK's default chain when the
// first token is needed.
func newIAMSigner(cfg *aws.Config, region string) *iamSigner {
	s := &iamSigner{}
	s.region = func(e Endpoint) (string, error) {
		switch {
		case region != "":
			return region, nil
		case e.Region != "":
			return e.Region, nil
		case cfg != nil && cfg.Region != "":
			return cfg.Region, nil
		default:
			return "", &ConfigError{Source: "WithIAM", Problem: "neither the option nor the host " + quote(e.Host) + " nor an AWS configuration names a region", Fix: "pass WithIAM(\"eu-west-1\")", trouble: iamRegion}
		}
	}
	if cfg != nil {
		cached := cacheCredentials(cfg.Credentials)
		s.load = func(context.Context) (aws.CredentialsProvider, error) { return cached, nil }
		return s
	}
	load := defaultAWSConfig()
	s.load = func(ctx context.Context) (aws.CredentialsProvider, error) {
		def, err := load(ctx)
		return def.Credentials, err
	}
	return s
}

// defaultAWSConfig loads the SDK's default configuration when it is first needed.
func defaultAWSConfig() func(context.Context) (aws.Config, error) {
	var loaded *aws.Config
	turn := make(chan struct{}, 1) // a mutex whose wait ends with the context
	return func(ctx context.Context) (aws.Config, error) {
		select {
		case turn <- struct{}{}:
		case <-ctx.Done():
			return aws.Config{}, context.Cause(ctx)
		}
		defer func() { <-turn }()
		if loaded != nil {
			return *loaded, nil
		}
		cfg, err := config.LoadDefaultConfig(ctx)
		if err != nil {
			return aws.Config{}, fmt.Errorf("loading the AWS configuration: %w", err)
		}
		cfg.Credentials = cacheCredentials(cfg.Credentials)
		loaded = &cfg
		return cfg, nil
	}
}

// cacheCredentials makes concurrent connects share one retrieval.
func cacheCredentials(p aws.CredentialsProvider) aws.CredentialsProvider {
	if _, ok := p.(*aws.CredentialsCache); ok {
		return p
	}
	return aws.NewCredentialsCache(p)
}

// token signs for exactly the host and port that are dialled, in lower case: AWS
// signs and compares the host verbatim.
// Source: https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/UsingWithRDS.IAMDBAuth.Connecting.html
func (s *iamSigner) token(ctx context.Context, t target, user string) (secrets.Credentials, error) {
	region, err := s.region(t.endpoint)
	if err != nil {
		return secrets.Credentials{}, err
	}
	provider, err := s.load(ctx)
	if err != nil {
		return secrets.Credentials{}, err
	}
	token, err := auth.BuildAuthToken(ctx, t.hostPort(), region, user, provider)
	if err != nil {
		return secrets.Credentials{}, fmt.Errorf("AWS credentials: %w", err)
	}
	return secrets.Credentials{User: user, Password: token}, nil
}

// invalidate drops the cached AWS credentials after a token they signed was refused.
func (s *iamSigner) invalidate(ctx context.Context) {
	provider, err := s.load(ctx)
	if err != nil {
		return
	}
	if cache, ok := provider.(*aws.CredentialsCache); ok {
		cache.Invalidate()
	}
}

// isToken recognizes an IAM token in a password.
func isToken(password string) bool { return strings.Contains(password, "X-Amz-Signature=") }

// tokenLifetime is how long a token can be used.
// Source: https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/UsingWithRDS.IAMDBAuth.html
const tokenLifetime = 15 * time.Minute

// claims are what a token says, without its signature: a token is a presigned URL, so
// that everything but the signature can be read.
type claims struct {
	host, user, region, key string
	signed                  time.Time
	malformed, undated      bool
}

// readToken takes a token apart. It reports false if password is none.
func readToken(password string) (claims, bool) {
	host, query, ok := strings.Cut(password, "?")
	if !ok || !isToken(password) {
		return claims{}, false
	}
	q, err := url.ParseQuery(query)
	if err != nil {
		return claims{malformed: true}, true
	}
	c := claims{host: strings.TrimSuffix(host, "/"), user: q.Get("DBUser")}
	if scope := strings.Split(q.Get("X-Amz-Credential"), "/"); len(scope) == 5 {
		c.key, c.region = scope[0], scope[2]
	}
	c.signed, err = time.Parse("20060102T150405Z", q.Get("X-Amz-Date"))
	c.undated = err != nil
	return c, true
}

// explainToken looks into a refused token for the reason. It finds no trouble if
// password is no token, and never quotes it.
func explainToken(password string, t target, user, region string, now time.Time) finding {
	c, ok := readToken(password)
	age := now.Sub(c.signed)
	switch {
	case !ok:
		return finding{}
	case c.malformed:
		return tokenMalformed.found()
	case c.undated:
		return tokenUndated.found()
	case c.host != t.hostPort():
		return tokenHost.found("signed", c.host, "dialled", t.hostPort())
	case c.user != user:
		return tokenUser.found("signed", strconv.Quote(c.user), "user", strconv.Quote(user))
	case age > tokenLifetime:
		return tokenExpired.found("age", age.Round(time.Second).String())
	case age < -tokenSkew:
		return tokenEarly.found("ahead", (-age).Round(time.Second).String())
	case c.region != "" && region != "" && c.region != region:
		return tokenRegion.found("signed", c.region, "region", region)
	case t.endpoint.Kind.IsProxy():
		return tokenRejectedByProxy.found("signed", c.signed.Format(time.RFC3339))
	default:
		return tokenRejected.found("signed", c.signed.Format(time.RFC3339))
	}
}

// tokenSkew is by how much the clock of who signs may be ahead.
const tokenSkew = 5 * time.Minute
