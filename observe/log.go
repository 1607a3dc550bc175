package observe

// Events as log lines.

import (
	"context"
	"log/slog"
	"time"
)

// Log is an [Observer] that writes events to l, with the keys of the package's
// documentation. What somebody has to look into is an error or a warning: a connect that
// failed, an attempt that did, a failover, a COMMIT in doubt, a pin. What explains a delay is
// at level info: a connect or a transaction that took more than one attempt, a new writer, a
// rotation. All else is at level debug.
//
// proxy.WithLogger uses it, so that a pool needs one of the two.
func Log(l *slog.Logger) Observer { return logged{l} }

type logged struct{ to *slog.Logger }

func (logged) Start(ctx context.Context, _ Operation) context.Context { return ctx }

func (l logged) Observe(ctx context.Context, e Event) {
	level, message, attrs := line(e)
	if l.to.Enabled(ctx, level) {
		l.to.LogAttrs(ctx, level, "aurorapgx: "+message, attrs()...)
	}
}

// line is an event's level and message, and what makes its attributes.
func line(e Event) (slog.Level, string, func() []slog.Attr) {
	switch e := e.(type) {
	case ConnectAttempt:
		if e.Err == nil || e.Last { // the line of the whole connect follows
			return slog.LevelDebug, "connect attempt ended", e.attrs
		}
		return slog.LevelWarn, "connect attempt failed", e.attrs
	case Connected:
		return infoIf(e.Attempts > 1), "connected", e.attrs
	case ConnectFailed:
		return slog.LevelError, "connect failed", e.attrs
	case CredentialsFetched:
		if e.Err != nil {
			return slog.LevelDebug, "credentials cannot be had", e.attrs // the attempt's line tells it louder
		}
		return slog.LevelDebug, "credentials fetched", e.attrs
	case SecretRead:
		if e.Err != nil {
			return slog.LevelWarn, "the secret cannot be read", e.attrs
		}
		return infoIf(e.Changed), "secret read", e.attrs
	case Rotated:
		return slog.LevelInfo, "credentials rotated", e.attrs
	case Evicted:
		return slog.LevelDebug, "connection evicted", e.attrs
	case FailoverNoticed:
		return slog.LevelWarn, "failover noticed", e.attrs
	case WriterChanged:
		return slog.LevelInfo, "the writer has changed", e.attrs
	case TransactionAttempt:
		if e.Err == nil || e.Last {
			return slog.LevelDebug, "transaction attempt ended", e.attrs
		}
		return slog.LevelWarn, "transaction attempt failed", e.attrs
	case TransactionEnded:
		if e.Err != nil {
			return slog.LevelDebug, "transaction failed", e.attrs // the caller gets the error
		}
		return infoIf(e.Attempts > 1), "transaction committed", e.attrs
	case CommitInDoubt:
		return slog.LevelWarn, "commit in doubt", e.attrs
	case CommitSettled:
		if e.Err != nil {
			return slog.LevelError, "commit not settled", e.attrs
		}
		return slog.LevelInfo, "commit settled", e.attrs
	case Pinned:
		return slog.LevelWarn, "session pinned", e.attrs
	default:
		return slog.LevelDebug, "event", func() []slog.Attr { return nil }
	}
}

func infoIf(notable bool) slog.Level {
	if notable {
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

// fields are attributes without those that say nothing.
type fields []slog.Attr

func (f fields) text(key, value string) fields {
	if value == "" {
		return f
	}
	return append(f, slog.String(key, value))
}

func (f fields) duration(key string, d time.Duration) fields {
	if d == 0 {
		return f
	}
	return append(f, slog.Duration(key, d))
}

func (f fields) failure(key string, err error) fields {
	if err == nil {
		return f
	}
	return append(f, slog.String(key, err.Error()))
}

func (f fields) attempt(n int) fields { return append(f, slog.Int("attempt", n)) }

func place(endpoint, kind string) fields {
	return fields{slog.String("endpoint", endpoint), slog.String("kind", kind)}
}

func (e ConnectAttempt) attrs() []slog.Attr {
	return place(e.Endpoint, e.Kind).attempt(e.Number).duration("elapsed", e.Elapsed).duration("took", e.Took).duration("pause", e.Pause).
		failure("cause", e.Cause).text("case", e.Case).failure("error", e.Err)
}

func (e Connected) attrs() []slog.Attr {
	return place(e.Endpoint, e.Kind).attempt(e.Attempts).duration("elapsed", e.Elapsed).text("address", e.Address)
}

func (e ConnectFailed) attrs() []slog.Attr {
	return place(e.Endpoint, e.Kind).attempt(e.Attempts).duration("elapsed", e.Elapsed).
		failure("cause", e.Cause).text("case", e.Case).failure("error", e.Err)
}

func (e CredentialsFetched) attrs() []slog.Attr {
	return fields{slog.String("endpoint", e.Endpoint), slog.String("source", e.Source)}.
		text("user", e.User).duration("took", e.Took).failure("error", e.Err)
}

func (e SecretRead) attrs() []slog.Attr {
	return fields{slog.String("secret", e.Secret)}.text("stage", e.Stage).text("version", e.Version).
		duration("took", e.Took).failure("error", e.Err)
}

func (e Rotated) attrs() []slog.Attr {
	return fields{slog.String("pool", e.Pool), slog.String("endpoint", e.Endpoint)}.text("user", e.User).text("former", e.Former)
}

func (e Evicted) attrs() []slog.Attr {
	return fields{slog.String("pool", e.Pool)}.text("address", e.Address).text("reason", e.Reason)
}

func (e FailoverNoticed) attrs() []slog.Attr {
	return place(e.Endpoint, e.Kind).text("address", e.Address).text("sign", e.Sign)
}

func (e WriterChanged) attrs() []slog.Attr {
	return place(e.Endpoint, e.Kind).text("from", e.From).text("to", e.To)
}

func (e TransactionAttempt) attrs() []slog.Attr {
	return fields{}.attempt(e.Number).duration("elapsed", e.Elapsed).duration("took", e.Took).duration("pause", e.Pause).
		text("verdict", e.Verdict).text("reason", e.Reason).text("settlement", e.Settlement).failure("error", e.Err)
}

func (e TransactionEnded) attrs() []slog.Attr {
	return fields{}.attempt(e.Attempts).duration("elapsed", e.Elapsed).text("verdict", e.Verdict).failure("error", e.Err)
}

func (e CommitInDoubt) attrs() []slog.Attr { return fields{}.failure("error", e.Err) }

func (e CommitSettled) attrs() []slog.Attr {
	return fields{}.text("settlement", e.Settlement).text("how", e.How).duration("took", e.Took).failure("error", e.Err)
}

func (e Pinned) attrs() []slog.Attr {
	return fields{slog.String("rule", e.Rule)}.text("digest", e.Digest).text("user", e.User).text("database", e.Database).
		text("caller", e.Caller).text("reason", e.Reason)
}
