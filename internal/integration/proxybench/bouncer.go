package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bouncer is a PgBouncer in transaction mode, run from a temporary directory.
type bouncer struct {
	addr     string
	prepares bool // it knows prepared statements in transaction mode (1.21 and later)
	cmd      *exec.Cmd
	dir      string
}

func startBouncer(ctx context.Context, p plan, dsn string) (_ *bouncer, err error) {
	path, err := exec.LookPath("pgbouncer")
	if err != nil {
		return nil, errors.New("pgbouncer is not installed: apt-get install pgbouncer")
	}
	b := &bouncer{}
	if b.prepares, err = prepares(ctx, path); err != nil {
		return nil, err
	}
	if b.dir, err = os.MkdirTemp("/tmp", "proxybench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(b.dir)
		}
	}()
	if b.addr, err = freeAddr(ctx); err != nil {
		return nil, err
	}
	ini, err := b.configure(p, dsn)
	if err != nil {
		return nil, err
	}
	b.cmd = exec.CommandContext(ctx, path, ini)
	if b.cmd.SysProcAttr, err = b.asNobody(); err != nil {
		return nil, err
	}
	if err := b.cmd.Start(); err != nil {
		return nil, err
	}
	return b, b.awaitReady(ctx)
}

// prepares reads "PgBouncer 1.18.0".
func prepares(ctx context.Context, path string) (bool, error) {
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return false, err
	}
	var major, minor int
	if _, err := fmt.Sscanf(string(out), "PgBouncer %d.%d", &major, &minor); err != nil {
		return false, fmt.Errorf("version of pgbouncer: %w", err)
	}
	return major > 1 || minor >= 21, nil
}

func (b *bouncer) configure(p plan, dsn string) (ini string, err error) {
	u, err := url.Parse(dsn)
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(b.addr)
	if err != nil {
		return "", err
	}
	users := filepath.Join(b.dir, "users.txt")
	if err := os.WriteFile(users, fmt.Appendf(nil, "%q %q\n", benchUser, benchPassword), 0o644); err != nil { //nolint:gosec // PgBouncer runs as another user
		return "", err
	}
	lines := []string{
		"[databases]",
		fmt.Sprintf("* = host=%s port=%s", u.Hostname(), u.Port()),
		"[pgbouncer]",
		"listen_addr = 127.0.0.1", "listen_port = " + port, "unix_socket_dir =",
		"auth_type = scram-sha-256", "auth_file = " + users,
		"pool_mode = transaction", "default_pool_size = " + strconv.Itoa(p.backends),
		"max_client_conn = 10000", "ignore_startup_parameters = extra_float_digits",
		"logfile = " + filepath.Join(b.dir, "log"), "log_connections = 0", "log_disconnections = 0",
	}
	if b.prepares {
		lines = append(lines, "max_prepared_statements = 200")
	}
	if p.tls {
		return "", errors.New("-tls: PgBouncer needs a certificate for that, which proxybench does not make")
	}
	ini = filepath.Join(b.dir, "pgbouncer.ini")
	return ini, os.WriteFile(ini, []byte(strings.Join(lines, "\n")+"\n"), 0o644) //nolint:gosec // PgBouncer runs as another user
}

// asNobody is how to run it if we are root, which PgBouncer refuses to run as.
func (b *bouncer) asNobody() (*syscall.SysProcAttr, error) {
	if os.Geteuid() != 0 {
		return &syscall.SysProcAttr{}, nil
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	if err := os.Chown(b.dir, int(uid), int(gid)); err != nil {
		return nil, err
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
}

func (b *bouncer) awaitReady(ctx context.Context) error {
	deadline := time.Now().Add(readyTimeout)
	for {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", b.addr)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return errors.Join(fmt.Errorf("pgbouncer does not answer: %w", err), b.stop())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (b *bouncer) stop() error {
	_ = b.cmd.Process.Signal(syscall.SIGTERM)
	_ = b.cmd.Wait() // its exit status after a signal says nothing
	return os.RemoveAll(b.dir)
}

func freeAddr(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
