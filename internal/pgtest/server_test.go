//go:build unix

package pgtest

// These are the tests of what is done with a server, by each way to have one:
// killing, restarting, promoting, closing, and losing its owner.

import (
	"bufio"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func portString(port int) string { return strconv.Itoa(port) }

func directory(h host) string { return h.(*installed).dir }

func TestKillAndRestart(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		server := mustStart(t, mode, nil)
		dsn := server.DSN()
		execute(t, dsn, "create table t (id int primary key)")
		execute(t, dsn, "insert into t select generate_series(1, 1000)")

		// A connection that is busy, which a mere end of the postmaster would
		// not cut off.
		conn, err := pgx.Connect(t.Context(), dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close(context.WithoutCancel(t.Context())) }()
		cut := make(chan error, 1)
		go func() {
			_, err := conn.Exec(t.Context(), "select pg_sleep(60)")
			cut <- err
		}()

		began := time.Now()
		if err := server.Kill(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("killed in %v", time.Since(began).Round(time.Millisecond))
		select {
		case err := <-cut:
			if err == nil {
				t.Error("the connection outlived the server")
			}
		case <-time.After(5 * time.Second):
			t.Error("the connection was not cut")
		}
		if err := queryAt(t.Context(), dsn, "select 1", new(int)); err == nil {
			t.Error("a killed server answers")
		}
		if err := server.Kill(t.Context()); err != nil {
			t.Errorf("killing a killed server: %v", err)
		}

		for _, down := range []func(context.Context) error{server.Kill, server.Stop} {
			if err := down(t.Context()); err != nil {
				t.Fatal(err)
			}
			began = time.Now()
			if err := server.Restart(t.Context()); err != nil {
				t.Fatal(err)
			}
			t.Logf("restarted in %v", time.Since(began).Round(time.Millisecond))
			if n := scan[int](t, dsn, "select count(*)::int from t"); n != 1000 {
				t.Errorf("got %d rows, want 1000", n)
			}
		}
		if got := server.DSN(); got != dsn {
			t.Error("the DSN changed")
		}
	})
}

func TestFailover(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		ctx := t.Context()
		primary := mustStart(t, mode, nil)
		execute(t, primary.DSN(), "create table t (id int primary key)")

		began := time.Now()
		standby, err := primary.Standby(ctx, WithSynchronous(), WithSetting("work_mem", "6MB"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := standby.Close(); err != nil {
				t.Error(err)
			}
		})
		t.Logf("standby in %v", time.Since(began).Round(time.Millisecond))
		if got := scan[string](t, standby.DSN(), "show work_mem"); got != "6MB" {
			t.Errorf("work_mem of the standby is %s", got)
		}
		execute(t, primary.DSN(), "insert into t select generate_series(1, 100)")
		if err := queryAt(ctx, standby.DSN(), "insert into t values (0) returning id", new(int)); err == nil {
			t.Error("the standby accepted a write")
		}

		if err := primary.Kill(ctx); err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		if err := standby.Promote(ctx); err != nil {
			t.Fatal(err)
		}
		t.Logf("promoted in %v", time.Since(began).Round(time.Millisecond))
		execute(t, standby.DSN(), "insert into t values (101)")
		if n := scan[int](t, standby.DSN(), "select count(*)::int from t"); n != 101 {
			t.Errorf("got %d rows, want 101", n)
		}

		dsn := primary.DSN()
		began = time.Now()
		if err := primary.Follow(ctx, standby, WithSynchronous()); err != nil {
			t.Fatal(err)
		}
		t.Logf("followed in %v", time.Since(began).Round(time.Millisecond))
		if primary.DSN() != dsn {
			t.Error("the DSN changed")
		}
		execute(t, standby.DSN(), "set synchronous_commit = remote_apply; insert into t values (102)")
		if n := scan[int](t, dsn, "select count(*)::int from t"); n != 102 {
			t.Errorf("the former primary has %d rows, want 102", n)
		}
		if err := standby.Promote(ctx); err == nil {
			t.Error("a primary was promoted")
		}
	})
}

// TestClose is not parallel to other tests, whose goroutines it would count.
func TestClose(t *testing.T) {
	for _, mode := range ownModes(t) {
		before := runtime.NumGoroutine()
		server := mustStart(t, mode, nil)
		if err := queryAt(t.Context(), server.DSN(), "select 1", new(int)); err != nil {
			t.Error(err)
		}
		began := time.Now()
		for range 2 {
			if err := server.Close(); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("closed in %v", time.Since(began).Round(time.Millisecond))
		noGoroutineMore(t, before)
		gone(t, server.site)
		if err := server.Restart(t.Context()); err == nil {
			t.Error("a closed server was restarted")
		}
	}
}

func noGoroutineMore(t *testing.T, than int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	err := poll(ctx, func(context.Context) error {
		if runtime.NumGoroutine() > than {
			return errors.New("there are goroutines left")
		}
		return nil
	})
	if err != nil {
		stacks := make([]byte, 1<<20)
		t.Errorf("%v\n%s", err, stacks[:runtime.Stack(stacks, true)])
	}
}

// orphanMode is set in a process that TestOrphan starts, and kills.
const orphanMode = "PGTEST_TEST_ORPHAN"

// TestOrphan looks at what is left of a server when the process that started it
// is killed.
func TestOrphan(t *testing.T) {
	if mode := os.Getenv(orphanMode); mode != "" {
		server := mustStart(t, mode, nil)
		where := ""
		if h, ok := server.site.host.(*installed); ok {
			where = h.dir
		}
		_, _ = os.Stdout.WriteString("\norphan " + server.DSN() + " " + where + "\n")
		<-t.Context().Done() // the end comes from outside
	}
	t.Parallel()
	eachMode(t, func(t *testing.T, mode string) {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOrphan$", "-test.v")
		cmd.Env = append(os.Environ(), orphanMode+"="+mode)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var dsn, dir string
		lines := bufio.NewScanner(out)
		for dsn == "" && lines.Scan() {
			if fields := strings.Fields(lines.Text()); len(fields) > 1 && fields[0] == "orphan" {
				dsn, dir = fields[1], strings.Join(fields[2:], " ")
			}
		}
		if dsn == "" {
			t.Fatal("the process ended without a server")
		}
		if got := scan[int](t, dsn, "select 1"); got != 1 {
			t.Errorf("got %d", got)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()

		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
		defer cancel()
		began := time.Now()
		err = poll(ctx, func(ctx context.Context) error {
			if err := queryAt(ctx, dsn, "select 1", new(int)); err == nil {
				return errors.New("the server still answers")
			}
			if dir == "" {
				return nil
			}
			if left, _ := filepath.Glob(dir); len(left) > 0 {
				return errors.New("the directory is still there")
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		t.Logf("gone %v after the process", time.Since(began).Round(time.Millisecond))
	})
}
