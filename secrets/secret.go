package secrets

// What is in a secret: the JSON object that RDS, its rotation functions and the RDS
// Proxy console agree on.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Secret is what a secret says: as whom to log in, and where, if it tells. It prints
// as its credentials do.
type Secret struct {
	Credentials

	Host     string // "" if the secret does not tell
	Port     uint16 // 0 if the secret does not tell
	Database string // "" if the secret does not tell
}

// Parse reads a secret of the form
//
//	{"username": "app", "password": "...", "host": "...", "port": 5432, "dbname": "orders", "engine": "postgres"}
//
// of which username and password are required, port may be a string, engine has to
// be PostgreSQL's, and other fields (dbClusterIdentifier, masterarn, ...) do not
// matter. Names are case-sensitive. name is the secret's, for errors, which are
// [*Error] and never quote values.
// Source: https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_secret_json_structure.html
func Parse(name, text string) (Secret, error) {
	return form{userKey: "username", passwordKey: "password"}.parse(name, text)
}

// form is how a secret is to be read.
type form struct {
	userKey, passwordKey string
	plain                bool   // the secret is the password
	user                 string // of a plain one
}

func (f form) parse(name, text string) (Secret, error) {
	if f.plain {
		return f.parsePlain(name, text)
	}
	fields, err := readObject(name, text)
	if err != nil {
		return Secret{}, err
	}
	r := reader{name: name, fields: fields}
	var s Secret
	s.User = r.required(f.userKey, "a user name")
	s.Password = r.required(f.passwordKey, "a password")
	s.Host = r.host()
	s.Port = r.port()
	s.Database = r.optional("dbname", "a database name")
	r.engine()
	if r.err != nil {
		return Secret{}, r.err
	}
	return s, nil
}

func (f form) parsePlain(name, text string) (Secret, error) {
	switch {
	case text == "":
		return Secret{}, &Error{Secret: name, Problem: "is empty", Fix: "expected the password itself, as PlainPassword says"}
	case strings.ContainsRune(text, 0):
		return Secret{}, &Error{Secret: name, Problem: "contains a NUL byte", Fix: "PostgreSQL's passwords cannot"}
	case strings.HasPrefix(strings.TrimSpace(text), "{") && json.Valid([]byte(text)):
		return Secret{}, &Error{Secret: name, Problem: "is a JSON object, and PlainPassword expects the password itself", Fix: "leave PlainPassword out"}
	}
	return Secret{Credentials: Credentials{User: f.user, Password: text}}, nil
}

// readObject takes a JSON object apart. encoding/json's errors are not passed on: they
// quote what they stumble over.
func readObject(name, text string) (map[string]json.RawMessage, error) {
	const expected = `expected a JSON object as {"username": "...", "password": "..."}`
	bad := func(problem string) error { return &Error{Secret: name, Problem: problem, Fix: expected} }
	text = strings.TrimSpace(strings.TrimPrefix(text, "\ufeff"))
	switch {
	case text == "":
		return nil, bad("is empty")
	case text[0] == '"':
		return nil, bad("is a JSON string and not an object: it may have been encoded twice")
	case text[0] == '[':
		return nil, bad("is a JSON list")
	case text[0] != '{':
		return nil, &Error{Secret: name, Problem: "is not JSON", Fix: expected + "; for a secret that is the password itself pass PlainPassword"}
	}
	dec := json.NewDecoder(strings.NewReader(text))
	broken := func() error {
		return bad(fmt.Sprintf("is not valid JSON, at byte %d of %d", dec.InputOffset(), len(text)))
	}
	if _, err := dec.Token(); err != nil {
		return nil, broken()
	}
	fields := map[string]json.RawMessage{}
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, broken()
		}
		key, ok := token.(string)
		if !ok {
			return nil, broken()
		}
		if _, twice := fields[key]; twice {
			return nil, bad("has a field twice, which may hide the one that is meant")
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, broken()
		}
		fields[key] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, broken()
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, bad(fmt.Sprintf("goes on behind the JSON object, at byte %d of %d", dec.InputOffset(), len(text)))
	}
	return fields, nil
}

// reader reads fields and keeps the first error.
type reader struct {
	name   string
	fields map[string]json.RawMessage
	err    error
}

func (r *reader) fail(field, problem, fix string) {
	if r.err == nil {
		r.err = &Error{Secret: r.name, Field: field, Problem: problem, Fix: fix}
	}
}

func (r *reader) required(key, what string) string {
	if _, ok := r.fields[key]; !ok {
		fix, misspelt := "expected "+what, ""
		for other := range r.fields {
			if strings.EqualFold(other, key) {
				misspelt = "; there is " + strconv.Quote(other) + ", and names are case-sensitive"
			}
		}
		r.fail(key, "is missing", fix+misspelt+"; Keys reads a secret with other names")
		return ""
	}
	s := r.optional(key, what)
	if jsonKind(r.fields[key]) == "null" {
		r.fail(key, "is null", "expected "+what+", a string")
	}
	if s == "" {
		r.fail(key, "is empty", "expected "+what)
	}
	return s
}

func (r *reader) optional(key, what string) string {
	raw, ok := r.fields[key]
	if !ok || jsonKind(raw) == "null" {
		return ""
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		r.fail(key, "is "+jsonKind(raw), "expected "+what+", a string")
		return ""
	}
	if strings.ContainsRune(s, 0) {
		r.fail(key, "contains a NUL byte", "expected "+what)
		return ""
	}
	return s
}

func (r *reader) host() string {
	const what = "the bare name of a host"
	host := r.optional("host", what)
	switch {
	case strings.Contains(host, "://"):
		r.fail("host", "is a URL", "expected "+what+", without scheme")
	case strings.ContainsAny(host, "/@? ,"):
		r.fail("host", "is not one host name", "expected "+what)
	case strings.Count(host, ":") == 1:
		r.fail("host", "contains a port", "expected "+what+"; the port goes into the field \"port\"")
	}
	return host
}

func (r *reader) port() uint16 {
	raw, ok := r.fields["port"]
	if !ok || jsonKind(raw) == "null" {
		return 0
	}
	text := string(bytes.TrimSpace(raw))
	var quoted string
	if json.Unmarshal(raw, &quoted) == nil && jsonKind(raw) == "a string" {
		if text = quoted; text == "" { // as the console writes a field that was left empty
			return 0
		}
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		r.fail("port", "is no port", "expected a number from 1 to 65535, or one in quotes")
		return 0
	}
	return uint16(port)
}

// engine refuses the secret of another kind of database.
func (r *reader) engine() {
	switch engine := r.optional("engine", "postgres"); engine {
	case "", "postgres", "postgresql", "aurora-postgresql":
	default:
		r.fail("engine", "is not PostgreSQL's", "expected postgres or aurora-postgresql: this may be another database's secret")
	}
}

// jsonKind describes a value without quoting it.
func jsonKind(raw json.RawMessage) string {
	raw = bytes.TrimSpace(raw)
	switch {
	case len(raw) == 0:
		return "nothing"
	case raw[0] == '"':
		return "a string"
	case raw[0] == '{':
		return "an object"
	case raw[0] == '[':
		return "a list"
	case raw[0] == 't', raw[0] == 'f':
		return "true or false"
	case raw[0] == 'n':
		return "null"
	default:
		return "a number"
	}
}
