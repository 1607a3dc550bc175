package proxy

// What a failed connect attempt means: which of the package's Err values it is,
// whether another attempt can end differently, and what to tell the user. No
// statement has been sent during a connect, so all that is asked here is whether
// trying again makes sense, never whether it is safe.

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/credentials/ssocreds"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aurorapgx/aurorapgx/retry"
	"github.com/aurorapgx/aurorapgx/secrets"
)

// finding is the diagnosis of one failed attempt: an entry of the catalogue, with what is
// particular to this time.
type finding struct {
	trouble  trouble
	cause    error
	verdict  retry.Verdict
	why, fix string
	slow     bool // the server asked for fewer connects: pause longer
	refused  bool // the credentials were refused: other ones may do
}

// hint is what an error says of it.
func (f finding) hint() string {
	if f.why == "" || f.fix == "" {
		return f.why + f.fix
	}
	return f.why + ": " + f.fix
}

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
		f := credentialsUnfit.found()
		f.why, f.fix = "", "" // the error says both
		return f
	case errors.As(err, &creds):
		return diagnoseCredentials(creds)
	case errors.As(err, &reader):
		return leadsToReader.found()
	case errors.As(err, &pgErr):
		return diagnoseServer(pgErr, kind)
	case errors.As(err, &certErr):
		return diagnoseCertificate(certErr, kind).found()
	case errors.As(err, &dnsErr):
		return diagnoseLookup(dnsErr).found()
	case strings.Contains(err.Error(), "server refused TLS connection"):
		return noTLS.found()
	case isOwnRefusal(err.Error()):
		return ownRefusal.found()
	case isTLSAlert(err):
		if strings.Contains(err.Error(), "certificate required") || strings.Contains(err.Error(), "bad certificate") {
			return clientCertificateWanted.found()
		}
		return noCommonTLS.found()
	default:
		return diagnoseSilence(err, kind).found()
	}
}

func diagnoseLookup(err *net.DNSError) trouble {
	switch {
	case err.IsNotFound:
		return hostUnknown
	case err.IsTimeout:
		return resolverSilent
	default:
		return resolverFailed
	}
}

func diagnoseCredentials(err *credentialsError) finding {
	f := err.found
	f.verdict = retry.NotExecuted
	if !errors.Is(err, context.DeadlineExceeded) && !err.temporary {
		f.verdict = retry.Permanent
	}
	return f
}

// diagnoseSource is what a failing source of credentials has met.
func diagnoseSource(err error, who login) finding {
	var (
		secret *secrets.Error
		sso    *ssocreds.InvalidTokenError
	)
	switch {
	case errors.As(err, &secret):
		t := secretUnusable
		switch text := secret.Problem; {
		case secret.Temporary():
			t = secretUnavailable
		case strings.Contains(text, "ResourceNotFoundException"):
			t = secretMissing
		case strings.Contains(text, "AccessDenied"), strings.Contains(text, "DecryptionFailure"):
			t = secretDenied
		}
		f := t.found("secret", quote(secret.Secret))
		if t == secretUnusable && secret.Fix != "" {
			f.why, f.fix = f.why+": "+secret.Problem, secret.Fix
		}
		return f
	case errors.As(err, &sso), strings.Contains(err.Error(), "SSO session has expired"):
		return ssoExpired.found()
	case who.iam != nil && errors.Is(err, context.DeadlineExceeded):
		return awsCredentialsSilent.found()
	case who.iam != nil:
		return noAWSCredentials.found()
	case who.rotation != nil && errors.Is(err, context.DeadlineExceeded):
		return secretUnavailable.found()
	case errors.Is(err, context.DeadlineExceeded):
		return sourceSilent.found()
	default:
		return sourceFailed.found()
	}
}

// diagnoseServer goes by SQLSTATE, and by text only where one code stands for several
// things. The texts of RDS Proxy: https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.troubleshooting.html
func diagnoseServer(e *pgconn.PgError, kind Kind) finding {
	says := func(text string) bool { return strings.Contains(e.Message, text) }
	switch e.Code {
	case "28P01", "28000":
		return diagnoseRefusal(e, kind).found()
	case "0A000":
		if says("option") {
			return parameterRefused.found()
		}
	case "42704":
		return parameterUnknown.found()
	case "22023", "55P02":
		return parameterInvalid.found()
	case "3D000":
		return noDatabase.found()
	case "42501":
		if says("parameter") {
			return parameterInvalid.found()
		}
		return connectNotGranted.found()
	case "53300":
		return diagnoseCrowd(e).found()
	case "57P03":
		if says("shutting down") {
			return shuttingDown.found()
		}
		return startingUp.found()
	case "57P01", "57P02":
		return shuttingDown.found()
	case "08000":
		return borrowTimeout.found()
	case "53100", "53200":
		return outOfResources.found()
	case "XX000":
		return diagnoseInternal(e).found()
	}
	switch e.Code[:min(2, len(e.Code))] {
	case "08", "53", "57", "58":
		return unreachable.found()
	default:
		return unexpected.found()
	}
}

// diagnoseCrowd tells whose limit is reached.
func diagnoseCrowd(e *pgconn.PgError) trouble {
	switch m := e.Message; {
	case strings.Contains(m, "reserved"):
		return reservedSlots
	case strings.Contains(m, "for role"):
		return roleLimit
	case strings.Contains(m, "for database"):
		return databaseLimit
	case isThrottledIAM(e):
		return iamThrottled
	case strings.Contains(m, "to the proxy"), strings.Contains(m, "to proxy"):
		return proxyRate
	default:
		return tooManyClients
	}
}

// diagnoseRefusal tells refused credentials from refused circumstances, which share
// their codes.
func diagnoseRefusal(e *pgconn.PgError, kind Kind) trouble {
	switch m := e.Message; {
	case strings.Contains(m, "requires TLS"), strings.Contains(m, "only with SSL"):
		return wantsTLS
	case strings.Contains(m, "no pg_hba.conf entry"), strings.Contains(m, "pg_hba.conf rejects"):
		// A resuming Aurora Serverless instance says this for a while without meaning it.
		if kind.IsRDS() && !kind.IsProxy() && !strings.Contains(m, "no encryption") {
			return resuming
		}
		return noHBARule
	case isNoCredentials(e):
		return noProxySecret
	case strings.Contains(m, "Enable IAM authentication"):
		return iamWanted
	case strings.Contains(m, "DefaultAuthScheme"):
		return iamOff
	case isThrottledIAM(e):
		return iamThrottled
	case strings.Contains(m, "does not exist"):
		return unknownRole
	case strings.Contains(m, "not permitted to log in"):
		return roleWithoutLogin
	default:
		return passwordRejected
	}
}

// isThrottledIAM recognizes that nobody has looked at the token yet.
func isThrottledIAM(e *pgconn.PgError) bool { return strings.Contains(e.Message, "competing requests") }

// diagnoseInternal reads the database's own error out of RDS Proxy's XX000.
func diagnoseInternal(e *pgconn.PgError) trouble {
	switch m := e.Message; {
	case strings.Contains(m, "does not exist"):
		return noDatabase
	case strings.Contains(m, "authentication failed"):
		return proxySecretStale
	default:
		return proxyInternal
	}
}

func diagnoseCertificate(err *tls.CertificateVerificationError, kind Kind) trouble {
	text := err.Error()
	switch {
	case strings.Contains(text, "certificate is valid for"), strings.Contains(text, "not valid for any names"):
		return certificateName
	case strings.Contains(text, "expired or is not yet valid"):
		if strings.Contains(text, " is before ") {
			return certificateEarly
		}
		return certificateExpired
	case kind.IsProxy():
		return proxyAuthority
	case kind.IsRDS():
		return rdsAuthority
	default:
		return otherAuthority
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

// diagnoseSilence is about what happens below PostgreSQL's protocol.
func diagnoseSilence(err error, kind Kind) trouble {
	switch text := err.Error(); {
	case errors.Is(err, errSilent) && errors.Is(err, errNotThere):
		return portSilent
	case errors.Is(err, errSilent):
		return serverSilent
	case errors.Is(err, context.DeadlineExceeded) && kind.IsProxy():
		return borrowWaits
	case errors.Is(err, context.DeadlineExceeded):
		return cutOff
	case errors.Is(err, context.Canceled):
		return cancelled
	case errors.Is(err, syscall.ECONNREFUSED), strings.Contains(text, "connection refused"):
		return portRefused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return noRoute
	case strings.Contains(text, "unknown message type"), strings.Contains(text, "invalid body length"):
		return notPostgreSQL
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return loginHungUp
	default:
		return unreachable
	}
}

// credentialsError is a failure to get credentials, as opposed to their refusal.
type credentialsError struct {
	err       error
	temporary bool
	found     finding
}

func (e *credentialsError) Error() string { return e.err.Error() }
func (e *credentialsError) Unwrap() error { return e.err }

// readerError is a writer endpoint that led to a server in recovery.
type readerError struct{ addr string }

func (e *readerError) Error() string { return "the server at " + e.addr + " is in recovery" }
