package proxy

// secret=NAME in a connection string, and hosts and databases that a secret tells.

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/aurorapgx/aurorapgx/observe"
	"github.com/aurorapgx/aurorapgx/secrets"
)

// secretName is what Secrets Manager takes for a name, or an ARN.
// Source: https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_CreateSecret.html
var secretName = regexp.MustCompile(`^[A-Za-z0-9/_+=.@:!-]+$`)

const maxSecretName = 2048

// takeSecret makes a source of the keyword secret, and takes it out of the settings.
func (s settings) takeSecret(o *options) error {
	one, ok := s["secret"]
	if !ok {
		return nil
	}
	delete(s, "secret")
	switch {
	case len(one.value) > maxSecretName, !secretName.MatchString(one.value):
		return badString("secret="+quote(one.value)+" is not a secret's name", "write the name or the ARN of a secret in AWS Secrets Manager, as secret=prod/orders")
	case s.has("password"):
		return bothOf("it has a password and names a secret")
	case o.source != nil:
		return bothOf("it names a secret, and WithCredentials supplies credentials")
	case o.iam:
		return bothOf("it names a secret, and WithIAM signs tokens")
	}
	var more []secrets.ManagerOption
	if o.logger != nil {
		more = append(more, secrets.Logger(o.logger))
	}
	if len(o.observers) > 0 {
		more = append(more, secrets.Observer(observe.All(o.observers...)))
	}
	o.source = secrets.FromManager(newLazyManager(o.awsConfig, s.secretRegion(one.value)), one.value, more...)
	return nil
}

// secretRegion is the region in the secret's ARN, or in the first host's name; "" leaves it
// to the AWS configuration.
func (s settings) secretRegion(secret string) string {
	if parts := strings.Split(secret, ":"); len(parts) > 3 && parts[0] == "arn" {
		return parts[3]
	}
	host, _, _ := strings.Cut(s.get("host"), ",")
	e, err := ParseEndpoint(host)
	if err != nil {
		return ""
	}
	return e.Region
}

// lazyManager is a Secrets Manager client that is made when it is first used, because
// loading the AWS configuration may need the network.
type lazyManager struct {
	load   func(context.Context) (aws.Config, error)
	region string
}

func newLazyManager(cfg *aws.Config, region string) *lazyManager {
	if cfg == nil {
		return &lazyManager{load: defaultAWSConfig(), region: region}
	}
	given := *cfg
	given.Credentials = cacheCredentials(given.Credentials)
	return &lazyManager{load: func(context.Context) (aws.Config, error) { return given, nil }, region: region}
}

// GetSecretValue makes a client for each of the rare requests, and unless the user has
// an HTTP client of his own, a connection: one that is kept has goroutines, which would
// outlive the pool.
func (m *lazyManager) GetSecretValue(ctx context.Context, in *secretsmanager.GetSecretValueInput, opts ...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error) {
	cfg, err := m.load(ctx)
	if err != nil {
		return nil, err
	}
	if m.region != "" {
		cfg.Region = m.region
	}
	if cfg.Region == "" {
		return nil, errors.New("neither the secret's ARN nor the host nor the AWS configuration names a region: set AWS_REGION")
	}
	client, ok := cfg.HTTPClient.(*awshttp.BuildableClient)
	if cfg.HTTPClient == nil {
		client, ok = awshttp.NewBuildableClient(), true
	}
	if ok {
		cfg.HTTPClient = client.WithTransportOptions(func(t *http.Transport) { t.DisableKeepAlives = true })
	}
	return secretsmanager.NewFromConfig(cfg).GetSecretValue(ctx, in, opts...)
}

// placed is a source that also knows where to connect to, as [secrets.Manager] and
// [secrets.File] do.
type placed interface {
	Secret(ctx context.Context) (secrets.Secret, error)
}

const fromSecret = "secret"

// fillFromSecret takes host, port and database from the secret, where the connection
// string has no host or no database. This is the one thing for which opening a pool waits.
func (s settings) fillFromSecret(ctx context.Context, o *options) error {
	source, ok := o.source.(placed)
	if !ok || s.has("host") && s.has("database") {
		return nil
	}
	secret, err := source.Secret(ctx)
	if err != nil {
		return fmt.Errorf("aurorapgx: the connection string names no host or no database, and the secret that could: %w: %w", ErrCredentials, err)
	}
	if !s.has("host") {
		if secret.Host == "" {
			return badString("it names no host, and the secret has none", "write the endpoint into one of the two")
		}
		s["host"] = setting{secret.Host, fromSecret}
		if secret.Port != 0 && !s.has("port") {
			s["port"] = setting{strconv.Itoa(int(secret.Port)), fromSecret}
		}
	}
	if !s.has("database") {
		if secret.Database == "" {
			return badString("it names no database, and the secret has none", "write postgres://host/DATABASE, or the field dbname")
		}
		s["database"] = setting{secret.Database, fromSecret}
	}
	return nil
}
