// Package pgtest gives a real PostgreSQL server to tests, benchmarks and
// examples.
//
// [Start] takes the first of these that can be had:
//
//  1. The server named by PGTEST_DSN, a superuser's connection string.
//  2. A container, through testcontainers-go: the official image postgres:17,
//     or the one named by PGTEST_IMAGE. Where postgres:17 is neither there nor
//     can be pulled, an image is built from Debian packages (see image.go);
//     that takes a minute once, and needs root on Debian or Ubuntu.
//  3. Installed PostgreSQL binaries, run from a temporary directory.
//
// [Server.Source] says which one it was. PGTEST_MODE set to dsn, docker or
// installed allows that one only. PGTEST_BINDIR names the directory of the
// installed binaries, where the newest ones are not those that are wanted.
//
// A server of the second and third kind lives no longer than the process that
// started it, whichever way that process ends. It runs with fsync off: a
// server that is killed loses nothing by it, since what it wrote is with the
// kernel by then; only a machine that loses power does, and no test survives
// that.
//
//	func TestSomething(t *testing.T) {
//		server := pgtest.Run(t)
//		pool, err := pgxpool.New(t.Context(), server.DSN())
//		...
//	}
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// readyTimeout bounds the wait for a server that was told to start.
const readyTimeout = 60 * time.Second

// startAttempts is how often a server is started anew because something else
// took its port between the choice and the use.
const startAttempts = 5

// errNotSet is why PGTEST_DSN is not taken most of the time.
var errNotSet = errors.New("not set")

// errPortTaken marks a failed start that a different port would mend.
var errPortTaken = errors.New("the port is in use")

// Start gives a PostgreSQL server. The caller closes it.
func Start(ctx context.Context, opts ...Option) (*Server, error) {
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	if cfg.synchronous {
		return nil, errors.New("pgtest: WithSynchronous is for Standby, not for Start")
	}
	return startFirst(ctx, cfg, ways(os.Getenv))
}

// Run is Start for a test or benchmark: the server is closed when tb ends, and
// tb fails if there is none to be had. A test without its database would say
// nothing, so Run never skips.
func Run(tb testing.TB, opts ...Option) *Server {
	tb.Helper()
	server, err := Start(tb.Context(), opts...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := server.Close(); err != nil {
			tb.Error(err)
		}
	})
	tb.Logf("pgtest: PostgreSQL from %s", server.Source())
	if server.passedOver != nil {
		tb.Logf("pgtest: not taken: %v", server.passedOver)
	}
	return server
}

// way is one way to come by a server.
type way struct {
	mode  string // its name in PGTEST_MODE
	title string // its name in messages
	start func(context.Context, config) (*Server, error)
}

// ways lists them in the order in which they are tried, for an environment.
func ways(getenv func(string) string) []way {
	all := []way{
		{"dsn", "PGTEST_DSN", func(ctx context.Context, cfg config) (*Server, error) {
			return startExisting(ctx, cfg, getenv("PGTEST_DSN"))
		}},
		{"docker", "Docker", func(ctx context.Context, cfg config) (*Server, error) {
			return startOwn(ctx, cfg, dockerLauncher(getenv))
		}},
		{"installed", "installed binaries", func(ctx context.Context, cfg config) (*Server, error) {
			return startOwn(ctx, cfg, installedLauncher(getenv))
		}},
	}
	mode := getenv("PGTEST_MODE")
	if mode == "" {
		return all
	}
	for _, w := range all {
		if w.mode == mode {
			return []way{w}
		}
	}
	return []way{{mode, "PGTEST_MODE", func(context.Context, config) (*Server, error) {
		return nil, fmt.Errorf("%q is not a mode; use dsn, docker or installed", mode)
	}}}
}

func startFirst(ctx context.Context, cfg config, ways []way) (*Server, error) {
	var failed []error
	for _, w := range ways {
		server, err := w.start(ctx, cfg)
		if err == nil {
			// That PGTEST_DSN is not set is no news to anyone.
			failed = slices.DeleteFunc(failed, func(err error) bool { return errors.Is(err, errNotSet) })
			server.passedOver = errors.Join(failed...)
			return server, nil
		}
		failed = append(failed, fmt.Errorf("%s: %w", w.title, err))
		if ctx.Err() != nil {
			break
		}
	}
	return nil, &noServerError{failed}
}

// noServerError says for each way why it failed, and what to do about it.
type noServerError struct {
	failed []error
}

func (e *noServerError) Error() string {
	var b strings.Builder
	b.WriteString("pgtest: no PostgreSQL server to be had:\n")
	for _, err := range e.failed {
		fmt.Fprintf(&b, "  - %s\n", strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "\n    "))
	}
	b.WriteString("do one of these: set PGTEST_DSN to the connection string of a superuser, " +
		"start Docker, or install PostgreSQL (on Debian: apt-get install postgresql)")
	return b.String()
}

func (e *noServerError) Unwrap() []error { return e.failed }
