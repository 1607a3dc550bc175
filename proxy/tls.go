package proxy

// TLS: who may answer for a host. For RDS hosts that is verify-full and nothing
// less, because an IAM token is a bearer token and whoever reads it can use it.

import (
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"fmt"
	"net/netip"
	"os"
	"slices"
)

// amazonRoots are Amazon Trust Services' root certificates, which sign the
// certificates of RDS Proxy. Images built from scratch have no others.
// Source: https://www.amazontrust.com/repository/ and
// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.howitworks.html#rds-proxy-security
//
//go:embed amazonroots.pem
var amazonRoots []byte

// checkSSLMode decides the sslmode of a connection string, before pgx sees it.
func (s settings) checkSSLMode(rds, local, iam bool) error {
	mode, source := s.get("sslmode"), s["sslmode"].source
	switch {
	case mode == "" && local && !rds && !iam:
		s["sslmode"] = setting{"disable", fromDefault}
	case mode == "":
		s["sslmode"] = setting{"verify-full", fromDefault}
	case mode == "verify-full":
	case source == "PGSSLMODE" && !local:
		return &ConfigError{
			Source:  source,
			Problem: "sslmode=" + mode + " from the environment would weaken the default, verify-full",
			Fix:     "write sslmode=" + mode + " into the connection string if it is meant, or unset PGSSLMODE",
			trouble: weakTLS,
		}
	case rds || iam:
		what := "an RDS endpoint"
		if iam {
			what = "an IAM token, which whoever reads it can use,"
		}
		return &ConfigError{
			Source:  source,
			Problem: fmt.Sprintf("sslmode=%s does not prove who answers, and %s needs that", mode, what),
			Fix:     "write sslmode=verify-full, or leave sslmode out",
			trouble: weakTLS,
		}
	case mode == "prefer" || mode == "allow":
		return &ConfigError{
			Source:  source,
			Problem: "sslmode=" + mode + " falls back to plaintext when TLS fails",
			Fix:     "write sslmode=verify-full to insist on TLS, or sslmode=disable to do without",
			trouble: weakTLS,
		}
	}
	return nil
}

// isLocal reports whether traffic to host stays on this machine.
func isLocal(host string) bool {
	if isSocket(host) || host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// trust builds the pool of root certificates: the system's, plus Amazon's for RDS
// Proxy, plus the file and the certificates the user names. Adding instead of
// replacing lets one process use a proxy (public roots) and a cluster endpoint
// (RDS's own roots).
func trust(kind Kind, file setting, extraPEM []byte) (*x509.CertPool, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool() // no system roots here; Amazon's and the user's remain
	}
	if kind.IsProxy() {
		roots.AppendCertsFromPEM(amazonRoots)
	}
	roots.AppendCertsFromPEM(extraPEM)
	if file.value == "" || file.value == "system" {
		return roots, nil
	}
	const fix = "name a PEM file; a cluster endpoint wants https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem, a proxy needs none"
	pem, err := os.ReadFile(file.value)
	if err != nil {
		return nil, &ConfigError{Source: file.source, Problem: "sslrootcert cannot be read: " + err.Error(), Fix: fix, trouble: rootsUnusable}
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, &ConfigError{Source: file.source, Problem: "sslrootcert " + quote(file.value) + " contains no certificate", Fix: fix, trouble: rootsUnusable}
	}
	return roots, nil
}

// checkTLSConfig holds a tls.Config, however it came about, against what the
// endpoint can do. RDS Proxy offers RSA suites only, TLS up to 1.3, and no
// post-quantum key exchange.
// Source: https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.howitworks.html#rds-proxy-security
func checkTLSConfig(kind Kind, cfg *tls.Config) error {
	bad := func(problem, fix string) error {
		return &ConfigError{Source: "TLSConfig", Problem: problem, Fix: fix}
	}
	if cfg.MaxVersion != 0 && cfg.MaxVersion < tls.VersionTLS12 {
		return bad("MaxVersion is older than TLS 1.2", "leave MaxVersion at 0")
	}
	if cfg.MinVersion > tls.VersionTLS13 || cfg.MaxVersion != 0 && cfg.MinVersion > cfg.MaxVersion {
		return bad("MinVersion asks for more than there is", "set MinVersion to tls.VersionTLS12 and MaxVersion to 0")
	}
	if !kind.IsProxy() {
		return nil
	}
	if cfg.MaxVersion == tls.VersionTLS12 && cfg.CipherSuites != nil && !slices.ContainsFunc(cfg.CipherSuites, usesRSA) {
		return bad("none of CipherSuites works with an RSA certificate, and RDS Proxy has no other", "leave CipherSuites at nil, or add tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256")
	}
	if cfg.CurvePreferences != nil && !slices.ContainsFunc(cfg.CurvePreferences, func(c tls.CurveID) bool {
		return c == tls.X25519 || c == tls.CurveP256 || c == tls.CurveP384 || c == tls.CurveP521
	}) {
		return bad("CurvePreferences has post-quantum groups only, which RDS Proxy does not negotiate", "leave CurvePreferences at nil")
	}
	return nil
}

func usesRSA(suite uint16) bool {
	switch suite {
	case tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA:
		return true
	default:
		return false
	}
}

// verifies reports whether cfg checks the server's certificate at all.
func verifies(cfg *tls.Config) bool {
	return cfg != nil && (!cfg.InsecureSkipVerify || cfg.VerifyPeerCertificate != nil || cfg.VerifyConnection != nil)
}
