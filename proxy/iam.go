package proxy

import (
	"context"
	"fmt"
	"net/url"
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
			return "", &ConfigError{Source: "WithIAM", Problem: "neither the option nor the host " + quote(e.Host) + " nor an AWS configuration names a region", Fix: "pass WithIAM(\"eu-west-1\")"}
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

// explainToken looks into a refused token for the reason, and names it. A token is a
// presigned URL, so everything but the signature can be read. It returns "" if
// password is no token, and never quotes it.
func explainToken(password string, t target, user, region string, now time.Time) string {
	host, query, ok := strings.Cut(password, "?")
	host = strings.TrimSuffix(host, "/")
	if !ok || !isToken(password) {
		return ""
	}
	q, err := url.ParseQuery(query)
	if err != nil {
		return "the token is not a well-formed URL: it may have been cut or percent-encoded twice"
	}
	signed, err := time.Parse("20060102T150405Z", q.Get("X-Amz-Date"))
	if err != nil {
		return "the token has no date"
	}
	scope := strings.Split(q.Get("X-Amz-Credential"), "/")
	const lifetime = 15 * time.Minute
	switch age := now.Sub(signed); {
	case host != t.hostPort():
		return fmt.Sprintf("the token was signed for host %s, and %s was dialled: sign for the host and port of the endpoint itself", host, t.hostPort())
	case q.Get("DBUser") != user:
		return fmt.Sprintf("the token was signed for the user %q, and %q logs in", q.Get("DBUser"), user)
	case age > lifetime:
		return fmt.Sprintf("the token is %s old, and tokens are valid for 15 minutes: sign one for each connect", age.Round(time.Second))
	case len(scope) == 5 && region != "" && scope[2] != region:
		return fmt.Sprintf("the token was signed for the region %s, and the endpoint is in %s", scope[2], region)
	default:
		return fmt.Sprintf("the token names the right host, user and region and was signed at %s by this machine's clock: check that the role that signed it may rds-db:connect as this user, that the clock is right to within 5 minutes, and that the user %s",
			signed.Format(time.RFC3339), userAdvice(t.endpoint.Kind))
	}
}

func userAdvice(k Kind) string {
	if k.IsProxy() {
		return "has a secret registered with the proxy, or rds_iam with end-to-end IAM"
	}
	return "was granted rds_iam"
}
