package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// result is what one run of the program left behind.
type result struct {
	code           int
	stdout, stderr string
}

// world is what a run finds; the zero value is an empty one.
type world struct {
	stdin    string
	env      map[string]string
	terminal bool
}

// run runs the program in an empty world.
func run(t *testing.T, args ...string) result {
	t.Helper()
	return world{}.run(t, args...)
}

func (w world) run(t *testing.T, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	p := &program{strings.NewReader(w.stdin), &stdout, &stderr, func(name string) string { return w.env[name] }, w.terminal}
	code := p.run(t.Context(), args)
	return result{code, stdout.String(), stderr.String()}
}

// ok fails the test unless the run went well and wrote nothing to stderr.
func (r result) ok(t *testing.T) string {
	t.Helper()
	if r.code != exitOK || r.stderr != "" {
		t.Fatalf("exit code %d, stderr:\n%s\nstdout:\n%s", r.code, r.stderr, r.stdout)
	}
	return r.stdout
}

func TestEveryVerbHasHelp(t *testing.T) {
	t.Parallel()
	all := run(t, "help").ok(t)
	for _, v := range verbs {
		if !strings.Contains(all, v.name+" ") || !strings.Contains(all, v.summary) {
			t.Errorf("help does not list %s", v.name)
		}
		help := run(t, "help", v.name).ok(t)
		if !strings.HasPrefix(help, "Usage: aurorapgx "+v.name) || len(strings.Split(help, "\n")) < 5 {
			t.Errorf("help %s says:\n%s", v.name, help)
		}
		for _, flag := range []string{"-h", "--help"} {
			if got := run(t, v.name, flag).ok(t); got != help {
				t.Errorf("%s %s says something else than help %[1]s", v.name, flag)
			}
		}
		for line := range strings.Lines(help) {
			if len([]rune(line)) > 100 {
				t.Errorf("help %s: line too long for a terminal: %s", v.name, line)
			}
		}
	}
}

func TestWrongCommandLines(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "which verb?"},
		{[]string{"versio"}, `there is no verb "versio"; did you mean "version"?`},
		{[]string{"frobnicate"}, `there is no verb "frobnicate"` + "\n"},
		{[]string{"help", "versio"}, `did you mean "version"?`},
		{[]string{"help", "version", "more"}, "help takes one verb"},
		{[]string{"version", "--jsno"}, `there is no flag --jsno; did you mean "--json"?`},
		{[]string{"version", "now"}, "version: too many arguments: 1, where it takes 0"},
		{[]string{"check", "host=h", "password=hunter2", "hunter2"}, "check: too many arguments: 3, where it takes 1; put quotes"},
		{[]string{"proxy", "postgres://app:hunter2@h/d"}, "proxy: too many arguments: 1, where it takes 0"},
		{[]string{"postgres://app:hunter2@h/d"}, `there is no verb of that name; did you mean "check"?`},
		{[]string{"password=hunter2"}, `did you mean "check"?`},
		{[]string{"version", "--json=maybe"}, "invalid boolean value"},
	} {
		r := run(t, tt.args...)
		if r.code != exitUsage || r.stdout != "" || !strings.Contains(r.stderr, tt.want) || !strings.Contains(r.stderr, `run "aurorapgx help`) {
			t.Errorf("%q: exit code %d, stdout %q, stderr %q; want %q", tt.args, r.code, r.stdout, r.stderr, tt.want)
		}
		if strings.Contains(r.stderr, "hunter2") {
			t.Errorf("%q: a password is printed: %s", tt.args, r.stderr)
		}
	}
}

func TestColour(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		world
		want bool
	}{
		{world{terminal: true}, true},
		{world{}, false},
		{world{terminal: true, env: map[string]string{"NO_COLOR": "1"}}, false},
		{world{terminal: true, env: map[string]string{"TERM": "dumb"}}, false},
	} {
		if got := strings.Contains(tt.run(t, "help").ok(t), "\x1b["); got != tt.want {
			t.Errorf("%+v: colour %v, want %v", tt.world, got, tt.want)
		}
	}
}

// The program as it is installed.
func TestBinary(t *testing.T) {
	t.Parallel()
	binary := filepath.Join(t.TempDir(), "aurorapgx")
	if runtime.GOOS == "windows" {
		binary += ".exe"
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--version"}, exitOK, "aurorapgx "},
		{[]string{"help"}, exitOK, "Exit codes"},
		{[]string{"nonsense"}, exitUsage, "there is no verb"},
	} {
		cmd := exec.CommandContext(t.Context(), binary, tt.args...)
		cmd.Env = append(os.Environ(), "NO_COLOR=")
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != tt.code || !strings.Contains(string(out), tt.want) || strings.Contains(string(out), "\x1b[") {
			t.Errorf("%q: exit code %d, want %d; output:\n%s", tt.args, code, tt.code, out)
		}
	}
}
