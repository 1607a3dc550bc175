//go:build unix

package pgtest

// These are the tests of what lies below a server: ports, images, locks, and
// that nothing of it stays.

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A port that is taken between its choice and its use costs another attempt.
func TestPortTaken(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		var lc net.ListenConfig
		l, err := lc.Listen(t.Context(), "tcp", "0.0.0.0:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		taken := l.Addr().(*net.TCPAddr).Port

		attempts := 0
		server, err := startOwn(t.Context(), config{}, func(ctx context.Context) (*site, error) {
			attempts++
			if mode == "docker" {
				if attempts == 1 {
					return nil, openContainer(ctx, t, taken)
				}
				return dockerLauncher(os.Getenv)(ctx)
			}
			place, err := installedLauncher(os.Getenv)(ctx)
			if err == nil && attempts == 1 {
				place.port, place.listenPort = taken, taken
			}
			return place, err
		})
		if err != nil {
			t.Fatal(err)
		}
		if attempts != 2 {
			t.Errorf("%d attempts, want 2", attempts)
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
}

// openContainer tries to start a container on a port, and removes it again.
func openContainer(ctx context.Context, t *testing.T, port int) error {
	t.Helper()
	provider, err := dockerProvider(ctx, os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	image, _, err := dockerImage(ctx, provider, os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	c := &container{provider: provider}
	err = c.open(ctx, image, port)
	if closeErr := c.close(ctx); closeErr != nil {
		t.Error(closeErr)
	}
	return err
}

func TestImageNotThere(t *testing.T) {
	t.Parallel()
	getenv := environment(map[string]string{"PGTEST_MODE": "docker", "PGTEST_IMAGE": "pgtest.invalid/none:1"})
	_, err := startFirst(t.Context(), config{}, ways(getenv))
	if err == nil || !strings.Contains(err.Error(), "pull pgtest.invalid/none:1") && !strings.Contains(err.Error(), "no daemon") {
		t.Errorf("got error %v", err)
	}
}

// Of two holders of the lock for the image's build the second waits, no longer
// than its context lasts.
func TestLockFile(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "lock")
	unlock, err := lockFile(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := lockFile(ctx, name); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v, want %v", err, context.DeadlineExceeded)
	}
	unlock()
	unlock, err = lockFile(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestMajorVersion(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]int{
		"/usr/lib/postgresql/9/bin":           9,
		"/usr/lib/postgresql/17/bin":          17,
		"/opt/homebrew/opt/postgresql@16/bin": 16,
		"/usr/pgsql-18/bin":                   18,
		"/opt/homebrew/opt/postgresql/bin":    0,
	} {
		if got := majorVersion(path); got != want {
			t.Errorf("%s: got %d, want %d", path, got, want)
		}
	}
}
