//go:build unix

package pgtest

// This file is the third way to a server: PostgreSQL as installed on this
// machine, in a temporary directory.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// installed is a directory of this machine with a server in it.
//
// That nothing outlives the test process is the work of the holder, a shell
// that waits for the end of its standard input, a pipe whose other end this
// process keeps. The kernel closes that end for a process that was killed too.
// A parent-death signal would do it on Linux only, and there it follows the
// thread that started the child, not the process.
type installed struct {
	bin    string
	dir    string
	as     *syscall.Credential // nil: as ourselves
	holder *exec.Cmd
	leash  io.Closer // the holder's standard input
}

func installedLauncher(getenv func(string) string) launcher {
	return func(ctx context.Context) (*site, error) {
		bin, version, err := findBinaries(ctx, getenv)
		if err != nil {
			return nil, err
		}
		port, err := freePort(ctx)
		if err != nil {
			return nil, err
		}
		h := &installed{bin: bin}
		if err := h.open(); err != nil {
			return nil, err
		}
		return &site{
			host:       h,
			source:     fmt.Sprintf("installed PostgreSQL %s in %s", version, bin),
			listenPort: port,
			listenAddr: "127.0.0.1",
			port:       port,
			names:      []string{"127.0.0.1"},
			peer:       "127.0.0.1",
			peerEnd:    port,
		}, nil
	}
}

// open makes the directory and starts the holder.
func (h *installed) open() (err error) {
	if os.Geteuid() == 0 {
		// PostgreSQL refuses to run as root.
		if h.as, err = serverUser(); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp(h.tempDir(), "pgtest-")
	if err != nil {
		return err
	}
	// The server's scripts compare paths, so there must be one only.
	if h.dir, err = filepath.EvalSymlinks(dir); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	if h.as != nil {
		err = os.Chown(h.dir, int(h.as.Uid), int(h.as.Gid))
	}
	if err == nil {
		h.holder = h.command(context.Background(), "hold")
		h.leash, err = h.holder.StdinPipe()
	}
	if err == nil {
		err = h.holder.Start()
	}
	if err != nil {
		return errors.Join(fmt.Errorf("set up %s: %w", h.dir, err), os.RemoveAll(h.dir))
	}
	return nil
}

// tempDir is the directory for temporary directories, if the server's user gets
// there. One that root has to itself will not do for anybody else.
func (h *installed) tempDir() string {
	const everybodys = "/tmp"
	temp := filepath.Clean(os.TempDir())
	for dir := temp; h.as != nil; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode()&0o001 == 0 {
			return everybodys
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	return temp
}

// command prepares a command of serverScript, apart from our terminal and out of
// reach of a Ctrl-C meant for the test.
func (h *installed) command(ctx context.Context, name string, env ...string) *exec.Cmd {
	line := scriptCommand(name)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Dir = h.dir
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		// PGHOST and the like would lead the tools elsewhere.
		return strings.HasPrefix(v, "PG") || strings.HasPrefix(v, "PWD=")
	})
	cmd.Env = append(cmd.Env, "PGTEST_DIR="+h.dir, "PGTEST_BIN="+h.bin)
	cmd.Env = append(cmd.Env, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: h.as}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func (h *installed) run(ctx context.Context, name string, env ...string) (string, error) {
	out, err := h.command(ctx, name, env...).CombinedOutput()
	if ctx.Err() != nil {
		return "", fmt.Errorf("%s: %w", name, context.Cause(ctx))
	}
	if err != nil {
		return "", scriptError(name, string(out), err)
	}
	return string(out), nil
}

// close lets go of the holder, which ends the server and removes its data.
func (h *installed) close(ctx context.Context) error {
	err := h.leash.Close()
	done := make(chan error, 1)
	go func() { done <- h.holder.Wait() }()
	select {
	case waitErr := <-done:
		err = errors.Join(err, waitErr)
	case <-ctx.Done():
		err = errors.Join(err, context.Cause(ctx), h.holder.Cancel())
		err = errors.Join(err, <-done)
	}
	// The holder has no right to remove its directory where the temporary
	// directory belongs to somebody else; we made it, so we have.
	return errors.Join(err, os.RemoveAll(h.dir))
}

// serverUser is who runs the server if we are root.
func serverUser() (*syscall.Credential, error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		if err != nil {
			return nil, err
		}
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		if err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, errors.New("PostgreSQL does not run as root, and there is neither a user postgres nor nobody to run it as")
}

// findBinaries returns the directory of the newest PostgreSQL and its version.
func findBinaries(ctx context.Context, getenv func(string) string) (bin, version string, err error) {
	var tried []string
	for _, dir := range binDirs(ctx, getenv) {
		postgres := filepath.Join(dir, "postgres")
		out, err := exec.CommandContext(ctx, postgres, "--version").Output()
		if err != nil {
			tried = append(tried, dir)
			continue
		}
		// postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)
		_, rest, _ := strings.Cut(string(out), ") ")
		version, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		return dir, version, nil
	}
	if len(tried) == 0 {
		return "", "", errors.New("none found")
	}
	return "", "", fmt.Errorf("no postgres that runs in %s", strings.Join(tried, ", "))
}

// binDirs lists where PostgreSQL's binaries may be, the most likely first.
func binDirs(ctx context.Context, getenv func(string) string) []string {
	if dir := getenv("PGTEST_BINDIR"); dir != "" {
		return []string{dir}
	}
	var dirs []string
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin",         // Debian, Ubuntu
		"/usr/pgsql-*/bin",                  // the PostgreSQL project's RPMs
		"/opt/homebrew/opt/postgresql*/bin", // Homebrew on Apple silicon
		"/usr/local/opt/postgresql*/bin",    // Homebrew on Intel
	} {
		found, _ := filepath.Glob(pattern)
		slices.SortFunc(found, func(a, b string) int { return majorVersion(b) - majorVersion(a) })
		dirs = append(dirs, found...)
	}
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	if postgres, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(postgres))
	}
	return slices.DeleteFunc(dirs, func(dir string) bool {
		info, err := os.Stat(filepath.Join(dir, "initdb"))
		return err != nil || info.Mode()&0o111 == 0
	})
}

// majorVersion is the number in /usr/lib/postgresql/15/bin or postgresql@15.
func majorVersion(path string) int {
	n := 0
	for _, r := range filepath.Base(filepath.Dir(path)) {
		if r >= '0' && r <= '9' {
			n = n*10 + int(r-'0')
		}
	}
	return n
}
