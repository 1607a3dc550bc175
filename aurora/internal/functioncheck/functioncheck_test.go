package functioncheck_test

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aurorapgx/aurorapgx/aurora"
)

func TestMain(m *testing.M) {
	if _, err := exec.LookPath("python3"); err != nil {
		fmt.Fprintln(os.Stderr, "These tests run the functions of our templates and need python3 on PATH.\nInstall it, or run the tests of the other modules: make test leaves this one out, and says so, where there is no python3.")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// function is one of the template's functions, with a world around it.
type function struct {
	code, secrets, calls string
	asleep               int // answers that the database is resuming, before it is there
}

func newFunction(t *testing.T, id string) *function {
	t.Helper()
	text, err := aurora.Spec{Auth: aurora.Secrets, BootstrapAtDeploy: true}.Template()
	if err != nil {
		t.Fatal(err)
	}
	var template struct {
		Resources map[string]struct {
			Properties struct{ Code struct{ ZipFile string } }
		}
	}
	if err := json.Unmarshal(text, &template); err != nil {
		t.Fatal(err)
	}
	code := template.Resources[id].Properties.Code.ZipFile
	if code == "" || len(code) > 4096 {
		t.Fatalf("%s has %d bytes of code; at most 4096 are sure to be taken inline", id, len(code))
	}
	dir := t.TempDir()
	f := &function{filepath.Join(dir, "index.py"), filepath.Join(dir, "secrets"), filepath.Join(dir, "calls"), 0}
	write(t, f.code, code)
	write(t, f.calls, "")
	return f
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// invoke calls the handler as Lambda does, and returns the calls of the Data API.
func (f *function) invoke(t *testing.T, event any) ([]map[string]any, error) {
	t.Helper()
	input, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	write(t, f.calls, "")
	stub, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "python3", "-c", "import json, sys, time; time.sleep = lambda s: None; import index; index.handler(json.load(sys.stdin), None)")
	cmd.Dir = filepath.Dir(f.code)
	cmd.Stdin = bytes.NewReader(input)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+stub+":"+cmd.Dir, "PYTHONDONTWRITEBYTECODE=1", "SECRETS="+f.secrets, "CALLS="+f.calls,
		"CLUSTER=arn:cluster", "ADMIN=arn:admin", "DATABASE=app", fmt.Sprintf("ASLEEP=%d", f.asleep), "no_proxy=*")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	var calls []map[string]any
	file, openErr := os.Open(f.calls)
	if openErr != nil {
		t.Fatal(openErr)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		var call map[string]any
		if err := json.Unmarshal(lines.Bytes(), &call); err != nil {
			t.Fatal(err)
		}
		calls = append(calls, call)
	}
	return calls, err
}

type secret struct {
	Values map[string]string   `json:"values"`
	Stages map[string][]string `json:"stages"`
}

func (f *function) put(t *testing.T, s secret) {
	t.Helper()
	text, err := json.Marshal(map[string]secret{"arn": s})
	if err != nil {
		t.Fatal(err)
	}
	write(t, f.secrets, string(text))
}

func (f *function) secret(t *testing.T) secret {
	t.Helper()
	text, err := os.ReadFile(f.secrets)
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]secret
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	return all["arn"]
}

func TestRotation(t *testing.T) {
	t.Parallel()
	f := newFunction(t, "RotationFunction")
	f.asleep = 2
	f.put(t, secret{
		map[string]string{"v1": `{"username": "app_1", "password": "old", "note": "kept"}`},
		map[string][]string{"v1": {"AWSCURRENT"}, "v2": {"AWSPENDING"}},
	})
	step := func(name string) []map[string]any {
		calls, err := f.invoke(t, map[string]string{"SecretId": "arn", "ClientRequestToken": "v2", "Step": name})
		if err != nil {
			t.Fatal(err)
		}
		return calls
	}
	step("createSecret")
	first := f.secret(t).Values["v2"]
	step("createSecret") // as Secrets Manager does after a failure: it must not change again
	var value struct{ Username, Password, Note string }
	if err := json.Unmarshal([]byte(f.secret(t).Values["v2"]), &value); err != nil {
		t.Fatal(err)
	}
	if f.secret(t).Values["v2"] != first || value.Username != "app_1" || value.Note != "kept" || len(value.Password) < 30 || value.Password == "old" {
		t.Fatalf("the new value is %+v", value)
	}
	calls := step("setSecret")
	if len(calls) != 4 { // two of them found the database asleep
		t.Fatalf("%v", calls)
	}
	for _, call := range calls {
		if call["resourceArn"] != "arn:cluster" || call["secretArn"] != "arn:admin" || call["database"] != "app" || strings.Contains(fmt.Sprint(call), value.Password) {
			t.Errorf("%v", call)
		}
	}
	last := fmt.Sprint(calls[3]["sql"])
	verifier, ok := strings.CutPrefix(last, `alter role "app_1" password '`)
	if !ok || !verifies(t, strings.TrimSuffix(verifier, "'"), value.Password) {
		t.Errorf("%s does not set the password", last)
	}
	if got := f.secret(t).Stages["v1"]; !slices.Contains(got, "AWSCURRENT") {
		t.Errorf("current too early: %v", got)
	}
	step("testSecret")
	step("finishSecret")
	if got := f.secret(t).Stages; !slices.Contains(got["v2"], "AWSCURRENT") || slices.Contains(got["v1"], "AWSCURRENT") {
		t.Errorf("not finished: %v", got)
	}
	if calls := step("setSecret"); len(calls) != 0 {
		t.Errorf("once finished, nothing is to be done: %v", calls)
	}
}

// verifies checks a SCRAM verifier the way the server will.
// https://www.rfc-editor.org/rfc/rfc5803
func verifies(t *testing.T, verifier, password string) bool {
	t.Helper()
	var rounds int
	head, keys, ok1 := strings.Cut(strings.TrimPrefix(verifier, "SCRAM-SHA-256$"), "$")
	count, salt64, ok2 := strings.Cut(head, ":")
	stored64, server64, ok3 := strings.Cut(keys, ":")
	if _, err := fmt.Sscan(count, &rounds); err != nil || !ok1 || !ok2 || !ok3 {
		return false
	}
	salt, err := base64.StdEncoding.DecodeString(salt64)
	if err != nil || len(salt) < 16 {
		return false
	}
	key, err := pbkdf2.Key(sha256.New, password, salt, rounds, 32)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(text string) []byte {
		h := hmac.New(sha256.New, key)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(sign("Client Key"))
	return rounds >= 4096 && stored64 == base64.StdEncoding.EncodeToString(stored[:]) && server64 == base64.StdEncoding.EncodeToString(sign("Server Key"))
}

func TestRotationRefuses(t *testing.T) {
	t.Parallel()
	f := newFunction(t, "RotationFunction")
	for name, s := range map[string]secret{
		"a version that is not pending": {map[string]string{"v1": `{"username":"app","password":"x"}`}, map[string][]string{"v1": {"AWSCURRENT"}, "v2": {}}},
		"a user name with a quote":      {map[string]string{"v2": `{"username":"a\" superuser; --","password":"x"}`}, map[string][]string{"v1": {"AWSCURRENT"}, "v2": {"AWSPENDING"}}},
		"no user name":                  {map[string]string{"v2": `{"username":"","password":"x"}`}, map[string][]string{"v1": {"AWSCURRENT"}, "v2": {"AWSPENDING"}}},
	} {
		f.put(t, s)
		if calls, err := f.invoke(t, map[string]string{"SecretId": "arn", "ClientRequestToken": "v2", "Step": "setSecret"}); err == nil || len(calls) > 0 {
			t.Errorf("%s: %v, %v", name, calls, err)
		}
	}
}

func TestBootstrap(t *testing.T) {
	t.Parallel()
	answers := make(chan map[string]string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var answer map[string]string
		if err != nil || json.Unmarshal(body, &answer) != nil || r.Method != http.MethodPut {
			t.Errorf("%s %s: %v", r.Method, body, err)
		}
		answers <- answer
	}))
	defer server.Close()
	for _, test := range []struct {
		name, request string
		statements    []string
		asleep        int
		status        string
		calls         []string
	}{
		{"create", "Create", []string{"a", "b"}, 0, "SUCCESS", []string{"begin", "execute a", "execute b", "commit"}},
		{"update, resuming", "Update", []string{"a"}, 2, "SUCCESS", []string{"begin", "begin", "begin", "execute a", "commit"}},
		{"refused", "Create", []string{"a", "refuse me", "b"}, 0, "FAILED", []string{"begin", "execute a", "execute refuse me", "rollback"}},
		{"delete", "Delete", []string{"a"}, 0, "SUCCESS", nil},
	} {
		f := newFunction(t, "BootstrapFunction")
		f.asleep = test.asleep
		calls, err := f.invoke(t, map[string]any{
			"RequestType": test.request, "ResponseURL": server.URL, "StackId": "s", "RequestId": "r", "LogicalResourceId": "Bootstrap",
			"ResourceProperties": map[string]any{"Statements": test.statements},
		})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, call := range calls {
			text := fmt.Sprint(call["call"])
			if call["sql"] != nil {
				text += " " + fmt.Sprint(call["sql"])
			}
			got = append(got, text)
			if call["secretArn"] != "arn:admin" || call["resourceArn"] != "arn:cluster" || call["sql"] != nil && call["transactionId"] != "tx" {
				t.Errorf("%s: %v", test.name, call)
			}
		}
		answer := <-answers
		if !slices.Equal(got, test.calls) || answer["Status"] != test.status || answer["PhysicalResourceId"] != "bootstrap" || answer["RequestId"] != "r" {
			t.Errorf("%s: %v, answered %v", test.name, got, answer)
		}
	}
}
