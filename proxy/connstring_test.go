package proxy

import (
	"errors"
	"strings"
	"testing"
)

func TestConnectionStrings(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		want map[string]string
	}{
		{"postgres://app:p%40ss@h.example:6432/orders?sslmode=disable", map[string]string{"host": "h.example", "port": "6432", "user": "app", "password": "p@ss", "database": "orders", "sslmode": "disable"}},
		{"PostgreSQL://app@h/orders", map[string]string{"host": "h", "user": "app", "database": "orders"}},
		{"postgres://app@[2001:db8::1]:5433/orders", map[string]string{"host": "2001:db8::1", "port": "5433", "user": "app", "database": "orders"}},
		{"postgres://app@a,b:5433/orders", map[string]string{"host": "a,b", "port": ",5433", "user": "app", "database": "orders"}},
		{"postgres://%2Frun%2Fpostgresql/orders?user=app", map[string]string{"host": "/run/postgresql", "user": "app", "database": "orders"}},
		{"host=h user='a p\\'p' dbname = orders", map[string]string{"host": "h", "user": "a p'p", "database": "orders"}},
		{`host=h user=back\\slash dbname=orders TimeZone=UTC`, map[string]string{"host": "h", "user": `back\slash`, "database": "orders", "timezone": "UTC"}},
	}
	for _, tt := range tests {
		s, err := parseConnString(tt.in)
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
			continue
		}
		for key, want := range tt.want {
			if s.get(key) != want {
				t.Errorf("%s: %s=%q, want %q", tt.in, key, s.get(key), want)
			}
		}
		for key := range s {
			if _, ok := tt.want[key]; !ok && s.has(key) {
				t.Errorf("%s: unexpected %s=%q", tt.in, key, s.get(key))
			}
		}
	}
}

// FuzzConnString: whatever the input, the parser answers with settings that survive
// being written down and read again, or with a ConfigError that does not show the
// password.
func FuzzConnString(f *testing.F) {
	for _, seed := range []string{
		"postgres://app:hunter2@localhost/orders?pool_max_conns=3", "host=h password='hunter2' user=u dbname=d",
		"postgres://app:hunter2%@h", "host=h password=hunter2' x", "postgres://a:hunter2@b@c/d", "postgres://[::1]:x/",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		s, err := parseConnString(in)
		if err != nil {
			if _, ok := errors.AsType[*ConfigError](err); !ok {
				t.Fatalf("%v is no ConfigError", err)
			}
			return
		}
		again, err := parseConnString(s.keywordValue())
		if err != nil {
			t.Fatalf("%q was read as %q, which is refused: %v", in, s.keywordValue(), err)
		}
		for key, one := range s {
			if again.get(key) != one.value {
				t.Fatalf("%s: %q became %q", key, one.value, again.get(key))
			}
		}
		if cfg, err := s.pgxConfig(); err == nil && s.has("password") && cfg.ConnConfig.Password != s.get("password") {
			t.Fatalf("pgx reads another password out of %q", in)
		} else if err != nil && len(s.get("password")) > 5 && strings.Contains(err.Error(), s.get("password")) {
			t.Fatalf("%v shows the password", err)
		}
	})
}
