package proxytest

// Secrets that rotate. RDS Proxy reads the current version of each secret it was given, and
// nothing else of it; what follows from that, for a rotation with one user and for one that
// alternates between two, was reported by users:
// https://github.com/aws/aws-cdk/issues/25568,
// https://github.com/aws-samples/aws-secrets-manager-rotation-lambdas/issues/108,
// https://github.com/aws/aws-secretsmanager-jdbc/issues/222.

import (
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// WithSecret registers a secret that the proxy reads by itself, as RDS Proxy reads
// AWSCURRENT from Secrets Manager: read returns the user and the password at the moment. It
// is called from now until the proxy is closed, and must return at once. May be given for
// several secrets. package secretstest has such functions.
//
// Between the moment the database has a new password and the moment the secret has it, clients
// sign in with the old one, database connections that exist go on, and new ones fail: see
// [WithStaleSecretReply]. When the secret has it, clients have to sign in with the new one.
//
// If the secret's user changes, the proxy has no credentials for the former one any more: his
// sessions are ended, in the way of [WithFailoverReply], and his logins refused with 28000.
func WithSecret(read func() (user, password string)) Option {
	return func(c *config) {
		user, password := read()
		c.passwords[user] = password
		c.secrets = append(c.secrets, read)
	}
}

// WithSecretRefresh sets how often the proxy reads the secrets of [WithSecret], and so how
// long it may be behind. How long the real one may be is not documented. The default is 50 ms.
func WithSecretRefresh(d time.Duration) Option { return func(c *config) { c.secretRefresh = d } }

// StaleSecretReply says what a client gets whose statement needs a new database connection
// while the database refuses the secret's password.
type StaleSecretReply int

// The answers to a refused secret; see [WithStaleSecretReply].
const (
	StaleSecretFatal StaleSecretReply = iota // FATAL XX000 with the database's error, at once
	StaleSecretWaits                         // tried again until the borrow timeout
)

// WithStaleSecretReply sets what becomes of a statement for which the proxy cannot sign in to
// the database. What RDS Proxy does is not documented. The default is [StaleSecretFatal], as with
// the database's other refusals.
func WithStaleSecretReply(r StaleSecretReply) Option {
	return func(c *config) { c.staleSecret = r }
}

const defaultSecretRefresh = 50 * time.Millisecond

var errStaleSecret = errors.New("the database refuses the secret's password")

// followSecrets reads the secrets again and again.
func (p *Proxy) followSecrets() {
	if len(p.cfg.secrets) == 0 {
		return
	}
	type login struct{ user, password string }
	known := make([]login, len(p.cfg.secrets))
	for i, read := range p.cfg.secrets {
		known[i].user, known[i].password = read()
		p.SetUser(known[i].user, known[i].password)
	}
	refresh := p.cfg.secretRefresh
	if refresh <= 0 {
		refresh = defaultSecretRefresh
	}
	p.wg.Go(func() {
		tick := time.NewTicker(refresh)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-p.ctx.Done():
				return
			}
			for i, read := range p.cfg.secrets {
				var now login
				now.user, now.password = read()
				if now == known[i] || now.user == "" {
					continue
				}
				p.SetUser(now.user, now.password)
				if former := known[i].user; former != now.user {
					p.RemoveUser(former)
					p.endSessionsOf(former)
				}
				known[i] = now
			}
		}
	})
}

// waitsForSecret says whether a failed login to the database may be cured by the secret's next
// version.
func (p *Proxy) waitsForSecret(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && p.cfg.staleSecret == StaleSecretWaits && (pgErr.Code == "28P01" || pgErr.Code == "28000")
}

// signedIn notes whose session it is, unless the user was removed in the meantime.
func (s *clientSession) signedIn() error {
	d := s.p.users
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.secret(s.info.user); !ok {
		return &refusal{code: "28000", message: fillIn(noCredentialsText, s.info.user)}
	}
	d.sessions[s] = s.info.user
	return nil
}

func (s *clientSession) signedOff() {
	d := s.p.users
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.sessions, s)
}

// endSessionsOf ends a user's client connections.
func (p *Proxy) endSessionsOf(user string) {
	p.users.mu.Lock()
	var ended []*clientSession
	for s, of := range p.users.sessions {
		if of == user {
			ended = append(ended, s)
		}
	}
	p.users.mu.Unlock()
	for _, s := range ended {
		s.logf(slog.LevelInfo, "The client connection is closed. Reason: There are no credentials for the role %q any more.", user)
		s.mu.Lock()
		db := s.db
		s.mu.Unlock()
		switch {
		case db != nil: // in mid-transaction, or pinned: the rest is as in a failover
			db.cutOff()
		case p.cfg.failoverReply == FailoverFatal:
			s.hangUp(failoverError())
		default:
			s.hangUp(nil)
		}
	}
}
