package secrets_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/aurorapgx/aurorapgx/secrets"
)

func TestParseReadsEveryShapeOfRDSSecrets(t *testing.T) {
	t.Parallel()
	full := secrets.Secret{Credentials: secrets.Credentials{User: "app", Password: password}, Host: "db.example.com", Port: 5432, Database: "orders"}
	bare := secrets.Secret{Credentials: full.Credentials}
	for name, tt := range map[string]struct {
		text string
		want secrets.Secret
	}{
		"rotation functions'": {`{"engine":"postgres","host":"db.example.com","username":"app","password":"correct-horse","dbname":"orders","port":5432,"masterarn":"arn:aws:secretsmanager:x"}`, full},
		"console's":           {`{"username":"app","password":"correct-horse","engine":"aurora-postgresql","host":"db.example.com","port":"5432","dbname":"orders","dbClusterIdentifier":"orders"}`, full},
		"RDS-managed":         {`{"username":"app","password":"correct-horse"}`, bare},
		"empty optionals":     {`{"username":"app","password":"correct-horse","host":"","port":"","dbname":"","engine":""}`, bare},
		"null optionals":      {`{"username":"app","password":"correct-horse","host":null,"port":null,"dbname":null,"engine":null}`, bare},
		"other fields":        {`{"username":"app","password":"correct-horse","tags":{"a":[1,2]},"n":1e3}`, bare},
		"byte-order mark":     {"\ufeff{\"username\":\"app\",\"password\":\"correct-horse\"}\n", bare},
		"spread out":          {"{\n  \"username\" : \"app\" ,\n  \"password\" : \"correct-horse\"\n}\n", bare},
		"escapes":             {`{"username":"\u0061pp","password":"correct\u002dhorse"}`, bare},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := secrets.Parse("prod/orders", tt.text)
			if err != nil || got != tt.want {
				t.Errorf("got %v, host %q, port %d, database %q: %v", got, got.Host, got.Port, got.Database, err)
			}
		})
	}
}

// value stands for everything in a secret that must not be seen in an error.
const value = "s3cr3t-Valu3"

// malformed are secrets that cannot be used: what is wrong with them, in which field,
// and a part of what the error has to expect instead.
var malformed = []struct{ text, field, expected string }{
	{``, "", "JSON object"},
	{`   `, "", "JSON object"},
	{`s3cr3t-Valu3`, "", "PlainPassword"},
	{`app:s3cr3t-Valu3`, "", "PlainPassword"},
	{`postgres://app:s3cr3t-Valu3@db/orders`, "", "PlainPassword"},
	{`password=s3cr3t-Valu3`, "", "PlainPassword"},
	{`42`, "", "PlainPassword"},
	{`null`, "", "PlainPassword"},
	{`"s3cr3t-Valu3"`, "", "JSON object"},
	{`"{\"username\":\"app\",\"password\":\"s3cr3t-Valu3\"}"`, "", "encoded twice"},
	{`["app","s3cr3t-Valu3"]`, "", "JSON object"},
	{`{`, "", "JSON object"},
	{`{"username":"app","password":"s3cr3t-Valu3"`, "", "JSON object"},
	{`{"username":"app","password":"s3cr3t-Valu3",}`, "", "JSON object"},
	{`{"username":"app","password":"s3cr3t-Valu3"}}`, "", "goes on behind"},
	{`{"username":"app","password":"s3cr3t-Valu3"} s3cr3t-Valu3`, "", "goes on behind"},
	{`{'username':'app','password':'s3cr3t-Valu3'}`, "", "JSON object"},
	{`{username:"app",password:"s3cr3t-Valu3"}`, "", "JSON object"},
	{`{"username":"app" "password":"s3cr3t-Valu3"}`, "", "JSON object"},
	{`{"username":"app","password":s3cr3t-Valu3}`, "", "JSON object"},
	{`{"username":"app","password":"s3cr3t-Valu3","password":"other-s3cr3t-Valu3"}`, "", "twice"},
	{"{\"username\":\"app\",\"password\":\"s3cr3t-Valu3\n\"}", "", "JSON object"},
	{`{}`, "username", "a user name"},
	{`{"password":"s3cr3t-Valu3"}`, "username", "a user name"},
	{`{"user":"app","password":"s3cr3t-Valu3"}`, "username", "Keys"},
	{`{"Username":"app","password":"s3cr3t-Valu3"}`, "username", "case-sensitive"},
	{`{"username":"","password":"s3cr3t-Valu3"}`, "username", "a user name"},
	{`{"username":null,"password":"s3cr3t-Valu3"}`, "username", "a string"},
	{`{"username":7,"password":"s3cr3t-Valu3"}`, "username", "a string"},
	{`{"username":["app"],"password":"s3cr3t-Valu3"}`, "username", "a string"},
	{`{"username":"a\u0000pp","password":"s3cr3t-Valu3"}`, "username", "a user name"},
	{`{"username":"app"}`, "password", "a password"},
	{`{"username":"app","PASSWORD":"s3cr3t-Valu3"}`, "password", "case-sensitive"},
	{`{"username":"app","password":""}`, "password", "a password"},
	{`{"username":"app","password":null}`, "password", "a string"},
	{`{"username":"app","password":12345}`, "password", "a string"},
	{`{"username":"app","password":true}`, "password", "a string"},
	{`{"username":"app","password":{"value":"s3cr3t-Valu3"}}`, "password", "a string"},
	{`{"username":"app","password":"s3cr3t-Valu3\u0000"}`, "password", "a password"},
	{`{"username":"app","password":"s3cr3t-Valu3","host":5432}`, "host", "a string"},
	{`{"username":"app","password":"s3cr3t-Valu3","host":"postgres://s3cr3t-Valu3"}`, "host", "without scheme"},
	{`{"username":"app","password":"s3cr3t-Valu3","host":"db.example.com:5432"}`, "host", "the field \"port\""},
	{`{"username":"app","password":"s3cr3t-Valu3","host":"a.example.com,b.example.com"}`, "host", "bare name"},
	{`{"username":"app","password":"s3cr3t-Valu3","port":0}`, "port", "1 to 65535"},
	{`{"username":"app","password":"s3cr3t-Valu3","port":70000}`, "port", "1 to 65535"},
	{`{"username":"app","password":"s3cr3t-Valu3","port":5432.5}`, "port", "1 to 65535"},
	{`{"username":"app","password":"s3cr3t-Valu3","port":"s3cr3t-Valu3"}`, "port", "1 to 65535"},
	{`{"username":"app","password":"s3cr3t-Valu3","port":[5432]}`, "port", "1 to 65535"},
	{`{"username":"app","password":"s3cr3t-Valu3","dbname":1}`, "dbname", "a string"},
	{`{"username":"app","password":"s3cr3t-Valu3","engine":"mysql"}`, "engine", "postgres"},
	{`{"username":"app","password":"s3cr3t-Valu3","engine":5}`, "engine", "a string"},
}

func TestMalformedSecretsAreNamedAndNotQuoted(t *testing.T) {
	t.Parallel()
	if len(malformed) < 40 {
		t.Fatalf("only %d malformed secrets", len(malformed))
	}
	for _, tt := range malformed {
		_, err := secrets.Parse("prod/orders", tt.text)
		e, ok := errors.AsType[*secrets.Error](err)
		if !ok {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		if e.Secret != "prod/orders" || e.Field != tt.field || e.Temporary() {
			t.Errorf("%s: secret %q, field %q, temporary %t", tt.text, e.Secret, e.Field, e.Temporary())
		}
		for _, part := range []string{`"prod/orders"`, tt.field, tt.expected} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", tt.text, err, part)
			}
		}
		for _, shown := range []string{err.Error(), fmt.Sprintf("%+v", err), fmt.Sprintf("%#v", err), fmt.Sprintf("%q", err)} {
			if strings.Contains(shown, value) || strings.Contains(shown, "12345") {
				t.Errorf("%s: the error quotes the secret: %s", tt.text, shown)
			}
		}
	}
}

// FuzzParse: no panic, no error that quotes a value, and what parses is what
// encoding/json reads.
func FuzzParse(f *testing.F) {
	for _, tt := range malformed {
		f.Add(tt.text)
	}
	f.Add(`{"username":"app","password":"correct-horse","port":"5432","host":"::1","dbname":"orders"}`)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := secrets.Parse("x", text)
		fields := map[string]any{}
		valid := json.Unmarshal([]byte(strings.TrimPrefix(text, "\ufeff")), &fields) == nil
		if err == nil {
			if !valid || fields["username"] != s.User || fields["password"] != s.Password || s.User == "" || s.Password == "" {
				t.Errorf("%q: %q as %q", text, s.Password, s.User)
			}
			return
		}
		if _, ok := errors.AsType[*secrets.Error](err); !ok {
			t.Errorf("%q: %T", text, err)
		}
		for key, value := range fields { // long enough not to be a word of ours
			if v, ok := value.(string); ok && len(v) > 24 && strings.Contains(err.Error(), v) {
				t.Errorf("%q: the value of %q is in %q", text, key, err)
			}
		}
	})
}
