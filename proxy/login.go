package proxy

// As whom a connection logs in, and what happens when the server refuses.
//
// The source is asked once more, at once: a token may have been signed with credentials
// that expired, and a secret may have been rotated. For a source that does not rotate a
// second refusal is final. One that does may be in the middle of a rotation, when the
// database has the new password and the secret does not have it yet: it is asked about
// once a second until the connect's budget ends. The gate sees to it that one connect of
// a pool does that and the others wait, and what the server has refused one connect, no
// other tries. So a rotation costs a pool at most as many refused logins as it may make at
// a time (WithConnectLimit), those that it begins under, then one more after 1 s, 2 s and
// every 4 s, and one question to the source a second.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
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
	rotation *rotation  // nil unless the source rotates
	events   *events
	describe fmt.Stringer // the source, if it has something to say
	// unasked connects fill the pool's minimum. Nobody waits for them, and the pool's
	// Close cannot end them but waits for them, so they make one attempt. pgxpool gives
	// them, and no others, a deadline.
	unasked bool
	once    bool // one attempt, to learn what becomes of it
}

// attempts is what one connect remembers from attempt to attempt.
type attempts struct {
	login   login
	count   int
	last    secrets.Credentials // what the last attempt logged in with
	given   secrets.Credentials // the same, as the source gave them
	asked   uint64              // which question to the source they were the answer to
	after   uint64              // how many refusals the pool knew of when it began
	refused error               // the server's refusal of them, if it refused
	starved int                 // failures to get credentials so far
}

func (a *attempts) credentials(ctx context.Context, t target) (secrets.Credentials, error) {
	rotation := a.login.rotation
	var asked uint64
	if rotation != nil {
		asked = rotation.asked.Add(1)
	}
	listened := a.login.events.on() && !a.login.fixed
	var begun time.Time
	if listened {
		begun = time.Now()
	}
	creds, err := a.login.source(ctx, t, a.login.user)
	if listened {
		a.login.events.fetched(ctx, &t, &a.login, creds, time.Since(begun), err)
	}
	if err != nil && rotation != nil && ctx.Err() != nil {
		if last, refusal := rotation.lastRefusal(); refusal != nil { // of the two, it tells more
			a.count--
			a.last = last
			return creds, &unchangedError{fmt.Errorf("%w: %w", err, refusal)}
		}
	}
	if err != nil {
		return creds, asCredentialsError(err, a.login)
	}
	fromSource := creds
	if creds.User == "" {
		creds.User = a.login.user
	}
	if creds.User == "" {
		return creds, &ConfigError{Source: "WithCredentials", Problem: "the source returned no user name and the connection string has none", Fix: "write postgres://USER@host/database, or return a user"}
	}
	if isToken(creds.Password) && !verifies(t.tls) {
		return creds, &ConfigError{Source: "credentials", Problem: "they are an IAM token, which whoever reads it can use, and the connection to " + quote(t.endpoint.Host) + " does not prove who answers", Fix: "write sslmode=verify-full"}
	}
	switch {
	case rotation != nil:
		rotation.named(creds.User)
		after, refusal := rotation.begin(creds)
		if refusal != nil {
			a.count-- // nobody was asked
			a.last = creds
			return creds, &unchangedError{refusal}
		}
		a.after = after
	case a.refused != nil && creds == a.last:
		a.count--
		return creds, &sameCredentialsError{a.refused}
	}
	a.last, a.given, a.asked = creds, fromSource, asked
	return creds, nil
}

// opened notes on a connection with which credentials it was opened.
func (a *attempts) opened(ctx context.Context, conn *handedConn, t *target) {
	if r := a.login.rotation; r != nil {
		conn.opening = r.opened(ctx, a.last, a.asked, a.after, t)
	}
}

// sameCredentialsError ends a connect whose source has nothing new after a refusal.
type sameCredentialsError struct{ refusal error }

func (e *sameCredentialsError) Error() string { return e.refusal.Error() }
func (e *sameCredentialsError) Unwrap() error { return e.refusal }

// judge diagnoses a failed attempt in the light of those before it.
func (a *attempts) judge(ctx context.Context, err error, t *target) finding {
	if _, ok := errors.AsType[*sameCredentialsError](err); ok {
		f := a.rejectedLogin(diagnose(err, t.endpoint.Kind), err, t)
		f.why, f.verdict = "the source had no other credentials to offer; "+f.why, retry.Permanent
		return f
	}
	if _, ok := errors.AsType[*unchangedError](err); ok {
		return a.rejectedSecret(err, t)
	}
	f := diagnose(err, t.endpoint.Kind)
	switch {
	case f.refused:
		f = a.judgeRefusal(ctx, f, err, t)
	case errors.Is(f.cause, ErrCredentials) && !isTemporary(err): // a throttled Secrets Manager gets the whole budget
		if a.starved++; a.starved >= 3 {
			f.verdict = retry.Permanent
		}
	}
	return f
}

func (a *attempts) judgeRefusal(ctx context.Context, f finding, err error, t *target) finding {
	if r := a.login.rotation; r != nil {
		r.refuse(a.last, err)
		f = a.rejectedSecret(err, t)
	} else {
		f = a.rejectedLogin(f, err, t)
		if a.refused != nil || a.login.fixed {
			f.verdict = retry.Permanent
		}
	}
	a.refused = err
	f.slow = a.login.iam != nil // tokens are dated to the second: one signed at once would be the same
	if a.login.rejected != nil {
		a.login.rejected(ctx, a.given)
	}
	return f
}

// rejectedSecret says what may be behind a refusal of what a rotating source has.
func (a *attempts) rejectedSecret(err error, t *target) finding {
	source, advice := "the source", "user name or password in it are not the database's"
	if isNoCredentials(err) {
		if one, other := a.login.rotation.alternates(t.endpoint.Kind); other != "" {
			return alternatingUsers.found("one", quote(one), "other", quote(other))
		}
		advice = "the proxy has no secret for this user: register this one with it"
	}
	if a.login.describe != nil {
		source = a.login.describe.String()
	}
	return secretUnchanged.found("source", source, "advice", advice)
}

// rejectedLogin looks into a refused token for the reason.
func (a *attempts) rejectedLogin(f finding, err error, t *target) finding {
	if f.trouble != passwordRejected {
		return f
	}
	if !isToken(a.last.Password) && strings.Contains(err.Error(), "AM authentication failed") { // IAM or PAM, of which RDS makes use for IAM
		wanted := iamWanted.found()
		wanted.verdict, wanted.refused = f.verdict, f.refused
		return wanted
	}
	region := t.endpoint.Region
	if a.login.iam != nil {
		region, _ = a.login.iam.region(t.endpoint)
	}
	if token := explainToken(a.last.Password, *t, a.last.User, region, time.Now()); token.trouble != noTrouble {
		return token
	}
	return f
}

// newLogin decides where user name and password come from.
func newLogin(cfg *pgconn.Config, o *options, kind Kind) login {
	l := login{user: cfg.User}
	switch {
	case o.source != nil:
		l.source = func(ctx context.Context, _ target, _ string) (secrets.Credentials, error) {
			return o.source.Credentials(ctx)
		}
		l.describe, _ = o.source.(fmt.Stringer)
		if r, ok := o.source.(secrets.Rotating); ok {
			l.rejected = r.Rejected
			l.rotation = &rotation{within: orElse(o.retirement, defaultRetirement), log: o.logger}
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
