package secrets_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/aurorapgx/aurorapgx/secrets"
)

const password = "correct-horse"

func TestCredentialsNeverPrintTheirPassword(t *testing.T) {
	t.Parallel()
	c := secrets.Credentials{User: "app", Password: password}
	printed := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
		printed[verb] = fmt.Sprintf(verb, c)
		printed["pointer "+verb] = fmt.Sprintf(verb, &c)
		printed["nested "+verb] = fmt.Sprintf(verb, struct{ C secrets.Credentials }{c})
	}
	encoded, err := json.Marshal(map[string]any{"c": c})
	if err != nil {
		t.Fatal(err)
	}
	printed["json"] = string(encoded)
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "c", c)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "c", c, "p", &c)
	printed["slog"] = log.String()
	for how, text := range printed {
		if strings.Contains(text, password) || strings.Contains(text, fmt.Sprintf("%x", password)) {
			t.Errorf("%s prints the password: %s", how, text)
		}
		if !strings.Contains(text, "app") {
			t.Errorf("%s hides the user: %s", how, text)
		}
	}
}

func TestFuncNil(t *testing.T) {
	t.Parallel()
	if _, err := secrets.Func(nil).Credentials(t.Context()); err == nil {
		t.Error("a nil function gave no error")
	}
}

func TestFuncPassesErrorsOn(t *testing.T) {
	t.Parallel()
	want := errors.New("vault is sealed")
	src := secrets.Func(func(context.Context) (secrets.Credentials, error) { return secrets.Credentials{}, want })
	if _, err := src.Credentials(t.Context()); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
}

func ExampleStatic() {
	c, err := secrets.Static("app", "correct-horse").Credentials(context.Background())
	fmt.Println(c, err)
	// Output: {User:app Password:[redacted]} <nil>
}
