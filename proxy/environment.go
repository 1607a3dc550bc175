package proxy

// What the PG* environment may say. pgx, like libpq, merges these variables into
// every connection string; on a server that is how a variable meant for psql
// changes a pool nobody looked at.
//
//   - PGHOST, PGPORT, PGUSER, PGDATABASE are not used: the connection string names
//     the server, the user and the database.
//   - PGSERVICE is refused: its file could set anything.
//   - PGPASSWORD and PGPASSFILE count for hosts that are not RDS's. An RDS host
//     without a password in the string means IAM, whatever the environment says.
//   - All others count where the string is silent, as in libpq, and are checked like
//     the string; an error names the variable.

import "strings"

// environment maps the variables that fill gaps to the keywords they stand for.
var environment = []struct{ variable, key string }{
	{"PGAPPNAME", "application_name"},
	{"PGCONNECT_TIMEOUT", "connect_timeout"},
	{"PGSSLMODE", "sslmode"},
	{"PGSSLKEY", "sslkey"},
	{"PGSSLCERT", "sslcert"},
	{"PGSSLCERTMODE", "sslcertmode"},
	{"PGSSLSNI", "sslsni"},
	{"PGSSLROOTCERT", "sslrootcert"},
	{"PGSSLPASSWORD", "sslpassword"},
	{"PGSSLNEGOTIATION", "sslnegotiation"},
	{"PGTARGETSESSIONATTRS", "target_session_attrs"},
	{"PGTZ", "timezone"},
	{"PGOPTIONS", "options"},
	{"PGMINPROTOCOLVERSION", "min_protocol_version"},
	{"PGMAXPROTOCOLVERSION", "max_protocol_version"},
	{"PGCHANNELBINDING", "channel_binding"},
	{"PGREQUIREAUTH", "require_auth"},
}

// addEnvironment fills the gaps of s from the environment.
func (s settings) addEnvironment(lookup func(string) (string, bool)) error {
	if v, ok := lookup("PGSERVICE"); ok && v != "" {
		return &ConfigError{Source: "PGSERVICE", Problem: "a service file would override the connection string", Fix: "unset PGSERVICE and write its settings into the connection string"}
	}
	for _, e := range environment {
		value, ok := lookup(e.variable)
		if !ok || value == "" || s.hasFold(e.key) {
			continue
		}
		s[e.key] = setting{value, e.variable}
	}
	return s.checkValues()
}

var passwordVariables = map[string]string{"PGPASSWORD": "password", "PGPASSFILE": "passfile"}

// addPassword takes a password from the environment, for hosts that are not RDS's.
func (s settings) addPassword(lookup func(string) (string, bool)) {
	for variable, key := range passwordVariables {
		if value, ok := lookup(variable); ok && value != "" && !s.has(key) {
			s[key] = setting{value, variable}
		}
	}
}

// hasFold is has for startup parameters, whose names PostgreSQL compares without case.
func (s settings) hasFold(key string) bool {
	for k := range s {
		if strings.EqualFold(k, key) {
			return true
		}
	}
	return false
}
