package proxy

// The entries of the catalogue, in the order of the page: that of the steps on the way to a
// connection. After a change run go test ./proxy -run TestFailuresPage -update.

import "github.com/aurorapgx/aurorapgx/retry"

const (
	checkDatabase = "check the name behind the last slash of the connection string"
	lowerLimits   = "lower WithMaxConns, or raise the proxy's or the cluster's limits"
)

var catalogue = [endOfCatalogue]entry{
	// Before anything is dialled. Cause and fix are those of the ConfigError.
	badConnString:  {name: "connection-string", step: stepParse, shows: "connection string: ...", cause: "the connection string cannot be used as it is: {problem}", fix: "{fix}"},
	badHost:        {name: "host-name", step: stepParse, shows: "host: ...", cause: "the host is no host name, or a misspelt RDS endpoint: {problem}", fix: "{fix}"},
	badEnvironment: {name: "environment", step: stepEnvironment, shows: "PGOPTIONS: ..., PGSSLMODE: ..., PGSERVICE: ...", cause: "the variable {variable} changes the connection for the worse: {problem}", fix: "{fix}"},
	badOption:      {name: "option", step: stepParse, shows: "WithIAM: ..., WithMaxConns: ..., TLSConfig: ...", cause: "an option or a field of the configuration is wrong: {problem}", fix: "{fix}"},

	weakTLS:       {name: "tls-not-verified", step: stepParse, shows: "sslmode=... does not prove who answers, falls back to plaintext", cause: "TLS would be missing or unverified where it must not be: {problem}", fix: "{fix}"},
	rootsUnusable: {name: "root-certificates", step: stepParse, shows: "sslrootcert cannot be read, contains no certificate", cause: "the file of root certificates is of no use: {problem}", fix: "{fix}"},
	proxyProtocol: {name: "proxy-protocol", step: stepParse, shows: "RDS Proxy does not support sslnegotiation=direct, channel binding, protocol 3.2", cause: "RDS Proxy does not speak what is asked for: {problem}", fix: "{fix}"},
	iamRegion:     {name: "iam-region", step: stepParse, shows: "WithIAM: ... region ...", cause: "it is not known for which region to sign IAM tokens, or it is the wrong one: {problem}", fix: "{fix}"},
	iamForbidden:  {name: "iam-forbidden", step: stepParse, shows: "require_auth or channel_binding forbids IAM tokens", cause: "a setting forbids the login with an IAM token: {problem}", fix: "{fix}"},
	twoLogins:     {name: "two-logins", step: stepParse, shows: "it has a password, and WithCredentials supplies one", cause: "two ways to log in are given: {problem}", fix: "{fix}"},

	hostUnknown: {
		name: "dns-not-found", step: stepDNS, shows: "no such host", err: ErrUnreachable, verdict: retry.NotExecuted,
		cause: "the name does not resolve; a new endpoint's name may take minutes to appear, and a private one resolves inside its VPC only",
		fix:   "compare it with the console's, and run this where the service runs",
	},
	resolverSilent: {
		name: "dns-timeout", step: stepDNS, shows: "i/o timeout of a lookup", err: ErrUnreachable, verdict: retry.NotExecuted,
		cause: "the DNS server does not answer",
		fix:   "check the VPC's DNS support (enableDnsSupport), its DHCP options, and that UDP and TCP port 53 are open towards the resolver",
	},
	resolverFailed: {
		name: "dns-failed", step: stepDNS, shows: "server misbehaving", err: ErrUnreachable, verdict: retry.NotExecuted,
		cause: "the DNS server answers with an error",
		fix:   "check /etc/resolv.conf and the resolver's forwarding rules; nslookup of the host shows the same",
	},
	portRefused: {
		name: "tcp-refused", step: stepTCP, shows: "connection refused", err: ErrUnreachable, verdict: retry.NotExecuted,
		cause: "the host is there and nothing listens on this port",
		fix:   "check the port, and that the server is started",
	},
	portSilent: {
		name: "tcp-timeout", step: stepTCP, shows: "no answer from the server", err: ErrUnreachable, verdict: retry.NotExecuted,
		cause: "the server accepts no connection: a security group, a network ACL or a route drops the packets, or the host is down",
		fix:   "check the security group of the endpoint (inbound, this port, from the client's group), and whether the host is reachable from this subnet",
	},
	noRoute: {
		name: "tcp-no-route", step: stepTCP, shows: "no route to host, network is unreachable", err: ErrUnreachable, verdict: retry.NotExecuted,
		cause: "this machine has no route to the address",
		fix:   "check the VPN, the route tables and peering, and whether the endpoint's address family (IPv4, IPv6) exists here",
	},
	serverSilent: {
		name: "server-silent", step: stepLogin, shows: "no answer from the server, behind an open connection", err: ErrUnreachable, verdict: retry.NotExecuted,
		cause: "something accepts the connection and does not answer: a tunnel or load balancer with nothing behind it, or a server too busy to",
		fix:   "check what listens there, and where a tunnel leads; a paused Aurora Serverless instance needs 15 s or more to resume",
	},
	loginHungUp: {
		name: "login-hung-up", step: stepLogin, shows: "unexpected EOF, connection reset by peer", err: ErrUnreachable, verdict: retry.NotExecuted,
		cause: "the connection is closed in the middle of the login: by a load balancer or tunnel with nothing behind it, or by a server that is stopping",
		fix:   "check what is behind this port, and the server's log",
	},
	notPostgreSQL: {
		name: "not-postgresql", step: stepLogin, shows: "unknown message type, invalid body length", err: ErrUnreachable, verdict: retry.NotExecuted,
		cause: "what answers on this port does not speak PostgreSQL's protocol",
		fix:   "check host and port: 5432 is PostgreSQL's and RDS Proxy's",
	},
	cutOff: {
		name: "deadline", step: stepLogin, shows: "context deadline exceeded", err: ErrUnreachable, verdict: retry.NotExecuted,
		cause: "the time given was over before the login was",
		fix:   "give the context, or WithAttemptTimeout, more time; if that does not help the server is overloaded",
	},
	cancelled: {
		name: "cancelled", step: stepLogin, shows: "context canceled", err: ErrUnreachable, verdict: retry.NotExecuted,
		cause: "the caller's context was cancelled before the login was done",
		fix:   "find out who cancelled it: often a client that went away, or a shutdown",
	},
	unreachable: {
		name: "unreachable", step: stepLogin, shows: "08xxx, 53xxx, 57xxx, 58xxx, or a network error", err: ErrUnreachable, verdict: retry.NotExecuted,
		cause: "the server cannot be reached, or cannot serve anybody just now",
		fix:   "try again, and look at the server's log if it stays like this",
	},

	noTLS: {
		name: "tls-unsupported", step: stepTLS, shows: "server refused TLS connection", err: ErrTLSRefused, verdict: retry.Permanent,
		cause: "the server speaks no TLS, or is no PostgreSQL",
		fix:   "for a server without it, on a laptop say, write sslmode=disable; otherwise switch TLS on at the server",
	},
	wantsTLS: {
		name: "tls-required", step: stepTLS, shows: "28000: requires TLS", err: ErrTLSRefused, verdict: retry.Permanent,
		cause: "the server takes no connection without TLS, and this one has none",
		fix:   "write sslmode=verify-full",
	},
	clientCertificateWanted: {
		name: "tls-client-certificate", step: stepTLS, shows: "remote error: tls: certificate required", err: ErrTLSRefused, verdict: retry.Permanent,
		cause: "the server wants a certificate of the client's",
		fix:   "add sslcert=FILE and sslkey=FILE, issued by an authority that the server trusts",
	},
	noCommonTLS: {
		name: "tls-no-common-parameters", step: stepTLS, shows: "remote error: tls: handshake failure, protocol version not supported", err: ErrTLSRefused, verdict: retry.Permanent,
		cause: "client and server found no common TLS parameters, or something else than PostgreSQL answers on this port",
		fix:   "allow TLS 1.2 or 1.3 at the server, and leave CipherSuites and CurvePreferences of a TLSConfig alone",
	},
	certificateName: {
		name: "certificate-name", step: stepTLS, shows: "certificate is valid for ..., not ...", err: ErrCertificate, verdict: retry.Permanent,
		cause: "the certificate is for another name than was dialled: a CNAME of your own cannot be verified, nor used with IAM",
		fix:   "dial the endpoint by its RDS name",
	},
	certificateExpired: {
		name: "certificate-expired", step: stepTLS, shows: "certificate has expired or is not yet valid: current time ... is after ...", err: ErrCertificate, verdict: retry.Permanent,
		cause: "the server's certificate has expired, or this machine's clock is ahead",
		fix:   "check this machine's clock; if it is right, renew the server's certificate",
	},
	certificateEarly: {
		name: "certificate-not-yet-valid", step: stepTLS, shows: "certificate has expired or is not yet valid: current time ... is before ...", err: ErrCertificate, verdict: retry.Permanent,
		cause: "the server's certificate is not valid yet, which is nearly always a clock that is behind",
		fix:   "check this machine's clock",
	},
	proxyAuthority: {
		name: "certificate-authority-proxy", step: stepTLS, shows: "certificate signed by unknown authority, from an RDS Proxy", err: ErrCertificate, verdict: retry.Permanent,
		cause: "RDS Proxy's certificates come from Amazon Trust Services; something else answers here",
		fix:   "check where the name leads: a tunnel, a hosts file, a proxy that intercepts TLS",
	},
	rdsAuthority: {
		name: "certificate-authority-rds", step: stepTLS, shows: "certificate signed by unknown authority, from a cluster or instance endpoint", err: ErrCertificate, verdict: retry.Permanent,
		cause: "cluster and instance endpoints use RDS's own CA, which no operating system has",
		fix:   "add sslrootcert=global-bundle.pem (https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem) or WithRootCAs",
	},
	otherAuthority: {
		name: "certificate-authority", step: stepTLS, shows: "certificate signed by unknown authority", err: ErrCertificate, verdict: retry.Permanent,
		cause: "the server's certificate is signed by an authority that is not known here",
		fix:   "add sslrootcert=FILE with the CA's certificate",
	},

	noAWSCredentials: {
		name: "aws-credentials-missing", step: stepCredentials, shows: "AWS credentials: ...", err: ErrCredentials, verdict: retry.Permanent, slow: true,
		cause: "no AWS credentials to sign an IAM token with",
		fix:   "give the task or function a role, or set AWS_PROFILE on a laptop; WithCredentials or a password in the connection string do without IAM",
	},
	ssoExpired: {
		name: "aws-sso-expired", step: stepCredentials, shows: "the SSO session has expired or is invalid", err: ErrCredentials, verdict: retry.Permanent, slow: true,
		cause: "the AWS profile logs in through IAM Identity Center, and that session has ended",
		fix:   "run aws sso login for this profile",
	},
	awsCredentialsSilent: {
		name: "aws-credentials-timeout", step: stepCredentials, shows: "AWS credentials: context deadline exceeded", err: ErrCredentials, verdict: retry.NotExecuted, slow: true,
		cause: "where AWS credentials come from does not answer in time",
		fix:   "check that the container or instance metadata endpoint is reachable (IMDS hop limit 2 in containers), and STS through a NAT gateway or VPC endpoint",
	},
	secretMissing: {
		name: "secret-not-found", step: stepCredentials, shows: "ResourceNotFoundException", err: ErrCredentials, verdict: retry.Permanent, slow: true,
		cause: "Secrets Manager has no secret {secret} here",
		fix:   "check the name, the region, and that the secret has a version with this stage",
	},
	secretDenied: {
		name: "secret-denied", step: stepCredentials, shows: "AccessDeniedException, DecryptionFailure", err: ErrCredentials, verdict: retry.Permanent, slow: true,
		cause: "the role may not read the secret {secret}",
		fix:   "allow secretsmanager:GetSecretValue on it, and kms:Decrypt if it has a key of its own",
	},
	secretUnusable: {
		name: "secret-unusable", step: stepCredentials, shows: "secret ...: is not valid JSON, field ... is missing", err: ErrCredentials, verdict: retry.Permanent, slow: true,
		cause: "the secret {secret} is not what RDS's secrets look like",
		fix:   `store {"username": ..., "password": ...}, as RDS does`,
	},
	secretUnavailable: {
		name: "secret-unavailable", step: stepCredentials, shows: "Secrets Manager cannot be asked, or throttles", err: ErrCredentials, verdict: retry.NotExecuted, slow: true,
		cause: "Secrets Manager cannot be reached, throttles or fails, and nothing is cached",
		fix:   "check AWS credentials and region, and that this subnet reaches Secrets Manager, by a NAT gateway or a VPC endpoint",
	},
	sourceFailed: {
		name: "credentials-source", step: stepCredentials, shows: "whatever the source returned", err: ErrCredentials, verdict: retry.Permanent, slow: true,
		cause: "the source given to WithCredentials returned an error",
		fix:   "look at that error: it is the source's own",
	},
	sourceSilent: {
		name: "credentials-timeout", step: stepCredentials, shows: "context deadline exceeded, of the source", err: ErrCredentials, verdict: retry.NotExecuted, slow: true,
		cause: "the source given to WithCredentials does not answer in time",
		fix:   "look at what it waits for, and see to it that it ends with its context",
	},
	credentialsUnfit: {
		name: "credentials-unfit", step: stepCredentials, shows: "WithCredentials: ..., credentials: ...", err: ErrCredentials, verdict: retry.Permanent,
		cause: "the credentials do not fit this connection: {problem}",
		fix:   "{fix}",
	},

	passwordRejected: {
		name: "password-rejected", step: stepLogin, shows: "28P01: password authentication failed", err: ErrCredentialsRejected, verdict: retry.NotExecuted, refused: true,
		cause: "user name or password is wrong",
		fix:   "check both; after a rotation the source must return the new one",
	},
	unknownRole: {
		name: "role-unknown", step: stepLogin, shows: `28000: role "..." does not exist`, err: ErrCredentialsRejected, verdict: retry.NotExecuted, refused: true,
		cause: "the database has no such user; unquoted names were folded to lower case when it was created",
		fix:   "check the user's spelling, or CREATE ROLE ... LOGIN",
	},
	roleWithoutLogin: {
		name: "role-may-not-log-in", step: stepLogin, shows: `28000: role "..." is not permitted to log in`, err: ErrCredentialsRejected, verdict: retry.NotExecuted, refused: true,
		cause: "the role exists and is one that cannot log in",
		fix:   "ALTER ROLE ... LOGIN, or log in as a user that is a member of it",
	},
	noProxySecret: {
		name: "proxy-no-secret", step: stepLogin, shows: "28000: This RDS proxy has no credentials for the role", err: ErrCredentialsRejected, verdict: retry.NotExecuted, refused: true,
		cause: "the proxy has no secret for this user",
		fix:   "register one, or switch the proxy to end-to-end IAM (DefaultAuthScheme IAM_AUTH)",
	},
	iamWanted: {
		name: "iam-wanted", step: stepLogin, shows: "28000: Enable IAM authentication; IAM or PAM authentication failed, of a password", err: ErrCredentialsRejected, verdict: retry.Permanent,
		cause: "this user logs in with an IAM token, and a password was sent",
		fix:   "leave the password out of the connection string",
	},
	iamOff: {
		name: "proxy-without-iam", step: stepLogin, shows: "28000: ... DefaultAuthScheme ...", err: ErrCredentialsRejected, verdict: retry.Permanent,
		cause: "the proxy does not do IAM for this user",
		fix:   "pass WithCredentials, or set the proxy's IAM authentication to required",
	},
	proxySecretStale: {
		name: "proxy-secret-stale", step: stepLogin, shows: "XX000: ... authentication failed", err: ErrCredentialsRejected, verdict: retry.NotExecuted, slow: true,
		cause: "the proxy could not log in to the database: its secret and the user's password differ, as for a moment during rotation",
		fix:   "set both to the same password",
	},
	secretUnchanged: {
		name: "rotation-unfinished", step: stepLogin, shows: "a refusal, and a source that has nothing else", err: ErrCredentialsRejected, verdict: retry.NotExecuted, slow: true, refused: true,
		cause: "{source} has not changed since the server refused it, as during a rotation between its steps setSecret and finishSecret",
		fix:   "if none is under way, {advice}",
	},
	alternatingUsers: {
		name: "rotation-alternating-users", step: stepLogin, shows: "28000: no credentials for the role, of a secret that alternates", err: ErrCredentialsRejected, verdict: retry.NotExecuted, slow: true, refused: true,
		cause: "the secret alternates between the users {one} and {other}, and alternating-user rotation does not work behind RDS Proxy: " +
			"the proxy knows the user of AWSCURRENT only, and with each rotation ends the sessions of the other and refuses its logins (https://github.com/aws/aws-cdk/issues/25568)",
		fix: "rotate with the single-user strategy, whose gap this library sits out, or log in with IAM, or connect to the cluster's own endpoint",
	},
	iamThrottled: {
		name: "iam-throttled", step: stepLogin, shows: "53300, 28P01, 28000: too many competing requests", err: ErrTooManyConnections, verdict: retry.NotExecuted, slow: true,
		cause: "too many logins with IAM tokens at a time: RDS checks about 200 a second, fewer on small instances",
		fix:   "keep connections instead of making new ones, and lower WithConnectLimit",
	},
	tokenMalformed: {
		name: "token-malformed", step: stepLogin, shows: "28P01, 28000", err: ErrCredentialsRejected, verdict: retry.NotExecuted, refused: true,
		cause: "the token is not a well-formed URL",
		fix:   "it may have been cut or percent-encoded twice: pass it on as it was signed, or let this library sign",
	},
	tokenUndated: {
		name: "token-undated", step: stepLogin, shows: "28P01, 28000", err: ErrCredentialsRejected, verdict: retry.NotExecuted, refused: true,
		cause: "the token has no date",
		fix:   "sign it with the SDK's auth.BuildAuthToken, or let this library sign",
	},
	tokenHost: {
		name: "token-host", step: stepLogin, shows: "28P01, 28000", err: ErrCredentialsRejected, verdict: retry.NotExecuted, refused: true,
		cause: "the token was signed for host {signed}, and {dialled} was dialled",
		fix:   "sign for the host and port of the endpoint itself",
	},
	tokenUser: {
		name: "token-user", step: stepLogin, shows: "28P01, 28000", err: ErrCredentialsRejected, verdict: retry.NotExecuted, refused: true,
		cause: "the token was signed for the user {signed}, and {user} logs in",
		fix:   "sign for the user who logs in",
	},
	tokenExpired: {
		name: "token-expired", step: stepLogin, shows: "28P01, 28000", err: ErrCredentialsRejected, verdict: retry.NotExecuted, refused: true,
		cause: "the token is {age} old, and tokens are valid for 15 minutes",
		fix:   "sign one for each connect",
	},
	tokenEarly: {
		name: "token-early", step: stepLogin, shows: "28P01, 28000", err: ErrCredentialsRejected, verdict: retry.NotExecuted, refused: true,
		cause: "the token is dated {ahead} ahead of this machine's clock",
		fix:   "check the clock of the machine that signed it",
	},
	tokenRegion: {
		name: "token-region", step: stepLogin, shows: "28P01, 28000", err: ErrCredentialsRejected, verdict: retry.NotExecuted, refused: true,
		cause: "the token was signed for the region {signed}, and the endpoint is in {region}",
		fix:   "sign for the endpoint's region",
	},
	tokenRejected: {
		name: "token-rejected", step: stepLogin, shows: "28P01, 28000: PAM authentication failed", err: ErrCredentialsRejected, verdict: retry.NotExecuted, refused: true,
		cause: "the token names the right host, user and region and was signed at {signed} by this machine's clock",
		fix:   "check that the role that signed it may rds-db:connect as this user, that the clock is right to within 5 minutes, and that the user was granted rds_iam",
	},
	tokenRejectedByProxy: {
		name: "token-rejected-by-proxy", step: stepLogin, shows: "28P01, 28000: The IAM authentication failed for the role", err: ErrCredentialsRejected, verdict: retry.NotExecuted, refused: true,
		cause: "the token names the right host, user and region and was signed at {signed} by this machine's clock",
		fix:   "check that the role that signed it may rds-db:connect as this user, that the clock is right to within 5 minutes, and that the user has a secret registered with the proxy, or rds_iam with end-to-end IAM",
	},

	noHBARule: {
		name: "pg-hba", step: stepLogin, shows: "28000: no pg_hba.conf entry", err: ErrNotPermitted, verdict: retry.Permanent,
		cause: "the server's pg_hba.conf has no rule for this client, user and database, or wants TLS",
		fix:   `add a rule, or write sslmode=verify-full if the message ends in "no encryption"`,
	},
	resuming: {
		name: "resuming", step: stepLogin, shows: "28000: no pg_hba.conf entry, from an Aurora instance", err: ErrStartingUp, verdict: retry.NotExecuted,
		cause: "an instance that resumes from auto-pause says this for some seconds; one that goes on to say it has no rule for this client",
		fix:   "try again in half a minute",
	},
	ownRefusal: {
		name: "client-settings", step: stepLogin, shows: "require_auth check failed, channel binding check failed, ...", err: ErrUnexpected, verdict: retry.Permanent,
		cause: "this client's own settings forbid what the server offers",
		fix:   "look at require_auth, channel_binding, sslcertmode and min_protocol_version",
	},
	parameterRefused: {
		name: "startup-parameter", step: stepStartup, shows: "0A000: RDS Proxy currently doesn't support the option", err: ErrStartupParameter, verdict: retry.Permanent,
		cause: "RDS Proxy takes a handful of startup parameters and refuses all others",
		fix:   "put the setting into the proxy's initialization query or ALTER ROLE ... SET",
	},
	parameterUnknown: {
		name: "startup-parameter-unknown", step: stepStartup, shows: "42704: unrecognized configuration parameter", err: ErrStartupParameter, verdict: retry.Permanent,
		cause: "a key of the connection string is no keyword of this library and no setting of the server",
		fix:   "check its spelling",
	},
	parameterInvalid: {
		name: "startup-parameter-invalid", step: stepStartup, shows: "22023: invalid value for parameter; 55P02, 42501: cannot be set", err: ErrStartupParameter, verdict: retry.Permanent,
		cause: "a setting in the connection string has a value that the server does not take, or may not be set by a client",
		fix:   "correct it or leave it out",
	},
	noDatabase: {
		name: "database-not-found", step: stepLogin, shows: "3D000: database does not exist", err: ErrDatabaseNotFound, verdict: retry.Permanent,
		cause: "the server has no database of this name",
		fix:   checkDatabase,
	},
	connectNotGranted: {
		name: "connect-not-granted", step: stepLogin, shows: "42501: permission denied for database", err: ErrNotPermitted, verdict: retry.Permanent,
		cause: "the user may not connect to this database",
		fix:   "GRANT CONNECT ON DATABASE ... TO the user",
	},
	tooManyClients: {
		name: "too-many-connections", step: stepLogin, shows: "53300: too many clients already", err: ErrTooManyConnections, verdict: retry.NotExecuted, slow: true,
		cause: "all connections that the server allows (max_connections) are in use",
		fix:   lowerLimits,
	},
	reservedSlots: {
		name: "too-many-connections-reserved", step: stepLogin, shows: "53300: remaining connection slots are reserved", err: ErrTooManyConnections, verdict: retry.NotExecuted, slow: true,
		cause: "the connections that are left are reserved for superusers and for AWS itself",
		fix:   lowerLimits,
	},
	roleLimit: {
		name: "too-many-connections-role", step: stepLogin, shows: "53300: too many connections for role", err: ErrTooManyConnections, verdict: retry.NotExecuted, slow: true,
		cause: "the role has a CONNECTION LIMIT, and it is reached",
		fix:   "lower WithMaxConns, or ALTER ROLE ... CONNECTION LIMIT -1",
	},
	databaseLimit: {
		name: "too-many-connections-database", step: stepLogin, shows: "53300: too many connections for database", err: ErrTooManyConnections, verdict: retry.NotExecuted, slow: true,
		cause: "the database has a CONNECTION LIMIT, and it is reached",
		fix:   "lower WithMaxConns, or ALTER DATABASE ... CONNECTION LIMIT -1",
	},
	proxyRate: {
		name: "proxy-rate", step: stepLogin, shows: "53300 of a proxy: rate, limit exceeded", err: ErrTooManyConnections, verdict: retry.NotExecuted, slow: true,
		cause: "the proxy has as many clients as it takes, or they connect faster than it takes them",
		fix:   "keep connections instead of making new ones, lower WithMaxConns and WithConnectLimit, or raise the cluster's capacity",
	},
	startingUp: {
		name: "starting-up", step: stepLogin, shows: "57P03: the database system is starting up", err: ErrStartingUp, verdict: retry.NotExecuted,
		cause: "the server is starting or recovering",
		fix:   "give it time: NewPool and Connect go on trying until the connect budget ends",
	},
	shuttingDown: {
		name: "shutting-down", step: stepLogin, shows: "57P01, 57P02, 57P03: the database system is shutting down", err: ErrStartingUp, verdict: retry.NotExecuted,
		cause: "the server is stopping or restarting, as in a failover or in maintenance",
		fix:   "wait for it to come back, or for the endpoint to lead to the new writer",
	},
	outOfResources: {
		name: "out-of-resources", step: stepLogin, shows: "53100, 53200", err: ErrUnreachable, verdict: retry.NotExecuted,
		cause: "the server has no memory or disk left for another session",
		fix:   "raise the cluster's maximum capacity, and look for what uses it up",
	},
	proxyInternal: {
		name: "proxy-internal", step: stepLogin, shows: "XX000", err: ErrUnreachable, verdict: retry.NotExecuted,
		cause: "the proxy, or the database behind it, failed without saying why",
		fix:   "look at the proxy's log in CloudWatch with enhanced logging on, and at its target's health",
	},
	borrowTimeout: {
		name: "borrow-timeout", step: stepBorrow, shows: "08000: Timed-out waiting to acquire database connection", err: ErrBorrowTimeout, verdict: retry.NotExecuted,
		cause: "the proxy's pool is exhausted or the database is down",
		fix:   "look at DatabaseConnectionsBorrowLatency and DatabaseConnectionsCurrentlySessionPinned",
	},
	borrowWaits: {
		name: "borrow-waits", step: stepBorrow, shows: "context deadline exceeded, from an RDS Proxy that has answered", err: ErrUnreachable, verdict: retry.NotExecuted,
		cause: "the proxy answers but does not finish the login, as while it waits for a database",
		fix:   "look at the health of the proxy's targets, and at DatabaseConnectionsBorrowLatency",
	},
	leadsToReader: {
		name: "writer-leads-to-reader", step: stepRole, shows: "the server at ... is in recovery", err: ErrReader, verdict: retry.NotExecuted,
		cause: "the writer endpoint leads to a reader; after a failover the endpoint's DNS record follows within seconds",
		fix:   "try again; if it stays like this, look for a DNS cache that holds on to records",
	},
	unexpected: {
		name: "unexpected", step: stepLogin, shows: "any other SQLSTATE", err: ErrUnexpected, verdict: retry.Permanent,
		cause: "the server refused the login for a reason of its own",
		fix:   "look up the SQLSTATE (https://www.postgresql.org/docs/current/errcodes-appendix.html), and the server's log",
	},
}
