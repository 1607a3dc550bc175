package proxy

// What a pool knows about the rotation of its credentials: which ones are current, and
// which connections were opened with earlier ones. Those work on, and are retired one
// by one, so that no user or password is in use much longer than its secret says, and so
// that the pool does not reconnect all at once.

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/observe"
	"github.com/aurorapgx/aurorapgx/secrets"
)

// rotation is one pool's. It compares credentials and keeps the current ones, which
// the source has as well.
type rotation struct {
	within time.Duration
	calm   func() bool // connects succeed
	log    *slog.Logger
	events *events

	asked      atomic.Uint64 // counts the questions to the source, and so orders its answers
	generation atomic.Int64  // grows with each change of the credentials

	mu      sync.Mutex
	current secrets.Credentials
	of      uint64    // the question they were the answer to
	since   time.Time // when they were first used, by the wall clock: the other stands still in a frozen environment
	users   []string  // that the source has named: two, if it alternates
	refused refusals
}

// opening is what a connection remembers of the credentials it was opened with.
type opening struct {
	generation  int64
	retireAfter time.Duration // from when they were replaced
}

// named notes a user that the source has returned.
func (r *rotation) named(user string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.users) < 2 && !slices.Contains(r.users, user) {
		r.users = append(r.users, user)
	}
}

// alternates are the two users that a source behind an RDS Proxy has named, or nothing.
func (r *rotation) alternates(kind Kind) (one, other string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !kind.IsProxy() || len(r.users) < 2 {
		return "", ""
	}
	return r.users[0], r.users[1]
}

// opened notes with which credentials a connection was opened: creds, the answer to
// the question asked, in a login that began after so many refusals.
func (r *rotation) opened(ctx context.Context, creds secrets.Credentials, asked, refusals uint64, t *target) opening {
	r.mu.Lock()
	o := opening{generation: r.generation.Load(), retireAfter: rand.N(max(r.within, 1))} // which is 0 for 0
	r.refused.took(creds, refusals)
	rotated, former := false, r.current.User
	switch {
	case r.of == 0 || creds == r.current:
		r.current, r.of = creds, max(r.of, asked)
	case asked > r.of:
		rotated = true
		r.current, r.of, r.since = creds, asked, time.Now().Round(0)
		o.generation = r.generation.Add(1)
	default: // it took longer than a connection with newer ones
		o.generation--
	}
	r.mu.Unlock()
	if rotated {
		r.events.rotated(ctx, t, creds.User, former)
	}
	if rotated && former != creds.User {
		if one, other := r.alternates(t.endpoint.Kind); other != "" {
			why := alternatingUsers.found("one", quote(one), "other", quote(other)).hint()
			r.log.Warn("aurorapgx: alternating users behind RDS Proxy", slog.String("reason", why))
		}
	}
	return o
}

// outdated reports whether a connection's time has come. While connects fail, it has not.
func (r *rotation) outdated(o opening) bool {
	newest := r.generation.Load()
	if o.generation >= newest || !r.calm() {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return o.generation < newest-1 || time.Since(r.since) >= o.retireAfter
}

// retire makes the pool close outdated connections instead of handing them out. The
// user's own hook is asked about the others.
func (r *rotation) retire(cfg *pgxpool.Config) {
	next := prepareHook(cfg)
	cfg.PrepareConn = func(ctx context.Context, conn *pgx.Conn) (bool, error) {
		if h := handedConnOf(conn.PgConn()); h != nil && r.outdated(h.opening) {
			r.events.evicted(ctx, h, observe.EvictedRotated)
			return false, nil
		}
		if next == nil {
			return true, nil
		}
		return next(ctx, conn)
	}
}

// How long refused credentials are left alone before they are tried again, although
// the source has nothing else: the server may have been behind the source, as an RDS
// Proxy that has yet to notice a rotation, or somebody may have set the old password
// again. It doubles from the first to the second.
const (
	againFirst = time.Second
	againCap   = 4 * time.Second
)

// refusals are the credentials that the server has refused. They are the pool's and not a
// connect's, so that a refusal spares the others theirs.
type refusals struct {
	creds []secrets.Credentials
	count uint64 // of all refusals
	last  secrets.Credentials
	err   error         // the last refusal
	over  bool          // the server has taken credentials since
	again time.Time     // when they may be tried again
	pause time.Duration // until then, when it was set
}

const maxRefusals = 8 // that are remembered

// took notes that the server took c, in a login that began after the first so many
// refusals. One that was overtaken by a refusal proves nothing: the server may have looked
// at its password before it was changed.
func (r *refusals) took(c secrets.Credentials, after uint64) {
	if after != r.count {
		return
	}
	r.over = true
	r.creds = slices.DeleteFunc(r.creds, func(refused secrets.Credentials) bool { return refused == c })
}

// refuse notes that the server refused c.
func (r *rotation) refuse(c secrets.Credentials, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused.count++
	r.refused.last, r.refused.err, r.refused.over = c, err, false
	if slices.Contains(r.refused.creds, c) {
		return
	}
	r.refused.creds = append(r.refused.creds[max(0, len(r.refused.creds)-maxRefusals+1):], c)
	r.refused.pause = againFirst
	r.refused.again = time.Now().Add(againFirst)
}

// lastRefusal is the last refusal since the server took any credentials, or nil.
func (r *rotation) lastRefusal() (secrets.Credentials, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refused.over {
		return secrets.Credentials{}, nil
	}
	return r.refused.last, r.refused.err
}

// begin is called before a login with c. It returns how many refusals there have been, or
// the one for which c is not to be tried now. Of those who ask when the time has come, one
// is told to try.
func (r *rotation) begin(c secrets.Credentials) (refusals uint64, refusal error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	switch {
	case !slices.Contains(r.refused.creds, c):
	case now.Before(r.refused.again):
		return 0, r.refused.err
	default:
		r.refused.pause = min(2*r.refused.pause, againCap)
		r.refused.again = now.Add(r.refused.pause)
	}
	return r.refused.count, nil
}

// unchangedError is an attempt that was not made, because the source had nothing but
// what had been refused.
type unchangedError struct{ refusal error }

func (e *unchangedError) Error() string { return e.refusal.Error() }
func (e *unchangedError) Unwrap() error { return e.refusal }

// isNoCredentials recognizes RDS Proxy's refusal of users it has no secret for.
func isNoCredentials(err error) bool {
	return strings.Contains(err.Error(), "no credentials for the role")
}
