package secrets

// Reading a secret again: one request at a time, shared by all who wait for it, the old
// value kept while it fails, and bounds on how often.

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/aurorapgx/aurorapgx/observe"
)

const (
	// pollPause is the least time between two reads of a secret that was refused, or
	// that could never be read.
	pollPause = 250 * time.Millisecond
	// rejectedFor is how long a refusal is remembered: longer than a pool waits before
	// it tries refused credentials again.
	rejectedFor = 30 * time.Second

	// How long one read may take, all stages and the SDK's retries included: less than
	// a connect attempt's 5 s, so that the error tells what it was that did not answer.
	patience      = 4 * time.Second
	patienceStale = 2 * time.Second // with an old value at hand

	backoffBase = time.Second
	backoffCap  = time.Minute
)

// flight is a read that is under way. It belongs to those who wait for it: the first of
// them may leave without harm to the others, and when the last one leaves it ends. That
// is what golang.org/x/sync/singleflight cannot do, and why nothing here needs a Close.
type flight struct {
	done    chan struct{} // closed when held and err are there
	cancel  context.CancelFunc
	waiters int // guarded by Manager.mu
	held    *held
	err     error
}

// read returns the secret, read now unless somebody else just did.
func (m *Manager) read(ctx context.Context) (*held, error) {
	if m.wrong != nil {
		return nil, m.wrong
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	f, h, err := m.join(ctx)
	if f == nil {
		return h, err
	}
	select {
	case <-f.done:
		return f.held, f.err
	case <-ctx.Done():
		m.leave(f)
		return nil, context.Cause(ctx)
	}
}

// join takes part in the read that is under way, or starts one. Without a flight it
// returns what needs no reading.
func (m *Manager) join(ctx context.Context) (*flight, *held, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h, now := m.current.Load(), m.now()
	if h != nil && h.fresh(now) {
		return nil, h, nil
	}
	if h == nil && m.failure != nil {
		if age := now.Round(0).Sub(m.askedAt); age >= 0 && age < pollPause {
			return nil, nil, m.failure
		}
	}
	f := m.flight
	if f == nil {
		limit := patience
		if h != nil {
			limit = patienceStale
		}
		f = &flight{done: make(chan struct{})}
		var flying context.Context
		flying, f.cancel = context.WithTimeout(context.WithoutCancel(ctx), limit)
		m.flight = f
		go m.fly(flying, f)
	}
	f.waiters++
	return f, nil, nil
}

// leave is for those who stop waiting.
func (m *Manager) leave(f *flight) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f.waiters--; f.waiters == 0 {
		f.cancel()
		if m.flight == f {
			m.flight = nil
		}
	}
}

func (m *Manager) fly(ctx context.Context, f *flight) {
	defer f.cancel()
	begun := m.now()
	h, refused, err := m.fetchUsable(ctx)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = &Error{Secret: m.name, Problem: "Secrets Manager does not answer", Fix: "check that this subnet reaches it, by a NAT gateway or a VPC endpoint", temporary: true, err: context.DeadlineExceeded}
	}
	m.mu.Lock()
	report, old := func() {}, m.current.Load()
	if m.flight == f {
		m.flight, m.askedAt = nil, m.now().Round(0)
		if err == nil {
			report = m.keep(h, refused)
		} else {
			report = m.failed(err)
		}
		f.held = m.current.Load()
		if f.held == nil {
			f.err = m.failure
		}
	}
	m.mu.Unlock()
	report()
	if m.events != nil {
		m.observe(ctx, old, h, m.now().Sub(begun), err)
	}
	close(f.done)
}

// observe tells about a read, old being what was current before.
func (m *Manager) observe(ctx context.Context, old, h *held, took time.Duration, err error) {
	e := observe.SecretRead{Secret: m.name, Took: took, Stale: err != nil && old != nil}
	if err != nil {
		e.Err = fetchErrorOf(m.name, err)
	} else {
		e.Stage, e.Version = h.stage, h.version
		e.Changed = old != nil && old.secret.Credentials != h.secret.Credentials
	}
	m.events.Observe(ctx, e)
}

// fetchUsable reads the current version, and if a server refused that, the others that
// may be tried. refused says that all of them were.
func (m *Manager) fetchUsable(ctx context.Context) (h *held, refused bool, err error) {
	h, err = m.fetch(ctx, m.stage)
	if err != nil || !m.wasRejected(h) {
		return h, false, err
	}
	for _, stage := range m.others {
		other, err := m.fetch(ctx, stage)
		if err == nil && !m.wasRejected(other) { // most of the time there is no AWSPENDING
			return other, false, nil
		}
	}
	return h, true, nil
}

func (m *Manager) wasRejected(h *held) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.rejected[h.secret.Credentials]
	return ok
}

func (m *Manager) fetch(ctx context.Context, stage string) (*held, error) {
	out, err := m.client.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &m.name, VersionStage: &stage})
	if err != nil {
		return nil, fetchError(m.name, err)
	}
	text := string(out.SecretBinary)
	if out.SecretString != nil {
		text = *out.SecretString
	}
	secret, err := m.form.parse(m.name, text)
	if err != nil {
		return nil, err
	}
	h := &held{secret: secret, stage: stage, readAt: m.now().Round(0)}
	if out.VersionId != nil {
		h.version = *out.VersionId
	}
	return h, nil
}

// keep makes h the current value and returns what there is to report. The caller holds
// the lock.
func (m *Manager) keep(h *held, refused bool) (report func()) {
	old, outage := m.current.Load(), m.failures
	m.failures, m.failure = 0, nil
	lifetime := m.ttl - rand.N(m.ttl/10+1)
	if refused {
		lifetime = pollPause
	}
	now := m.now().Round(0)
	for c, at := range m.rejected {
		if age := now.Sub(at); age > rejectedFor || age < 0 {
			delete(m.rejected, c)
		}
	}
	m.current.Store(h.servedFrom(h.readAt.Add(-time.Minute).UnixNano(), h.readAt.Add(lifetime).UnixNano()))
	return func() {
		attrs := []slog.Attr{slog.String("secret", m.name), slog.String("stage", h.stage), slog.String("version", h.version)}
		if outage > 0 && old != nil {
			m.log.LogAttrs(context.Background(), slog.LevelInfo, "aurorapgx: the secret can be read again", attrs...)
		}
		if old != nil && old.secret.Credentials != h.secret.Credentials {
			m.log.LogAttrs(context.Background(), slog.LevelInfo, "aurorapgx: the secret has changed", append(attrs, slog.String("user", h.secret.User))...)
		}
	}
}

// failed notes a failed read, keeps the old value in use if there is one, and returns
// what there is to report. The caller holds the lock.
func (m *Manager) failed(err error) (report func()) {
	e := fetchErrorOf(m.name, err)
	now := m.now().Round(0)
	m.failure = e
	m.failures++
	old := m.current.Load()
	if old == nil {
		return func() {}
	}
	pause := min(backoffBase<<min(m.failures-1, 10), backoffCap)
	pause -= rand.N(pause/2 + 1)
	if _, refused := m.rejected[old.secret.Credentials]; refused {
		pause = pollPause
	}
	m.current.Store(old.servedFrom(cmp.Or(old.from, now.UnixNano()), now.Add(pause).UnixNano()))
	if m.failures > 1 {
		return func() {}
	}
	return func() {
		m.log.LogAttrs(context.Background(), slog.LevelWarn, "aurorapgx: the secret cannot be refreshed, the old value stays in use",
			slog.String("secret", m.name), slog.String("version", old.version), slog.Time("read", old.readAt), slog.String("error", e.Error()))
	}
}

// fetchErrorOf is the error of a read as callers get it.
func fetchErrorOf(name string, err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return fetchError(name, err)
}

// servedFrom is a copy with another time in which it needs no reading.
func (h *held) servedFrom(from, until int64) *held {
	other := *h
	other.from, other.until = from, until
	return &other
}
