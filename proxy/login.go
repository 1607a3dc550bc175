package proxy

// As whom a connection logs in, and what happens when the server refuses: the source
// is asked once more, because a token may have been signed with credentials that
// expired and a secret may have been rotated, and a second refusal is final.

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aurorapgx/aurorapgx/retry"
	"github.com/aurorapgx/aurorapgx/secrets"
)

// login is as whom to connect: what the pool's BeforeConnect hook left in the
// connection's own configuration, or the configuration's user and the source.
type login struct {
	user     string
	database string
	params   map[string]string
	source   func(ctx context.Context, t target, user string) (secrets.Credentials, error)
	rejected func(ctx context.Context, c secrets.Credentials)
	iam      *iamSigner // nil unless tokens are signed here
	fixed    bool       // the source always returns the same
	// unasked connects fill the pool's minimum. Nobody waits for them, and the pool's
	// Close cannot end them but waits for them, so they make one attempt. pgxpool gives
	// them, and no others, a deadline.
	unasked bool
}

// attempts is what one connect remembers from attempt to attempt.
type attempts struct {
	login   login
	count   int
	last    secrets.Credentials // what the last attempt logged in with
	refused error               // the server's refusal of them, if it refused
	starved int                 // failures to get credentials so far
}

func (a *attempts) credentials(ctx context.Context, t target) (secrets.Credentials, error) {
	creds, err := a.login.source(ctx, t, a.login.user)
	if err != nil {
		return creds, asCredentialsError(err, a.login.iam != nil)
	}
	if creds.User == "" {
		creds.User = a.login.user
	}
	if creds.User == "" {
		return creds, &ConfigError{Source: "WithCredentials", Problem: "the source returned no user name and the connection string has none", Fix: "write postgres://USER@host/database, or return a user"}
	}
	if isToken(creds.Password) && !verifies(t.tls) {
		return creds, &ConfigError{Source: "credentials", Problem: "they are an IAM token, which whoever reads it can use, and the connection to " + quote(t.endpoint.Host) + " does not prove who answers", Fix: "write sslmode=verify-full"}
	}
	if a.refused != nil && creds == a.last {
		a.count-- // nobody was asked
		return creds, &sameCredentialsError{a.refused}
	}
	a.last = creds
	return creds, nil
}

// sameCredentialsError ends a connect whose source has nothing new after a refusal.
type sameCredentialsError struct{ refusal error }

func (e *sameCredentialsError) Error() string { return e.refusal.Error() }
func (e *sameCredentialsError) Unwrap() error { return e.refusal }

// judge diagnoses a failed attempt in the light of those before it.
func (a *attempts) judge(ctx context.Context, err error, t *target) finding {
	if _, ok := errors.AsType[*sameCredentialsError](err); ok {
		return finding{refused: true, cause: ErrCredentialsRejected, verdict: retry.Permanent, hint: "the source had no other credentials to offer; " + a.refusalHint(t)}
	}
	f := diagnose(err, t.endpoint.Kind)
	switch {
	case f.refused:
		if a.refused != nil || a.login.fixed {
			f.verdict = retry.Permanent
		}
		a.refused = err
		f.slow = a.login.iam != nil // tokens are dated to the second: one signed at once would be the same
		if a.login.rejected != nil {
			a.login.rejected(ctx, a.last)
		}
		if f.hint == "" {
			f.hint = a.refusalHint(t)
		}
	case errors.Is(f.cause, ErrCredentials):
		if a.starved++; a.starved >= 3 {
			f.verdict = retry.Permanent
		}
	}
	return f
}

func (a *attempts) refusalHint(t *target) string {
	region := t.endpoint.Region
	if a.login.iam != nil {
		region, _ = a.login.iam.region(t.endpoint)
	}
	if why := explainToken(a.last.Password, *t, a.last.User, region, time.Now()); why != "" {
		return why
	}
	return "user name or password is wrong; after a rotation the source must return the new one"
}

// newLogin decides where user name and password come from.
func newLogin(cfg *pgconn.Config, o *options, kind Kind) login {
	l := login{user: cfg.User}
	switch {
	case o.source != nil:
		l.source = func(ctx context.Context, _ target, _ string) (secrets.Credentials, error) {
			return o.source.Credentials(ctx)
		}
		if r, ok := o.source.(secrets.Rotating); ok {
			l.rejected = r.Rejected
		}
	case o.iam, kind.IsRDS() && cfg.Password == "":
		l.iam = newIAMSigner(o.awsConfig, o.region)
		l.source = l.iam.token
		l.rejected = func(ctx context.Context, _ secrets.Credentials) { l.iam.invalidate(ctx) }
	default:
		l.source, l.fixed = staticLogin(cfg.User, cfg.Password), true
	}
	return l
}

func staticLogin(user, password string) func(context.Context, target, string) (secrets.Credentials, error) {
	return func(context.Context, target, string) (secrets.Credentials, error) {
		return secrets.Credentials{User: user, Password: password}, nil
	}
}

// changedBy is the login that a connection's own configuration asks for, after the
// user's BeforeConnect hook, or in a copy of the pool's configuration that was changed:
// a password that was set is used as it is, and a user, database or parameter as well.
func (l login) changedBy(cc *pgx.ConnConfig, user, password string) login {
	if cc.Password != "" && cc.Password != password || l.fixed && cc.User != user {
		l = login{source: staticLogin(cc.User, cmp.Or(cc.Password, password)), fixed: true}
	}
	l.user, l.database, l.params = cc.User, cc.Database, cc.RuntimeParams
	return l
}
