package secrets

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/aurorapgx/aurorapgx/observe"
)

// ManagerClient is what [FromManager] needs of AWS Secrets Manager: the one method of
// *secretsmanager.Client, and the one permission secretsmanager:GetSecretValue.
type ManagerClient interface {
	GetSecretValue(context.Context, *secretsmanager.GetSecretValueInput, ...func(*secretsmanager.Options)) (*secretsmanager.GetSecretValueOutput, error)
}

// Manager is a secret in AWS Secrets Manager, as a [Rotating] source. Make one with
// [FromManager], and use it for as many pools as log in with this secret: they share
// what it caches and what it asks for. It has no goroutine but for the request that
// somebody is waiting for, and so it needs no Close.
type Manager struct {
	client ManagerClient
	name   string
	form   form
	stage  string
	others []string // further stages, for when the server refuses
	ttl    time.Duration
	log    *slog.Logger
	events observe.Observer // nil if nobody listens
	now    func() time.Time
	wrong  error // what the options got wrong

	current atomic.Pointer[held] // what was read last; nil before that

	mu       sync.Mutex
	flight   *flight
	rejected map[Credentials]time.Time // what servers refused, and when
	askedAt  time.Time                 // the end of the last read, however it went
	failures int                       // reads that failed in a row
	failure  *Error                    // the last of them
}

// held is a secret with what is known about it. It is never changed, but replaced.
type held struct {
	secret  Secret
	stage   string
	version string
	readAt  time.Time
	// The wall clock's nanoseconds between which it is handed out without asking
	// anybody. The wall clock, because the monotonic one stands still while a Lambda
	// environment is frozen; two ends, because the wall clock can be set back.
	from, until int64
}

func (h *held) fresh(now time.Time) bool {
	n := now.UnixNano()
	return n >= h.from && n < h.until
}

// FromManager reads user name and password from the secret of this name or ARN, in
// any of the forms of [Parse], or as the options say.
//
// A value that was read is used for 5 minutes ([TTL]) and then read again by whoever
// needs it next. While that fails, the old value stays in use; the next attempt is made
// a second later, then two, four, up to a minute. When a server refuses the value, it is
// read again at once, and again each time the pool asks; see [Rotating] and
// [FallbackStages].
//
// However many connections of however many pools ask, there is one request at a time
// for a secret, and after a refusal or without any value at most four a second. Each
// request ends after 4 s, or after 2 s if an old value is at hand, and when nobody waits
// for it any more.
//
// GetSecretValue allows 10,000 requests a second per account and region
// (https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_limits.html).
//
// Errors are [*Error]. The Manager is safe for concurrent use.
func FromManager(client ManagerClient, nameOrARN string, opts ...ManagerOption) *Manager {
	m := &Manager{
		client: client, name: nameOrARN, stage: currentStage, ttl: defaultTTL,
		form:     form{userKey: "username", passwordKey: "password"},
		log:      slog.New(slog.DiscardHandler),
		now:      time.Now,
		rejected: map[Credentials]time.Time{},
	}
	if client == nil {
		m.fail("the client is nil", "pass secretsmanager.NewFromConfig(cfg)")
	}
	if nameOrARN == "" {
		m.fail("the name is empty", "write the secret's name or its ARN")
	}
	for _, opt := range opts {
		opt(m)
	}
	return m
}

// ManagerOption changes how [FromManager] reads a secret.
type ManagerOption func(*Manager)

const (
	currentStage = "AWSCURRENT"
	defaultTTL   = 5 * time.Minute
)

// TTL sets how long a value is used before it is read again, less up to a tenth of
// it, so that a fleet does not ask in step. Default: 5 minutes, which costs less than
// 0.05 dollars a month per process (https://aws.amazon.com/secrets-manager/pricing/).
// It only matters for what no server refuses, as the other user of an alternating
// rotation: a password that has stopped working is replaced at once.
func TTL(d time.Duration) ManagerOption {
	return func(m *Manager) {
		if d < time.Second {
			m.fail(fmt.Sprintf("a TTL of %s is too short", d), "give at least a second; durations are time.Duration: write 5*time.Minute, not 5")
		}
		m.ttl = d
	}
}

// Stage reads the version with this staging label. Default: AWSCURRENT.
func Stage(label string) ManagerOption {
	return func(m *Manager) {
		if label == "" {
			m.fail("the stage is empty", "leave the option out for AWSCURRENT")
		}
		m.stage = label
	}
}

// FallbackStages names versions to try when a server refuses the current one and the
// secret has not changed: "AWSPENDING", then "AWSPREVIOUS", say. Default: none.
//
// AWSPENDING has the new password from before the database has it, so it ends the wait
// between a rotation's steps setSecret and finishSecret, and keeps a service going
// whose rotation got stuck there. It is for direct endpoints: RDS Proxy only knows
// AWSCURRENT. AWSPREVIOUS helps where the database, or the proxy, is behind the secret.
// Each stage is one more request for each time the current version was read in vain.
// Source: https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_lambda-functions.html
func FallbackStages(labels ...string) ManagerOption {
	return func(m *Manager) { m.others = labels }
}

// Keys reads user name and password from JSON fields of these names. Default:
// "username" and "password", which RDS Proxy and AWS's rotation functions insist on.
func Keys(user, password string) ManagerOption {
	return func(m *Manager) {
		if user == "" || password == "" || user == password {
			m.fail("Keys needs two different names", "leave the option out for username and password")
		}
		m.form.userKey, m.form.passwordKey = user, password
	}
}

// PlainPassword says that the secret is no JSON but the password itself, of this user;
// "" means the user of the connection string.
func PlainPassword(user string) ManagerOption {
	return func(m *Manager) { m.form.plain, m.form.user = true, user }
}

// Logger reports what happens to the secret: a warning when it cannot be refreshed and
// the old value stays in use, one for each outage, and a line when it can be again and when
// the secret has changed. Default: silence. No value is logged.
func Logger(l *slog.Logger) ManagerOption {
	return func(m *Manager) {
		if l == nil {
			m.fail("the logger is nil", "leave the option out for silence")
			return
		}
		m.log = l
	}
}

// Observer is told about each read of the secret from AWS Secrets Manager, as an
// [observe.SecretRead]. It comes with the context of whoever asked first. A pool that makes its
// Manager itself, because of secret=NAME in the connection string, passes its own on.
// Default: nobody.
func Observer(o observe.Observer) ManagerOption {
	return func(m *Manager) {
		if o == nil {
			m.fail("the observer is nil", "leave the option out")
			return
		}
		m.events = observe.All(m.events, o)
	}
}

func (m *Manager) fail(problem, fix string) {
	m.wrong = errors.Join(m.wrong, &Error{Secret: m.name, Problem: problem, Fix: fix})
}

// Validate reports what FromManager was given that cannot work. Whoever opens a pool
// asks it before anything else.
func (m *Manager) Validate() error { return m.wrong }

// Credentials returns user name and password: see [FromManager] for how old they may be.
func (m *Manager) Credentials(ctx context.Context) (Credentials, error) {
	if h := m.current.Load(); h != nil && h.fresh(m.now()) {
		return h.secret.Credentials, nil
	}
	h, err := m.read(ctx)
	if err != nil {
		return Credentials{}, err
	}
	return h.secret.Credentials, nil
}

// Secret is Credentials with what else the secret tells: host, port, database.
func (m *Manager) Secret(ctx context.Context) (Secret, error) {
	if h := m.current.Load(); h != nil && h.fresh(m.now()) {
		return h.secret, nil
	}
	h, err := m.read(ctx)
	if err != nil {
		return Secret{}, err
	}
	return h.secret, nil
}

// Rejected makes the next caller read the secret again, unless it has changed already
// since c was handed out. See [Rotating].
func (m *Manager) Rejected(_ context.Context, c Credentials) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.current.Load()
	if h == nil || h.secret.Credentials != c {
		return
	}
	m.rejected[c] = m.now().Round(0)
	m.current.Store(h.servedFrom(h.from, m.askedAt.Add(pollPause).UnixNano()))
}

// GoString is String: fmt would show what is in the Manager's maps.
func (m *Manager) GoString() string { return m.String() }

// String names the secret, for errors: its version, when it was read, and why not since.
func (m *Manager) String() string {
	s := "secret " + strconv.Quote(m.name)
	if h := m.current.Load(); h != nil {
		s += " (" + h.stage
		if h.version != "" {
			s += ", version " + h.version
		}
		s += ", read " + h.readAt.UTC().Format(time.RFC3339) + ")"
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.failure != nil {
		s += fmt.Sprintf(" (reading it again failed: %s)", m.failure.Problem)
	}
	return s
}
