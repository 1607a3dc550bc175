package proxy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// What a failed connect came from. Match them with errors.Is; [ConnectError] has
// the details.
var (
	// ErrUnreachable: no address, nothing listens, or no answer in time.
	ErrUnreachable = errors.New("server cannot be reached")
	// ErrCertificate: the server's certificate does not verify. Never retried.
	ErrCertificate = errors.New("server certificate does not verify")
	// ErrTLSRefused: the server does not speak TLS, or insists on it.
	ErrTLSRefused = errors.New("TLS refused")
	// ErrCredentials: no user name and password or token could be had: AWS
	// credentials missing, a secret that cannot be read.
	ErrCredentials = errors.New("credentials cannot be had")
	// ErrCredentialsRejected: the server refused user name, password or token
	// (28P01, 28000), also with freshly fetched ones.
	ErrCredentialsRejected = errors.New("credentials rejected")
	// ErrStartupParameter: RDS Proxy refused a startup parameter (0A000), or the server
	// does not know it or take its value (42704, 22023).
	ErrStartupParameter = errors.New("startup parameter refused")
	// ErrDatabaseNotFound: the database does not exist (3D000).
	ErrDatabaseNotFound = errors.New("database does not exist")
	// ErrNotPermitted: the user may not connect to this database (42501).
	ErrNotPermitted = errors.New("connecting is not permitted")
	// ErrBorrowTimeout: RDS Proxy had no database connection to lend in time (08000).
	ErrBorrowTimeout = errors.New("RDS Proxy lent no database connection in time")
	// ErrTooManyConnections: the server or the proxy is full, or connections come too
	// fast (53300), also for the check of their IAM tokens.
	ErrTooManyConnections = errors.New("too many connections")
	// ErrStartingUp: the server is starting, stopping or recovering (57P03, 57P01, 57P02).
	ErrStartingUp = errors.New("server is starting up or shutting down")
	// ErrReader: a writer endpoint led to a reader, as for a while after a failover.
	ErrReader = errors.New("writer endpoint leads to a reader")
	// ErrUnexpected: the server refused for a reason that no other value names.
	ErrUnexpected = errors.New("connect refused")
)

// ConfigError is a mistake found before anything was dialled: in the connection
// string, in the environment, in an option.
type ConfigError struct {
	Source  string // where it came from: "connection string", "PGOPTIONS", "WithMaxConns", ...
	Problem string // what is wrong
	Fix     string // what to write instead

	trouble trouble // its entry in the catalogue, if there is one for just this
}

func (e *ConfigError) Error() string {
	s := "aurorapgx: " + e.Source + ": " + e.Problem
	if e.Fix != "" {
		s += "; " + e.Fix
	}
	return s
}

// ConnectError is a connect that failed for good, or ran out of time. It wraps
// pgx's own error (so errors.As finds a *pgconn.PgError), one of this package's Err
// values, and the context's error if that ended the trying. It holds no password
// and no token.
type ConnectError struct {
	Endpoint Endpoint      // where to
	User     string        // as whom
	Attempts int           // how often it was tried
	Elapsed  time.Duration // from the first attempt to the last failure
	Cause    error         // one of this package's Err values
	Case     string        // its name in the catalogue, FAILURES.md
	Hint     string        // the likely reason and what to do about it

	found finding
	err   error // the last attempt's error, and the context's if it ended the trying
}

func (e *ConnectError) Error() string {
	var b strings.Builder
	b.WriteString("aurorapgx: ")
	if e.Endpoint.Kind != KindOther {
		b.WriteString(e.Endpoint.Kind.String() + " ")
	}
	fmt.Fprintf(&b, "%s as %q: %v", e.Endpoint.Host, e.User, e.Cause)
	switch {
	case e.Attempts == 1:
		fmt.Fprintf(&b, " (1 attempt, %s)", e.Elapsed.Round(time.Millisecond))
	case e.Attempts > 1:
		fmt.Fprintf(&b, " (%d attempts, %s)", e.Attempts, e.Elapsed.Round(time.Millisecond))
	}
	fmt.Fprintf(&b, ": %v", e.err)
	if e.Hint != "" {
		b.WriteString("; " + e.Hint)
	}
	return b.String()
}

// Unwrap gives errors.Is and errors.As the cause and the underlying errors.
func (e *ConnectError) Unwrap() []error { return []error{e.Cause, e.err} }

// quote quotes text from outside for an error, and bounds it.
func quote(s string) string {
	const most = 80
	if len(s) > most {
		s = s[:most] + "..."
	}
	return strconv.Quote(s)
}
