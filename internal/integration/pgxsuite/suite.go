package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/feature/rds/auth"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aurorapgx/aurorapgx/internal/pgtest"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

// The users, as pgx's own setup script makes them, and one who signs in with IAM.
const (
	scramUser = "pgx_scram"
	md5User   = "pgx_md5"
	iamUser   = "pgx_pw"
	password  = "secret"
)

// prepare makes a database for the tests, by the script that pgx brings for that, and returns the
// superuser's DSN of it.
func prepare(ctx context.Context, server *pgtest.Server, dir string) (string, error) {
	dsn, err := server.NewDatabase(ctx)
	if err != nil {
		return "", err
	}
	script, err := os.ReadFile(filepath.Join(dir, "testsetup", "postgresql_setup.sql"))
	if err != nil {
		return "", err
	}
	// The part for psql alone makes a user of the operating system's name, for tests over a socket.
	sql, _, _ := strings.Cut(string(script), "-- When running in devcontainers")
	sql += `create user " tricky, ' } "" \\ test user " superuser password 'secret';`
	conn, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, sql).ReadAll(); err != nil {
		return "", fmt.Errorf("pgx's setup script (extensions are in Debian's postgresql package): %w", err)
	}
	return dsn, nil
}

// environment is what the tests read. All ways lead through the proxy.
func environment(ctx context.Context, px *proxytest.Proxy, dsn string) []string {
	u, _ := url.Parse(dsn) // it was used before
	through := func(user, password string) string {
		v := url.URL{
			Scheme: "postgres", User: url.UserPassword(user, password), Host: fmt.Sprintf("localhost:%d", px.Port()), Path: u.Path,
			RawQuery: url.Values{"sslmode": {"verify-full"}, "sslrootcert": {px.CAFile()}}.Encode(),
		}
		return v.String()
	}
	token, err := auth.BuildAuthToken(ctx, fmt.Sprintf("%s:%d", px.Host(), px.Port()), px.Region(), iamUser,
		credentials.StaticCredentialsProvider{Value: px.Credentials()})
	if err != nil {
		token = err.Error() // and the test that uses it fails
	}
	env := slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "PG") || strings.HasPrefix(v, "GOFLAGS=") || strings.HasPrefix(v, "GOWORK=")
	})
	return append(env,
		"GOWORK=off", "GOFLAGS=-mod=mod",
		"PGX_TEST_DATABASE="+through(scramUser, password),
		"PGX_TEST_TCP_CONN_STRING="+through(scramUser, password),
		"PGX_TEST_TLS_CONN_STRING="+through(scramUser, password),
		"PGX_TEST_SCRAM_PASSWORD_CONN_STRING="+through(scramUser, password),
		"PGX_TEST_MD5_PASSWORD_CONN_STRING="+through(md5User, password),
		"PGX_TEST_PLAIN_PASSWORD_CONN_STRING="+through(iamUser, token),
		"PGX_TEST_PGBOUNCER_CONN_STRING="+through(scramUser, password),
	)
}

// result is how one test, or subtest, ended.
type result struct {
	name    string // package and test, with a blank between
	outcome string // pass, fail or skip
	output  string
}

// goTest runs the suites. A package that does not build is an error; tests that fail are not.
func goTest(ctx context.Context, dir, pattern string, env []string) ([]result, error) {
	args := []string{"test", "-json", "-count=1", "-timeout=9m"}
	if pattern != "" {
		args = append(args, "-run", pattern)
	}
	for _, p := range packages {
		args = append(args, "./"+strings.TrimPrefix(p, "pgx/"))
		if p == "pgx" {
			args[len(args)-1] = "."
		}
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = dir, env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	results, parseErr := readResults(out)
	if parseErr == nil && len(results) == 0 {
		parseErr = fmt.Errorf("no test ran: %w\n%s%s", err, out, stderr.String())
	}
	return results, parseErr
}

// readResults reads the output of go test -json. A test counts by its subtests where it has some that
// did not pass.
func readResults(out []byte) ([]result, error) {
	type event struct {
		Action  string `json:"Action"`
		Package string `json:"Package"`
		Test    string `json:"Test"`
		Output  string `json:"Output"`
	}
	outputs := map[string]string{}
	outcomes := map[string]string{}
	var failedPackages []string
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("output of go test: %w: %.200s", err, lines.Text())
		}
		name := shortPackage(e.Package) + " " + e.Test
		switch e.Action {
		case "output":
			outputs[name] += e.Output
		case "pass", "fail", "skip":
			if e.Test != "" {
				outcomes[name] = e.Action
			} else if e.Action == "fail" {
				failedPackages = append(failedPackages, name)
			}
		}
	}
	var results []result
	blamed := map[string]bool{}
	for name, outcome := range outcomes {
		if outcome == "pass" || !hasSame(outcomes, name, outcome) {
			results = append(results, result{name, outcome, outputs[name]})
			if outcome == "fail" {
				p, _, _ := strings.Cut(name, " ")
				blamed[p+" "] = true
			}
		}
	}
	for _, name := range failedPackages {
		if !blamed[name] { // a crash, a timeout, or a program that does not build
			return nil, fmt.Errorf("package %sfailed:\n%s", name, outputs[name])
		}
	}
	slices.SortFunc(results, func(a, b result) int { return strings.Compare(a.name, b.name) })
	return results, lines.Err()
}

// hasSame says whether a subtest ended the same way.
func hasSame(outcomes map[string]string, name, outcome string) bool {
	for other, o := range outcomes {
		if o == outcome && strings.HasPrefix(other, name+"/") {
			return true
		}
	}
	return false
}

func shortPackage(path string) string {
	if path == module {
		return "pgx"
	}
	return strings.TrimPrefix(path, module+"/")
}

// expectations is the list.
//
//go:embed cannot-pass.txt
var expectations string

// expectation is a line of it.
type expectation struct {
	outcome string // fail, skip or either
	reason  string
}

// readList reads lines of outcome, package, test and reason.
func readList(text string) (map[string]expectation, error) {
	listed := map[string]expectation{}
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		what, reason, ok := strings.Cut(line, ": ")
		fields := strings.Fields(what)
		if !ok || len(fields) != 3 || !slices.Contains([]string{"fail", "skip", "either"}, fields[0]) || reason == "" {
			return nil, fmt.Errorf("cannot-pass.txt:%d: want %q", i+1, "fail|skip|either package test: reason")
		}
		listed[fields[1]+" "+fields[2]] = expectation{fields[0], reason}
	}
	if len(listed) == 0 {
		return nil, errors.New("cannot-pass.txt is empty")
	}
	return listed, nil
}
