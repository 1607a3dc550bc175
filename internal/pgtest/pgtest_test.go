//go:build unix

package pgtest

// These are the tests of the ways to a server: which one is taken, what it
// gives, and what is said if there is none.

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// environment is the getenv of a process whose environment is base, here that
// of the test, with some variables set differently.
func environment(overrides map[string]string) func(string) string {
	return func(name string) string {
		if value, ok := overrides[name]; ok {
			return value
		}
		return os.Getenv(name)
	}
}

// mustStart starts a server in one given way.
func mustStart(t *testing.T, mode string, overrides map[string]string, opts ...Option) *Server {
	t.Helper()
	cfg, err := newConfig(opts)
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"PGTEST_MODE": mode}
	maps.Copy(env, overrides)
	began := time.Now()
	server, err := startFirst(t.Context(), cfg, ways(environment(env)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Logf("%s, started in %v", server.Source(), time.Since(began).Round(time.Millisecond))
	return server
}

func execute(t *testing.T, dsn, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

func scan[T any](t *testing.T, dsn, sql string) T {
	t.Helper()
	var value T
	if err := queryAt(t.Context(), dsn, sql, &value); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return value
}

// ownModes are the ways that start a server of our own and can be had on this
// machine, or the one that PGTEST_MODE names. Everything a Server can do is tested
// with each of them. A machine with neither fails; one with either tests that one.
func ownModes(t *testing.T) []string {
	t.Helper()
	if mode := os.Getenv("PGTEST_MODE"); mode != "" {
		return []string{mode}
	}
	var modes []string
	if _, _, err := findBinaries(t.Context(), os.Getenv); err == nil {
		modes = append(modes, "installed")
	} else {
		t.Logf("not tested here: installed binaries: %v", err)
	}
	if provider, err := dockerProvider(t.Context(), os.Getenv); err == nil {
		modes = append(modes, "docker")
		_ = provider.Close()
	} else {
		t.Logf("not tested here: Docker: %v", err)
	}
	if modes == nil {
		t.Fatal("neither PostgreSQL's binaries nor Docker are here: install PostgreSQL (on Debian: apt-get install postgresql) or start Docker")
	}
	return modes
}

func eachMode(t *testing.T, test func(t *testing.T, mode string)) {
	t.Helper()
	for _, mode := range ownModes(t) {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			test(t, mode)
		})
	}
}

func TestStart(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		// Under this name nothing is published, so another one must be found.
		nowhere := map[string]string{"TESTCONTAINERS_HOST_OVERRIDE": "name.invalid"}
		server := mustStart(t, mode, nowhere, WithSetting("work_mem", "5MB"), WithSetting("application_name", "it's"))
		for sql, want := range map[string]string{
			"show work_mem":         "5MB",
			"show application_name": "it's",
			"show max_connections":  "200",
			"show fsync":            "off",
			"show server_encoding":  "UTF8",
			"show wal_level":        "replica",
			"select current_user":   "postgres",
			"select coalesce(string_agg(distinct auth_method, ','), '') from pg_hba_file_rules": "scram-sha-256",
		} {
			if got := scan[string](t, server.DSN(), sql); got != want {
				t.Errorf("%s: got %q, want %q", sql, got, want)
			}
		}
		wrong := strings.Replace(server.DSN(), server.superPassword(), "wrong", 1)
		if err := queryAt(t.Context(), wrong, "select 1", new(int)); err == nil {
			t.Error("a wrong password was let in")
		}
	})
}

func TestExistingServer(t *testing.T) {
	t.Parallel()
	own := mustStart(t, ownModes(t)[0], nil)
	env := map[string]string{"PGTEST_DSN": own.DSN()}
	server := mustStart(t, "dsn", env)
	if server.Source() != "PGTEST_DSN" || server.Host() != own.Host() || server.Port() != own.Port() {
		t.Errorf("got %s at %s:%d", server.Source(), server.Host(), server.Port())
	}
	testNewDatabase(t, server)
	for name, err := range map[string]error{
		"Kill":    server.Kill(t.Context()),
		"Stop":    server.Stop(t.Context()),
		"Restart": server.Restart(t.Context()),
		"Promote": server.Promote(t.Context()),
		"Standby": second(server.Standby(t.Context())),
		"Follow":  own.Follow(t.Context(), server),
	} {
		if err == nil || !strings.Contains(err.Error(), "unset PGTEST_DSN") {
			t.Errorf("%s: got error %v, want one that says to unset PGTEST_DSN", name, err)
		}
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if n := scan[int](t, own.DSN(), "select count(*)::int from pg_database where datname like 'test%'"); n != 0 {
		t.Errorf("%d databases left after Close", n)
	}

	execute(t, own.DSN(), "create role plain login password 'secret'")
	plain := strings.Replace(own.DSN(), "postgres:"+own.superPassword(), "plain:secret", 1)
	_, err := startExisting(t.Context(), config{}, plain)
	if err == nil || !strings.Contains(err.Error(), "not a superuser") || strings.Contains(err.Error(), "secret") {
		t.Errorf("with a plain user: got error %v", err)
	}
	for _, malformed := range []string{"postgres://u:secret@h:port/", "postgres://u:secret@[h/", "host=h password=secret port=x"} {
		if _, err := startExisting(t.Context(), config{}, malformed); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("with a malformed DSN: got error %v", err)
		}
	}
}

func second(_ *Server, err error) error { return err }

// With none of the ways open, the error has the reason for each of them.
func TestNoServer(t *testing.T) {
	t.Parallel()
	getenv := environment(map[string]string{
		"PGTEST_MODE":   "",
		"PGTEST_DSN":    "postgres://someone:secret@127.0.0.1:1/postgres",
		"DOCKER_HOST":   "tcp://127.0.0.1:1",
		"PGTEST_BINDIR": t.TempDir(),
	})
	began := time.Now()
	_, err := startFirst(t.Context(), config{}, ways(getenv))
	if err == nil {
		t.Fatal("got a server")
	}
	t.Log(err)
	for _, part := range []string{
		"PGTEST_DSN: ", "Docker: no daemon answers", "installed binaries: no postgres that runs in ",
		"set PGTEST_DSN", "start Docker", "install PostgreSQL",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not say %q", part)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Error("the error has the password")
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// Without a Docker daemon, that is soon known, and the installed binaries are
// next.
func TestDockerAbsent(t *testing.T) {
	t.Parallel()
	const nowhere = "tcp://127.0.0.1:1"
	for _, daemon := range []string{"unix:///nonexistent", nowhere} {
		began := time.Now()
		getenv := environment(map[string]string{"PGTEST_MODE": "docker", "DOCKER_HOST": daemon})
		if _, err := startFirst(t.Context(), config{}, ways(getenv)); err == nil {
			t.Errorf("with DOCKER_HOST=%s: got a server", daemon)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("with DOCKER_HOST=%s: it took %v", daemon, took)
		}
	}
	if !slices.Contains(ownModes(t), "installed") {
		return
	}
	server := mustStart(t, "", map[string]string{"PGTEST_DSN": "", "DOCKER_HOST": nowhere})
	if !strings.HasPrefix(server.Source(), "installed PostgreSQL ") {
		t.Errorf("got %s", server.Source())
	}
	if server.passedOver == nil || !strings.Contains(server.passedOver.Error(), "Docker: no daemon answers") {
		t.Errorf("Docker was passed over because of %v", server.passedOver)
	} else if strings.Contains(server.passedOver.Error(), "PGTEST_DSN") {
		t.Errorf("it is news that PGTEST_DSN is not set: %v", server.passedOver)
	}
}

func TestUnknownMode(t *testing.T) {
	t.Parallel()
	_, err := startFirst(t.Context(), config{}, ways(environment(map[string]string{"PGTEST_MODE": "magic"})))
	if err == nil || !strings.Contains(err.Error(), "use dsn, docker or installed") {
		t.Errorf("got error %v", err)
	}
}

func TestSettingsRefused(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]Option{
		"a name with a line in it":  WithSetting("work_mem = 1\nfsync", "on"),
		"a value with a line in it": WithSetting("work_mem", "1\nfsync = on"),
		"the port":                  WithSetting("Port", "5432"),
		"synchronous":               WithSynchronous(),
	} {
		if _, err := Start(t.Context(), opt); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// A server that does not start says why in its log, and leaves nothing behind.
func TestStartFails(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		cfg, err := newConfig([]Option{WithSetting("no_such_parameter", "1")})
		if err != nil {
			t.Fatal(err)
		}
		_, err = startFirst(t.Context(), cfg, ways(environment(map[string]string{"PGTEST_MODE": mode})))
		if err == nil || !strings.Contains(err.Error(), `unrecognized configuration parameter "no_such_parameter"`) {
			t.Errorf("got error %v", err)
		}
	})
}

func testNewDatabase(t *testing.T, server *Server) {
	t.Helper()
	var dsns []string
	for range 2 {
		dsn, err := server.NewDatabase(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		execute(t, dsn, "create table t (id int)")
		dsns = append(dsns, dsn)
	}
	if dsns[0] == dsns[1] {
		t.Error("twice the same database")
	}
}

func TestWithDatabase(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[string]string{
		"host=h password='a b'":             "host=h password='a b' dbname=test_1",
		"postgres://u:p@h/other?sslmode=no": "postgres://u:p@h/test_1?sslmode=no",
		"postgresql://h":                    "postgresql://h/test_1",
	} {
		got, err := withDatabase(dsn, "test_1")
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v; want %q", dsn, got, err, want)
		}
	}
}

// Run's server is of the first way there is, whatever that may be.
func TestRun(t *testing.T) {
	t.Parallel()
	var dsn string
	t.Run("server", func(t *testing.T) {
		server := Run(t)
		dsn = server.DSN()
		if got := scan[int](t, dsn, "select 1"); got != 1 {
			t.Errorf("got %d", got)
		}
		testNewDatabase(t, server)
	})
	if os.Getenv("PGTEST_DSN") == "" {
		if err := queryAt(t.Context(), dsn, "select 1", new(int)); err == nil {
			t.Error("the server is still there after the test")
		}
	}
}

// gone fails the test if anything of a closed server is still there.
func gone(t *testing.T, place *site) {
	t.Helper()
	if conn, err := net.DialTimeout("tcp", net.JoinHostPort(place.names[0], portString(place.port)), time.Second); err == nil {
		_ = conn.Close()
		t.Errorf("something still listens on port %d", place.port)
	}
	switch h := place.host.(type) {
	case *container:
		if _, err := h.State(t.Context()); !missing(err) {
			t.Errorf("the container is still there: %v", err)
		}
	default:
		if _, err := os.Stat(directory(h)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the directory is still there: %v", err)
		}
	}
}
