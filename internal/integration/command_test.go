package integration

// The command aurorapgx proxy as it is installed, in front of a real PostgreSQL.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/feature/rds/auth"
	"github.com/jackc/pgx/v5"
)

// proxyCommand is a running aurorapgx proxy, and what it said at the start.
type proxyCommand struct {
	URL           string `json:"url"`
	Host          string `json:"host"`
	Port          int    `json:"port"`
	Region        string `json:"region"`
	CAFile        string `json:"caFile"`
	AccessKeyFile string `json:"accessKeyFile"`
	IAMToken      string `json:"iamTokenCommand"`
	StatusURL     string `json:"statusUrl"`

	cmd    *osexec.Cmd
	stdout bytes.Buffer // behind the summary; to be read when the process has ended
	stderr syncBuffer
	ended  chan struct{}
}

// startCommand builds the program and starts it. dsn goes through the environment.
func startCommand(t *testing.T, dsn string, env []string, args ...string) *proxyCommand {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "aurorapgx")
	if out, err := osexec.CommandContext(t.Context(), "go", "build", "-race", "-o", binary, "github.com/aurorapgx/aurorapgx/cmd/aurorapgx").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	c := &proxyCommand{ended: make(chan struct{})}
	c.cmd = osexec.CommandContext(context.WithoutCancel(t.Context()), binary, append([]string{"proxy", "--listen", "127.0.0.1:0", "--status", "127.0.0.1:0", "--json"}, args...)...)
	c.cmd.Env = append(append(os.Environ(), "AURORAPGX_BACKEND="+dsn), env...)
	c.cmd.Stderr = &c.stderr
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(stdout)
	decodeErr := dec.Decode(c)
	go func() {
		defer close(c.ended)
		_, _ = io.Copy(&c.stdout, io.MultiReader(dec.Buffered(), stdout))
		_ = c.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		<-c.ended
	})
	if decodeErr != nil {
		t.Fatalf("no summary: %v\n%s", decodeErr, c.stderr.String())
	}
	return c
}

// stop sends SIGTERM and returns the exit code.
func (c *proxyCommand) stop(t *testing.T) int {
	t.Helper()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-c.ended:
	case <-time.After(30 * time.Second):
		t.Fatalf("it goes on after SIGTERM\n%s", c.stderr.String())
	}
	return c.cmd.ProcessState.ExitCode()
}

// connect signs in as another user than that of the summary's URL.
func (c *proxyCommand) connect(t *testing.T, user, password string) *pgx.Conn {
	t.Helper()
	u, err := url.Parse(c.URL)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(user, password)
	conn, err := pgx.Connect(t.Context(), u.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func (c *proxyCommand) get(t *testing.T, path string) string {
	t.Helper()
	answer, err := http.Get(c.StatusURL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s, %v", path, answer.Status, err)
	}
	return string(body)
}

func TestProxyCommand(t *testing.T) {
	t.Parallel()
	dsn := database(t, shared)
	const password = "cl3rk-Pw"
	admin(t, shared, `do $$ begin
		if not exists (select from pg_roles where rolname = 'clerk') then create role clerk login password '`+password+`'; end if;
	end $$`)
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	c := startCommand(t, dsn, []string{"CLERK_PASSWORD=" + password}, "--user", "clerk=env:CLERK_PASSWORD", "--ca-file", caFile)
	if c.CAFile != caFile {
		t.Errorf("CA file %q", c.CAFile)
	}

	// With a password, and pinned.
	clerk := c.connect(t, "clerk", password)
	mustExec(t, clerk, "set statement_timeout = '5s' /* file='till.py',line='17' */")
	// With an IAM token, signed with the key in the file; and a transaction that is open.
	info, err := os.Stat(c.AccessKeyFile)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	cfg, err := config.LoadDefaultConfig(t.Context(), config.WithSharedCredentialsFiles([]string{c.AccessKeyFile}), config.WithSharedConfigFiles(nil))
	if err != nil {
		t.Fatal(err)
	}
	token, err := auth.BuildAuthToken(t.Context(), net.JoinHostPort(c.Host, strconv.Itoa(c.Port)), c.Region, appUser, cfg.Credentials)
	if err != nil {
		t.Fatal(err)
	}
	iam := c.connect(t, appUser, token)
	mustExec(t, iam, "begin")

	metrics := c.get(t, "metrics")
	for _, line := range []string{
		"ClientConnections 2", "ClientConnectionsSetupSucceeded 2", "MaxDatabaseConnectionsAllowed 10",
		"DatabaseConnectionsCurrentlyBorrowed 2", "DatabaseConnectionsCurrentlySessionPinned 1",
		"DatabaseConnectionsCurrentlyInTransaction 1", "aurorapgx_pinned_sessions_total 1",
	} {
		if !strings.Contains(metrics, "\n"+line+"\n") {
			t.Errorf("no %q in\n%s", line, metrics)
		}
	}
	page := c.get(t, "")
	for _, want := range []string{
		"set statement_timeout = $1", "rule settings", "till.py:17", "1 pinned now", "initialization query",
		`<span class="pinned">pinned</span>`, "in transaction", "<td data-name=\"user\">clerk</td>", "<td data-name=\"user\">" + appUser + "</td>",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q on the page:\n%s", want, page)
		}
	}
	var pins []struct {
		Rule string `json:"rule"`
	}
	if err := json.Unmarshal([]byte(c.get(t, "pins.json")), &pins); err != nil || len(pins) != 1 || pins[0].Rule != "settings" {
		t.Errorf("pins.json: %+v, %v", pins, err)
	}

	// SIGTERM, with clients connected.
	if code := c.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	log := c.stderr.String()
	pinned := regexp.MustCompile(`(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d \[WARN\] \[proxyEndpoint=default\] \[clientConnection=\d+\] The client session was pinned ` +
		`to the database connection \[dbConnection=\d+\] for the remainder of the session\. .* Digest: "set statement_timeout = \$1"\.$`)
	if !pinned.MatchString(log) || strings.Contains(log, "DATA RACE") || strings.Contains(log, "panic") {
		t.Errorf("log:\n%s", log)
	}
	everything := log + c.stdout.String() + metrics + page + c.URL + c.IAMToken
	key, err := cfg.Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{password, appPassword, key.SecretAccessKey, key.AccessKeyID} {
		if strings.Contains(everything, secret) {
			t.Errorf("a secret is in the output:\n%s", everything)
		}
	}
	for _, file := range []string{caFile, filepath.Dir(c.AccessKeyFile)} {
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there (%v)", file, err)
		}
	}
}

// Settings from a file, as a suite of another language would use them: every pin is named at the end,
// and makes the run a failed one. The CA file stays if it is to.
func TestProxyCommandRequireNoPins(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	caFile, settings := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "proxy.json")
	text, err := json.Marshal(map[string]any{
		"users":  []any{map[string]string{"name": appUser, "password": appPassword}},
		"caFile": caFile, "keepCaFile": true, "requireNoPins": true, "logLevel": "warn", "initQuery": "set statement_timeout = '7s'",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(settings, text, 0o600); err != nil {
		t.Fatal(err)
	}
	c := startCommand(t, database(t, shared), nil, "--config", settings)
	conn := c.connect(t, appUser, appPassword)
	var timeout string
	if err := conn.QueryRow(t.Context(), "show statement_timeout").Scan(&timeout); err != nil || timeout != "7s" {
		t.Errorf("statement_timeout is %s, %v", timeout, err)
	}
	mustExec(t, conn, "create temp table basket (item int) /* file='basket.rb',line='3' */")
	if code := c.stop(t); code != 1 {
		t.Errorf("exit code %d", code)
	}
	report := c.stdout.String()
	for _, want := range []string{"Sessions were pinned:", "create temp table basket (item int) (temporary)", "basket.rb:3", "instead: "} {
		if !strings.Contains(report, want) {
			t.Errorf("no %q in\n%s", want, report)
		}
	}
	if _, err := os.Stat(caFile); err != nil {
		t.Errorf("the CA file is gone: %v", err)
	}
}
