package proxy

import (
	"net/netip"
	"strings"
)

// Kind is what a host name tells about the server behind it. It decides how a
// connection is opened and when it is given up; see [Endpoint].
type Kind uint8

const (
	// KindOther is any host that is not an RDS endpoint: a laptop, a container, a
	// custom DNS name.
	KindOther Kind = iota
	// KindProxy is the default endpoint of an RDS Proxy:
	// name.proxy-abc.region.rds.amazonaws.com.
	KindProxy
	// KindProxyEndpoint is a further endpoint of an RDS Proxy, read-write or
	// read-only: name.endpoint.proxy-abc.region.rds.amazonaws.com.
	KindProxyEndpoint
	// KindWriter is a cluster endpoint: name.cluster-abc.region.rds.amazonaws.com.
	KindWriter
	// KindReader is a cluster's reader endpoint:
	// name.cluster-ro-abc.region.rds.amazonaws.com.
	KindReader
	// KindCustom is a custom cluster endpoint:
	// name.cluster-custom-abc.region.rds.amazonaws.com.
	KindCustom
	// KindInstance is one database instance: name.abc.region.rds.amazonaws.com.
	KindInstance
	// KindGlobal is the writer endpoint of a global database:
	// name.global-abc.global.rds.amazonaws.com. It names no region.
	KindGlobal
)

var kindNames = [...]string{
	KindOther: "other", KindProxy: "proxy", KindProxyEndpoint: "proxy endpoint", KindWriter: "cluster writer",
	KindReader: "cluster reader", KindCustom: "custom cluster endpoint", KindInstance: "instance", KindGlobal: "global writer",
}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return "unknown"
}

// IsProxy reports whether the endpoint belongs to an RDS Proxy.
func (k Kind) IsProxy() bool { return k == KindProxy || k == KindProxyEndpoint }

// IsRDS reports whether AWS runs the server: it speaks TLS and can verify IAM tokens.
func (k Kind) IsRDS() bool { return k != KindOther }

// Endpoint is a host name taken apart.
type Endpoint struct {
	Host   string // lower case, no trailing dot
	Kind   Kind
	Region string // "" if the name does not tell
}

// rdsSuffixes are the domains RDS endpoints live in, by AWS partition. China puts
// the region behind "rds" in some endpoints and before it in others.
// Source: https://docs.aws.amazon.com/general/latest/gr/rds-service.html and
// https://docs.amazonaws.cn/en_us/aws/latest/userguide/endpoints-Beijing.html
var rdsSuffixes = []string{
	".rds.amazonaws.com", ".rds.amazonaws.com.cn", ".amazonaws.com.cn",
	".rds.c2s.ic.gov", ".rds.sc2s.sgov.gov", ".rds.cloud.adc-e.uk", ".rds.csp.hci.ic.gov",
}

// ParseEndpoint tells from a host name alone what kind of endpoint it is and in
// which region. It does not resolve the name. It fails, with a [*ConfigError], if
// host is no host name at all: empty, with a scheme, a port, a path or characters
// that DNS does not allow.
//
// The forms of the names: https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/Aurora.Overview.Endpoints.html
// and https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-endpoints.html
func ParseEndpoint(host string) (Endpoint, error) {
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	if isSocket(host) {
		return Endpoint{Host: host}, nil
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return Endpoint{Host: name}, nil
	}
	if err := checkHostName(host, name); err != nil {
		return Endpoint{}, err
	}
	for _, suffix := range rdsSuffixes {
		rest, ok := strings.CutSuffix(name, suffix)
		if ok && (strings.HasPrefix(suffix, ".rds.") || strings.Contains(rest, ".rds.")) {
			return parseRDSName(name, rest)
		}
	}
	return Endpoint{Host: name}, checkMisspelt(host, name)
}

// isSocket reports whether host is a unix socket's directory.
func isSocket(host string) bool { return strings.HasPrefix(host, "/") }

func checkHostName(host, name string) error {
	bad := func(problem, fix string) error {
		return &ConfigError{Source: "host", Problem: problem, Fix: fix}
	}
	switch {
	case name == "":
		return bad("the host is empty", "write the endpoint's name, as the RDS console shows it")
	case strings.Contains(name, "://"):
		return bad("the host contains a scheme", "write the bare name, without postgres:// or https://")
	case strings.ContainsRune(name, ':'):
		return bad("the host contains a port", "write the port on its own: host:5432 in a URL, port=5432 in keyword/value form")
	case strings.ContainsRune(name, '/'):
		return bad("the host contains a slash", "write the bare name; the database goes behind host and port")
	case len(name) > 253:
		return bad("the host is longer than a DNS name can be (253 characters)", "check the connection string's quoting")
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return bad("the host "+quote(host)+" has an empty, overlong or misplaced-hyphen label", "check it for doubled dots and stray characters")
		}
		for _, r := range label {
			allowed := r == '-' || r == '_' || '0' <= r && r <= '9' || 'a' <= r && r <= 'z'
			if !allowed {
				return bad("the host "+quote(host)+" has the character "+quote(string(r))+", which no DNS name has", "check the connection string's quoting and percent-encoding")
			}
		}
	}
	return nil
}

// parseRDSName reads what stands before the partition's suffix:
// name.[endpoint.][cluster-...|proxy-...|...]id.region.
func parseRDSName(host, rest string) (Endpoint, error) {
	labels := strings.Split(rest, ".")
	malformed := &ConfigError{
		Source:  "host",
		Problem: quote(host) + " ends like an RDS endpoint but is not one",
		Fix:     "write the whole name: NAME.proxy-ID.REGION.rds.amazonaws.com for a proxy, NAME.cluster-ID.REGION.rds.amazonaws.com for a cluster",
	}
	if len(labels) < 3 {
		return Endpoint{}, malformed
	}
	e := Endpoint{Host: host, Region: labels[len(labels)-1]}
	names := labels[:len(labels)-1]
	if names[len(names)-1] == "rds" { // name.id.rds.cn-north-1.amazonaws.com.cn
		names = names[:len(names)-1]
	}
	if len(names) < 2 {
		return Endpoint{}, malformed
	}
	id, name := names[len(names)-1], names[:len(names)-1]
	extra := len(name) > 1
	switch {
	case strings.HasPrefix(id, "proxy-"):
		e.Kind = KindProxy
		if extra && name[1] == "endpoint" {
			e.Kind = KindProxyEndpoint
			extra = len(name) > 2
		}
	case strings.HasPrefix(id, "cluster-custom-"):
		e.Kind = KindCustom
	case strings.HasPrefix(id, "cluster-ro-"):
		e.Kind = KindReader
	case strings.HasPrefix(id, "cluster-"), strings.HasPrefix(id, "shardgrp-"):
		e.Kind = KindWriter
	case strings.HasPrefix(id, "global-") && e.Region == "global":
		e.Kind, e.Region = KindGlobal, ""
	default:
		e.Kind = KindInstance
	}
	if extra || (e.Region != "" && !strings.Contains(e.Region, "-")) {
		return Endpoint{}, malformed
	}
	return e, nil
}

// checkMisspelt catches names that were meant to be RDS endpoints. As KindOther
// they would be dialled without IAM and fail far from the cause.
func checkMisspelt(host, name string) error {
	aws := strings.Contains(name, ".amazonaws.")
	if strings.Contains("."+name, ".rds.amazonaws.") || aws && (strings.Contains(name, ".proxy-") || strings.Contains(name, ".cluster-")) {
		return &ConfigError{
			Source:  "host",
			Problem: quote(host) + " looks like an RDS endpoint but does not end like one",
			Fix:     "RDS endpoints end in .REGION.rds.amazonaws.com (China: .amazonaws.com.cn); copy the name from the console",
		}
	}
	return nil
}
