package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

// idleClients has another process hold idle connections, with TLS and after a statement each, and
// prints what they cost this one.
func (p plan) idleClients(ctx context.Context, px *proxytest.Proxy) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for _, mode := range []string{"disable", "require"} {
		before := memory()
		url := fmt.Sprintf("postgres://%s:%s@%s/postgres?sslmode=%s", benchUser, benchPassword, px.Addr(), mode)
		cmd := exec.CommandContext(ctx, self, "-hold", url, "-idle", strconv.Itoa(p.idle))
		cmd.Stderr = os.Stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		if err == nil && strings.TrimSpace(line) != "held" {
			err = fmt.Errorf("holder said %q", line)
		}
		held := px.Stats().ClientConnections
		cost := memory() - before
		err = errors.Join(err, in.Close(), cmd.Wait())
		if err != nil {
			return err
		}
		fmt.Printf("%d idle clients held, sslmode=%s: %.1f KiB of memory each\n", held, mode, float64(cost)/float64(held)/1024)
	}
	return nil
}

// memory is what the process has from the system for heap and stacks, less what it could give back.
func memory() int64 {
	for range 3 {
		runtime.GC()
	}
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// holdIdle is the other process.
func holdIdle(ctx context.Context, url string, n int) error {
	cfg, err := pgconn.ParseConfig(url)
	if err != nil {
		return err
	}
	conns := make([]*pgconn.PgConn, n)
	var g errgroup.Group
	g.SetLimit(16)
	for i := range conns {
		g.Go(func() error {
			conn, err := pgconn.ConnectConfig(ctx, cfg)
			if err != nil {
				return err
			}
			conns[i] = conn
			_, err = conn.Exec(ctx, "select 1").ReadAll()
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	fmt.Println("held")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
