package proxy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// proxyParameters are the startup parameters RDS Proxy accepts beside user and
// database, spelled the way PostgreSQL spells them. It refuses all others, before
// authentication and with SQLSTATE 0A000.
// Source: https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-connecting.html
var proxyParameters = []string{"application_name", "client_encoding", "DateStyle", "TimeZone", "extra_float_digits", "search_path"}

// checkParameters holds the startup parameters against what the endpoint accepts,
// and gives those that RDS Proxy knows their canonical spelling: whether it compares
// names without case is not documented. source names where a parameter came from.
func checkParameters(kind Kind, params map[string]string, source func(name string) string) (map[string]string, error) {
	if !kind.IsProxy() {
		return maps.Clone(params), nil
	}
	accepted := make(map[string]string, len(params))
	for _, name := range slices.Sorted(maps.Keys(params)) {
		i := slices.IndexFunc(proxyParameters, func(p string) bool { return strings.EqualFold(p, name) })
		if i < 0 {
			return nil, &ConfigError{Source: source(name), Problem: refusal(name), Fix: parameterAdvice(name), trouble: parameterRefused}
		}
		accepted[proxyParameters[i]] = params[name]
	}
	return accepted, nil
}

func refusal(name string) string {
	if name == "options" {
		return "RDS Proxy refuses command-line options (the startup parameter \"options\")"
	}
	return fmt.Sprintf("RDS Proxy refuses the startup parameter %q", name)
}

// parameterAdvice says where a setting belongs instead.
func parameterAdvice(name string) string {
	switch strings.ToLower(name) {
	case "options":
		return "put the settings into the proxy's initialization query, or set them per role: ALTER ROLE app SET statement_timeout = '5s'"
	case "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_timeout", "idle_session_timeout":
		return fmt.Sprintf("set it per role: ALTER ROLE app SET %s = '5s', or in the proxy's initialization query", strings.ToLower(name))
	case "default_transaction_read_only", "default_transaction_isolation":
		return "choose it per transaction: pgx.TxOptions{AccessMode: pgx.ReadOnly}"
	case "replication":
		return "connect to the cluster endpoint: RDS Proxy does not support streaming replication"
	default:
		return fmt.Sprintf("put SET %s = ... into the proxy's initialization query; accepted as parameters are %s", name, strings.Join(proxyParameters, ", "))
	}
}
