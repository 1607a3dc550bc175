// Package secrets says where a connection's user name and password come from.
//
// A [Source] is asked once for every new connection, so whatever it returns may
// change while the service runs: that is how rotation is followed. [FromManager]
// reads AWS Secrets Manager, [FromFile] and [FromPassfile] read files that something
// else keeps up to date, [Static] and [Func] cover fixed and computed credentials.
//
// [Credentials] do not print their password: not with fmt, log/slog or encoding/json.
// (Inside an unexported field of another struct fmt calls no methods, and prints what
// it finds: do not print such structs.)
package secrets

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
)

// Source supplies the credentials for a new connection. It must be safe for
// concurrent use, return promptly (it runs inside the connect attempt's deadline)
// and end with ctx.
//
// When the server refuses what a Source returned, the Source is asked once more, and
// a second refusal is final. A Source whose secret is replaced while the service runs
// should also be [Rotating], and one with something to say about its secret a
// [fmt.Stringer]: errors about refused credentials quote it.
type Source interface {
	Credentials(ctx context.Context) (Credentials, error)
}

// Rotating is implemented by sources whose secret somebody else replaces while the
// service runs. Between the moment the database has the new password and the moment
// the source has it, new logins are refused; so for a Rotating source a refusal is
// not final: the pool asks it about once a second until it returns something else, or
// until the connect's budget ends, and tries the refused credentials again from time
// to time. Connections that were opened with credentials that have since been
// replaced are retired; see proxy.WithRetirement.
type Rotating interface {
	Source
	// Rejected says that a server refused c (SQLSTATE 28P01 or 28000): what
	// Credentials returns next must not come from a cache that is older than this
	// call. It must return promptly and may be called for the same c again.
	Rejected(ctx context.Context, c Credentials)
}

// Credentials are a database user and its password. An empty User means the user
// of the connection string.
type Credentials struct {
	User     string
	Password string
}

const hidden = "[redacted]"

// String shows the user and hides the password.
func (c Credentials) String() string { return fmt.Sprintf("{User:%s Password:%s}", c.User, hidden) }

// GoString is String, for %#v.
func (c Credentials) GoString() string { return "secrets.Credentials" + c.String() }

// Format is String for every verb, so that %x or %d cannot print the password either.
func (c Credentials) Format(f fmt.State, verb rune) {
	if verb == 'v' && f.Flag('#') {
		_, _ = fmt.Fprint(f, c.GoString())
		return
	}
	_, _ = fmt.Fprint(f, c.String())
}

// LogValue is what log/slog prints.
func (c Credentials) LogValue() slog.Value {
	return slog.GroupValue(slog.String("user", c.User), slog.String("password", hidden))
}

// MarshalText hides the password from encoders that honour encoding.TextMarshaler,
// encoding/json among them.
func (c Credentials) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// Static is a source of one fixed user and password.
func Static(user, password string) Source {
	return Func(func(context.Context) (Credentials, error) {
		return Credentials{User: user, Password: password}, nil
	})
}

// Func makes a source of a function.
func Func(f func(ctx context.Context) (Credentials, error)) Source { return sourceFunc(f) }

type sourceFunc func(context.Context) (Credentials, error)

func (f sourceFunc) Credentials(ctx context.Context) (Credentials, error) {
	if f == nil {
		return Credentials{}, errors.New("secrets: Func was given a nil function")
	}
	return f(ctx)
}
