package aurora

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// The example of RFC 7677, section 3.
func TestScramVerifier(t *testing.T) {
	t.Parallel()
	got, err := scramVerifierWith("pencil", []byte{0x5b, 0x6d, 0x99, 0x68, 0x9d, 0x12, 0x35, 0x8e, 0xec, 0xa0, 0x4b, 0x14, 0x12, 0x36, 0xfa, 0x81})
	const want = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
	if err != nil || got != want {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
	for _, password := range []string{"", "pässword", "tab\there"} {
		if _, err := scramVerifier(password); err == nil || strings.Contains(err.Error(), "ssword") {
			t.Errorf("%q: %v", password, err)
		}
	}
}

func TestQuoting(t *testing.T) {
	t.Parallel()
	if got := quoteIdentifier(`a"b`); got != `"a""b"` {
		t.Error(got)
	}
	for in, want := range map[string]string{`it's`: `'it''s'`, `a\b`: `E'a\\b'`, ``: `''`} {
		if got := quoteLiteral(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
	var b bootstrap
	b.do("x %s", quoteLiteral("$do$"))
	if got := b.statements[0]; got != "DO $doo$\nBEGIN\nx '$do$'\nEND $doo$" {
		t.Errorf("a block that holds its own end: %s", got)
	}
}

// Without a password in a statement, and without a statement for a spec that makes no sense.
func TestBootstrapRefusesBeforeItRuns(t *testing.T) {
	t.Parallel()
	const secret = "s3cret-Passw0rd"
	twoOwners := Spec{Users: []User{{Name: "a", Access: Owner}, {Name: "b", Access: Owner}}}
	for _, tt := range []struct {
		spec Spec
		opts []BootstrapOption
		want string
	}{
		{twoOwners, nil, `schema "public" has two owners, "a" and "b"`},
		{Spec{}, []BootstrapOption{WithPasswords(map[string]string{"app": secret})}, `with auth "iam" nobody logs in with one`},
		{Spec{Auth: Secrets}, []BootstrapOption{WithPasswords(map[string]string{"ap": secret})}, `"ap", who is not among the users of the spec: app, migrate`},
		{Spec{Auth: Secrets}, []BootstrapOption{WithPasswords(map[string]string{"app": secret + "ü"})}, `password of user "app": it has characters other than printable ASCII`},
	} {
		never := func(context.Context, string, ...any) (struct{}, error) {
			t.Error("something was run")
			return struct{}{}, nil
		}
		err := Bootstrap(t.Context(), never, tt.spec, tt.opts...)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), secret) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
	text, err := BootstrapSQL(Spec{Auth: Secrets}, WithPasswords(map[string]string{"app": secret}))
	if err != nil || strings.Contains(text, secret) || !strings.Contains(text, `ALTER ROLE "app" PASSWORD 'SCRAM-SHA-256$4096:`) {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestBootstrapTellsWhatFailed(t *testing.T) {
	t.Parallel()
	failed := errors.New("no such host")
	err := Bootstrap(t.Context(), func(context.Context, string, ...any) (any, error) { return nil, failed }, Spec{Database: "orders"})
	if !errors.Is(err, failed) || !strings.Contains(err.Error(), `bootstrap of database "orders"`) {
		t.Error(err)
	}
}

// Where rds_iam belongs and where not: in the text, for whoever reads it. What it does is shown by
// the integration tests.
func TestBootstrapSQLOfBothModes(t *testing.T) {
	t.Parallel()
	for auth, want := range map[Auth][2]string{IAM: {"GRANT rds_iam TO", "REVOKE rds_iam"}, Secrets: {"REVOKE rds_iam FROM", "GRANT rds_iam"}} {
		text, err := BootstrapSQL(Spec{Auth: auth})
		if err != nil || !strings.Contains(text, want[0]) || strings.Contains(text, want[1]) {
			t.Errorf("%s: %v\n%s", auth, err, text)
		}
		if !strings.HasPrefix(text, "BEGIN;\n") || !strings.HasSuffix(text, ";\n\nCOMMIT;\n") {
			t.Errorf("not one transaction:\n%s", text)
		}
		again, _ := BootstrapSQL(Spec{Auth: auth})
		if again != text {
			t.Error("two calls, two texts")
		}
	}
}
