package proxy

// The catalogue: everything that is known to keep a connect from succeeding, with what it
// looks like, what is behind it and what to do. It is the one place these texts are
// written: [ConnectError], [Check] and the page FAILURES.md take them from here. The
// entries themselves are in catalogue_entries.go, and which of them an error is, diagnose.go decides.

import (
	"strings"

	"github.com/aurorapgx/aurorapgx/retry"
)

// trouble is an entry of the catalogue; 0 is none.
type trouble uint8

// entry says of a trouble what is the same each time. Words in braces are filled in when it
// is met.
type entry struct {
	name    string // as Report.Case and ConnectError.Case have it
	step    string // on which step of a Check it shows
	shows   string // what the error says, in short
	cause   string // the likely reason
	fix     string // what to do about it
	err     error  // one of the package's Err values
	verdict retry.Verdict
	slow    bool // the server asked for fewer connects: pause longer
	refused bool // the credentials were refused: other ones may do
}

// The steps of a Check.
const (
	stepParse       = "parse"
	stepEnvironment = "environment"
	stepDNS         = "DNS"
	stepTCP         = "TCP"
	stepTLS         = "TLS"
	stepCredentials = "credentials"
	stepStartup     = "startup"
	stepLogin       = "login"
	stepBorrow      = "borrow"
	stepRole        = "role"
	stepSettings    = "settings"
)

const (
	noTrouble trouble = iota

	badConnString
	badHost
	badEnvironment
	badOption
	weakTLS
	rootsUnusable
	proxyProtocol
	iamRegion
	iamForbidden
	twoLogins

	hostUnknown
	resolverSilent
	resolverFailed
	portRefused
	portSilent
	noRoute
	serverSilent
	loginHungUp
	notPostgreSQL
	cutOff
	cancelled
	unreachable

	noTLS
	wantsTLS
	clientCertificateWanted
	noCommonTLS
	certificateName
	certificateExpired
	certificateEarly
	proxyAuthority
	rdsAuthority
	otherAuthority

	noAWSCredentials
	ssoExpired
	awsCredentialsSilent
	secretMissing
	secretDenied
	secretUnusable
	secretUnavailable
	sourceFailed
	sourceSilent
	credentialsUnfit

	passwordRejected
	unknownRole
	roleWithoutLogin
	noProxySecret
	iamWanted
	iamOff
	proxySecretStale
	secretUnchanged
	alternatingUsers
	iamThrottled
	tokenMalformed
	tokenUndated
	tokenHost
	tokenUser
	tokenExpired
	tokenEarly
	tokenRegion
	tokenRejected
	tokenRejectedByProxy

	noHBARule
	resuming
	ownRefusal
	parameterRefused
	parameterUnknown
	parameterInvalid
	noDatabase
	connectNotGranted
	tooManyClients
	reservedSlots
	roleLimit
	databaseLimit
	proxyRate
	startingUp
	shuttingDown
	outOfResources
	proxyInternal
	borrowTimeout
	borrowWaits
	leadsToReader
	unexpected

	endOfCatalogue
)

func (t trouble) entry() *entry { return &catalogue[t] }

// found is the finding that it is this trouble; pairs fill in what is in braces.
func (t trouble) found(pairs ...string) finding {
	e := t.entry()
	f := finding{trouble: t, cause: e.err, verdict: e.verdict, slow: e.slow, refused: e.refused, why: e.cause, fix: e.fix}
	if len(pairs) > 0 {
		for i := 0; i < len(pairs); i += 2 {
			pairs[i] = "{" + pairs[i] + "}"
		}
		r := strings.NewReplacer(pairs...)
		f.why, f.fix = r.Replace(f.why), r.Replace(f.fix)
	}
	return f
}

// configTrouble is the entry for a mistake found before anything is dialled.
func configTrouble(e *ConfigError) finding {
	t := badOption
	switch {
	case strings.HasPrefix(e.Source, "PG"):
		t = badEnvironment
	case e.trouble != noTrouble:
		t = e.trouble
	case e.Source == fromConnString:
		t = badConnString
	case e.Source == "host":
		t = badHost
	}
	f := t.found("variable", e.Source)
	f.why, f.fix = e.Source+": "+e.Problem, e.Fix
	return f
}
