package proxy

// What a failed connect attempt means: which of the package's Err values it is,
// whether another attempt can end differently, and what to tell the user. No
// statement has been sent during a connect, so all that is asked here is whether
// trying again makes sense, never whether it is safe.

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aurorapgx/aurorapgx/retry"
)

// finding is the diagnosis of one failed attempt.
type finding struct {
	cause   error
	verdict retry.Verdict
	hint    string
	slow    bool // the server asked for fewer connects: pause longer
	refused bool // the credentials were refused: other ones may do
}

var again = finding{cause: ErrUnreachable, verdict: retry.NotExecuted}

// diagnose looks at the error of one attempt against an endpoint of the given kind.
func diagnose(err error, kind Kind) finding {
	var (
		pgErr   *pgconn.PgError
		certErr *tls.CertificateVerificationError
		dnsErr  *net.DNSError
		cfgErr  *ConfigError
		creds   *credentialsError
		reader  *readerError
	)
	switch {
	case errors.As(err, &cfgErr):
		return finding{cause: ErrCredentials, verdict: retry.Permanent}
	case errors.As(err, &creds):
		return diagnoseCredentials(creds)
	case errors.As(err, &reader):
		return finding{cause: ErrReader, verdict: retry.NotExecuted, hint: "after a failover the endpoint's DNS record follows within seconds"}
	case errors.As(err, &pgErr):
		return diagnoseServer(pgErr, kind)
	case errors.As(err, &certErr):
		return finding{cause: ErrCertificate, verdict: retry.Permanent, hint: certificateHint(certErr, kind)}
	case errors.As(err, &dnsErr):
		f := again
		f.hint = "the name does not resolve; a new endpoint's name may take minutes to appear, and a private one resolves inside its VPC only"
		return f
	case strings.Contains(err.Error(), "server refused TLS connection"):
		return finding{cause: ErrTLSRefused, verdict: retry.Permanent, hint: "the server speaks no TLS; for a server without it, on a laptop say, write sslmode=disable"}
	case isOwnRefusal(err.Error()):
		return finding{cause: ErrUnexpected, verdict: retry.Permanent, hint: "this client's own settings forbid what the server offers: look at require_auth, channel_binding, sslcertmode and min_protocol_version"}
	case isTLSAlert(err):
		return finding{cause: ErrTLSRefused, verdict: retry.Permanent, hint: "client and server found no common TLS parameters, or something else than PostgreSQL answers on this port"}
	default:
		f := again
		f.hint = unreachableHint(err, kind)
		return f
	}
}

func diagnoseCredentials(err *credentialsError) finding {
	f := finding{cause: ErrCredentials, verdict: retry.NotExecuted, slow: true}
	if !errors.Is(err, context.DeadlineExceeded) && !err.temporary {
		f.verdict = retry.Permanent
	}
	f.hint = err.hint
	return f
}

// diagnoseServer goes by SQLSTATE, and by text only where RDS Proxy uses one code for
// several things. The texts: https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.troubleshooting.html
func diagnoseServer(e *pgconn.PgError, kind Kind) finding {
	permanent := func(cause error, hint string) finding {
		return finding{cause: cause, verdict: retry.Permanent, hint: hint}
	}
	temporary := func(cause error, hint string) finding {
		return finding{cause: cause, verdict: retry.NotExecuted, hint: hint}
	}
	switch e.Code {
	case "28P01", "28000":
		return diagnoseRefusal(e, kind)
	case "0A000":
		if strings.Contains(e.Message, "option") {
			return permanent(ErrStartupParameter, "put the setting into the proxy's initialization query or ALTER ROLE ... SET")
		}
		return permanent(ErrUnexpected, "")
	case "3D000":
		return permanent(ErrDatabaseNotFound, "check the name behind the last slash of the connection string")
	case "42501":
		return permanent(ErrNotPermitted, "GRANT CONNECT ON DATABASE ... TO the user")
	case "53300":
		f := temporary(ErrTooManyConnections, "lower WithMaxConns, or raise the proxy's or the cluster's limits")
		f.slow = true
		return f
	case "57P03", "57P01", "57P02":
		return temporary(ErrStartingUp, "")
	case "08000":
		return temporary(ErrBorrowTimeout, "the proxy's pool is exhausted or the database is down: look at DatabaseConnectionsBorrowLatency and DatabaseConnectionsCurrentlySessionPinned")
	case "XX000":
		return diagnoseInternal(e)
	}
	switch e.Code[:min(2, len(e.Code))] {
	case "08", "53", "57", "58":
		return temporary(ErrUnreachable, "")
	default:
		return permanent(ErrUnexpected, "")
	}
}

// diagnoseRefusal tells refused credentials from refused circumstances, which share
// their codes.
func diagnoseRefusal(e *pgconn.PgError, kind Kind) finding {
	switch m := e.Message; {
	case strings.Contains(m, "requires TLS"), strings.Contains(m, "only with SSL"):
		return finding{cause: ErrTLSRefused, verdict: retry.Permanent, hint: "write sslmode=verify-full"}
	case strings.Contains(m, "no pg_hba.conf entry"), strings.Contains(m, "pg_hba.conf rejects"):
		// A resuming Aurora Serverless instance says this for a while without meaning it.
		if kind.IsRDS() && !kind.IsProxy() && !strings.Contains(m, "no encryption") {
			return finding{cause: ErrStartingUp, verdict: retry.NotExecuted, hint: "an instance that resumes from auto-pause says this for some seconds; one that goes on to say it has no rule for this client"}
		}
		return finding{cause: ErrNotPermitted, verdict: retry.Permanent, hint: "the server's pg_hba.conf has no rule for this client, user and database, or wants TLS"}
	case strings.Contains(m, "no credentials for the role"):
		return finding{cause: ErrCredentialsRejected, verdict: retry.NotExecuted, refused: true, hint: "the proxy has no secret for this user: register one, or switch the proxy to end-to-end IAM (DefaultAuthScheme IAM_AUTH)"}
	case strings.Contains(m, "Enable IAM authentication"):
		return finding{cause: ErrCredentialsRejected, verdict: retry.Permanent, hint: "the proxy wants an IAM token: leave the password out of the connection string"}
	case strings.Contains(m, "DefaultAuthScheme"):
		return finding{cause: ErrCredentialsRejected, verdict: retry.Permanent, hint: "the proxy does not do IAM for this user: pass WithCredentials, or set the proxy's IAM authentication to required"}
	default:
		return finding{cause: ErrCredentialsRejected, verdict: retry.NotExecuted, refused: true}
	}
}

// diagnoseInternal reads the database's own error out of RDS Proxy's XX000.
func diagnoseInternal(e *pgconn.PgError) finding {
	switch m := e.Message; {
	case strings.Contains(m, "does not exist"):
		return finding{cause: ErrDatabaseNotFound, verdict: retry.Permanent, hint: "check the name behind the last slash of the connection string"}
	case strings.Contains(m, "authentication failed"):
		return finding{cause: ErrCredentialsRejected, verdict: retry.NotExecuted, slow: true, hint: "the proxy could not log in to the database: its secret and the user's password differ, as for a moment during rotation"}
	default:
		return finding{cause: ErrUnreachable, verdict: retry.NotExecuted}
	}
}

func certificateHint(err *tls.CertificateVerificationError, kind Kind) string {
	text := err.Error()
	switch {
	case strings.Contains(text, "certificate is valid for"), strings.Contains(text, "not valid for any names"):
		return "dial the endpoint by its RDS name: a CNAME of your own cannot be verified, nor used with IAM"
	case strings.Contains(text, "expired or is not yet valid"):
		return "check this machine's clock"
	case kind.IsProxy():
		return "RDS Proxy's certificates come from Amazon Trust Services; something else answers here"
	case kind.IsRDS():
		return "cluster endpoints use RDS's own CA: add sslrootcert=global-bundle.pem (https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem) or WithRootCAs"
	default:
		return "add sslrootcert=FILE with the CA's certificate"
	}
}

func isTLSAlert(err error) bool {
	var (
		alert  tls.AlertError
		record tls.RecordHeaderError
	)
	return errors.As(err, &alert) || errors.As(err, &record) || strings.Contains(err.Error(), "remote error: tls:")
}

// isOwnRefusal recognizes pgconn's refusals of what a server offers, which have no types.
func isOwnRefusal(text string) bool {
	for _, part := range []string{"require_auth check failed", "channel binding check failed", "sslcertmode check failed", "server protocol version too low"} {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}

func unreachableHint(err error, kind Kind) string {
	switch {
	case errors.Is(err, errSilent):
		return "the server accepts no connection or does not answer: check the security group, and whether the host is reachable from this subnet"
	case errors.Is(err, context.DeadlineExceeded) && kind.IsProxy():
		return "the proxy answers but does not finish the login, as while it waits for a database"
	default:
		return ""
	}
}

// credentialsError is a failure to get credentials, as opposed to their refusal.
type credentialsError struct {
	err       error
	temporary bool
	hint      string
}

func (e *credentialsError) Error() string { return e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }

// readerError is a writer endpoint that led to a server in recovery.
type readerError struct{ addr string }

func (e *readerError) Error() string { return "the server at " + e.addr + " is in recovery" }
