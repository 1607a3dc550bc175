// Command pgxsuite runs pgx's own tests through proxytest, in front of a real PostgreSQL, and compares
// what fails with a list of what cannot pass through an RDS Proxy:
//
//	go run ./pgxsuite [-run regexp] [-v]
//
// The tests come from the module cache, in the version that go.mod names; nothing of them is kept
// here. A test that fails and is not on the list is an error; so is one that is on the list and
// passes, and one that is skipped for want of something without being listed as such.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aurorapgx/aurorapgx/internal/pgtest"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

const module = "github.com/jackc/pgx/v5"

var packages = []string{"pgx", "pgconn", "pgxpool", "stdlib"}

func main() {
	pattern := flag.String("run", "", "run only tests that match, and complain about failures alone")
	verbose := flag.Bool("v", false, "show what the expected failures say")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *pattern, *verbose)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "pgxsuite:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, pattern string, verbose bool) (err error) {
	listed, err := readList(expectations)
	if err != nil {
		return err
	}
	dir, source, err := copySuite(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	server, err := pgtest.Start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	dsn, err := prepare(ctx, server, dir)
	if err != nil {
		return err
	}
	px, err := startProxy(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, px.Close()) }()

	fmt.Printf("%s through proxytest to %s\n", source, server.Source())
	results, err := goTest(ctx, dir, pattern, environment(ctx, px, dsn))
	if err != nil {
		return err
	}
	return judge(results, listed, px, pattern != "", verbose)
}

// startProxy has room for what the tests keep open at a time.
func startProxy(ctx context.Context, dsn string) (*proxytest.Proxy, error) {
	return proxytest.Start(ctx, dsn,
		proxytest.WithHost("localhost"), proxytest.WithMaxConnections(100), proxytest.WithoutTLSRequired(),
		proxytest.WithUser(scramUser, password), proxytest.WithUser(md5User, password), proxytest.WithUser(iamUser, password),
		proxytest.WithMD5User(md5User), proxytest.WithIAMUser(iamUser))
}

// copySuite copies pgx from the module cache, where it is read-only, into a temporary directory.
func copySuite(ctx context.Context) (dir, source string, err error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}|{{.Path}} {{.Version}}", module).Output()
	if err != nil {
		return "", "", fmt.Errorf("find %s in the module cache (run this in internal/integration): %w", module, err)
	}
	from, source, _ := strings.Cut(strings.TrimSpace(string(out)), "|")
	if dir, err = os.MkdirTemp("", "pgxsuite-"); err != nil {
		return "", "", err
	}
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		return "", "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, source, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chmod(path, 0o755) //nolint:gosec // a copy of public source, to build in
	})
}

// judge compares results with the list and prints the sums.
func judge(results []result, listed map[string]expectation, px *proxytest.Proxy, partial, verbose bool) error {
	var problems []string
	count := map[string]int{}
	seen := map[string]bool{}
	for _, r := range results {
		e, ok := listed[r.name]
		seen[r.name] = true
		switch {
		case r.outcome == "fail" && !ok:
			problems = append(problems, fmt.Sprintf("%s failed, and is not on the list:\n%s", r.name, indent(r.output)))
		case r.outcome == "fail" && e.outcome == "skip", r.outcome == "skip" && ok && e.outcome == "fail":
			problems = append(problems, fmt.Sprintf("%s: %s, the list says %s", r.name, r.outcome, e.outcome))
		case r.outcome == "skip" && !ok:
			problems = append(problems, fmt.Sprintf("%s was skipped, and is not on the list:\n%s", r.name, indent(r.output)))
		case r.outcome == "pass" && ok && e.outcome != "either":
			problems = append(problems, fmt.Sprintf("%s passed: take it off the list, which says %q", r.name, e.reason))
		}
		count[r.outcome]++
		if verbose && ok {
			fmt.Printf("%s %s (%s)\n%s\n", r.outcome, r.name, e.reason, indent(r.output))
		}
	}
	for name := range listed {
		if !seen[name] && !partial {
			problems = append(problems, name+" is on the list and was not run")
		}
	}
	st := px.Stats()
	fmt.Printf("%d tests passed, %d cannot pass through RDS Proxy, %d skipped for want of what RDS Proxy has not\n",
		count["pass"], count["fail"], count["skip"])
	fmt.Printf("the proxy saw %d client connections, %d statements, %d borrows, %d pinned sessions, %d CancelRequests\n",
		st.ClientConnectionsReceived, st.Statements, st.DatabaseConnectionsBorrowRequests, st.PinnedSessions, st.CancelRequests)
	if len(problems) == 0 {
		return nil
	}
	slices.Sort(problems)
	return errors.New(strings.Join(problems, "\n"))
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n    ")
}
