package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/aurorapgx/aurorapgx/internal/pgtest"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

// prepareDatabase makes the role and the database that pgbench uses, and fills it.
func prepareDatabase(ctx context.Context, server *pgtest.Server) (dsn string, err error) {
	admin, err := server.NewDatabase(ctx)
	if err != nil {
		return "", err
	}
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	u, err := url.Parse(admin)
	if err != nil {
		return "", err
	}
	_, err = conn.Exec(ctx, fmt.Sprintf("create role %s login password '%s'; alter database %s owner to %[1]s",
		benchUser, benchPassword, pgx.Identifier{u.Path[1:]}.Sanitize()))
	if err != nil {
		return "", err
	}
	u.User = url.UserPassword(benchUser, benchPassword)
	out, err := pgbenchCommand(ctx, u.String(), "-i", "-q", "-s", "10").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("pgbench -i: %w\n%s", err, out)
	}
	return u.String(), nil
}

// urls are the ways through the two proxies.
func (p plan) urls(px *proxytest.Proxy, b *bouncer, dsn string) (ours, theirs string) {
	u, _ := url.Parse(dsn) // it has been parsed before
	mode := "disable"
	if p.tls {
		mode = "require"
	}
	u.RawQuery = "sslmode=" + mode
	u.Host = px.Addr()
	ours = u.String()
	u.Host = b.addr
	return ours, u.String()
}

var tpsLine = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)

// pgbench runs once and returns the transactions per second. Any failed one is an error.
func pgbench(ctx context.Context, p plan, dsn, protocol, load string) (float64, error) {
	threads := 2
	if protocol == "prepared" {
		// It prepares with a call that blocks the thread. Clients of one thread would wait for the
		// database connections of those that cannot go on for the same reason.
		threads = p.clients
	}
	cmd := pgbenchCommand(ctx, dsn, "-n", "-M", protocol, "-b", load, "-c", strconv.Itoa(p.clients), "-j", strconv.Itoa(threads),
		"-T", strconv.Itoa(p.seconds))
	out, err := cmd.CombinedOutput()
	text := string(out)
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, text)
	}
	if strings.Contains(text, "aborted") || !strings.Contains(text, "number of failed transactions: 0 ") {
		return 0, fmt.Errorf("pgbench reports failures:\n%s", text)
	}
	m := tpsLine.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("no tps in pgbench's output:\n%s", text)
	}
	return strconv.ParseFloat(m[1], 64)
}

func pgbenchCommand(ctx context.Context, dsn string, args ...string) *exec.Cmd {
	name, err := pgProgram("pgbench")
	cmd := exec.CommandContext(ctx, name, append(args, dsn)...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PG") })
	if err != nil {
		cmd.Err = err
	}
	return cmd
}

// pgProgram finds one of PostgreSQL's programs.
func pgProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil && !strings.HasPrefix(path, "/usr/bin") { // not Debian's wrapper
		return path, nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err == nil && len(found) > 0 {
		return found[len(found)-1], nil
	}
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	return name, errors.New(name + " is not installed: apt-get install postgresql-contrib")
}
