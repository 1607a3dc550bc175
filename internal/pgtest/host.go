package pgtest

// This file says what a container and this machine have in common for somebody
// who wants a server on one of them: commands can be run there, and there is an
// address. All else is shared.

import (
	"context"
	_ "embed" // for serverScript
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
)

// serverScript holds every command that is run where a server runs.
//
//go:embed server.sh
var serverScript string

// host is the place a server runs in. It is all that a container and this
// machine do not have in common.
type host interface {
	// run runs a command of serverScript there and returns what it printed. If
	// the command fails, the error says what it printed.
	run(ctx context.Context, command string, env ...string) (string, error)
	// close ends everything that runs there and removes all of it.
	close(ctx context.Context) error
}

// site is a host and how it is reached.
type site struct {
	host
	source string // for Server.Source

	listenPort int    // where the server listens on its host
	listenAddr string // its listen_addresses

	port    int      // where this process reaches that port
	names   []string // the hosts to try for that, in order
	peer    string   // the host and
	peerEnd int      // port under which another site's server reaches it
}

// launcher makes a new site, with nothing on it yet.
type launcher func(ctx context.Context) (*site, error)

// scriptCommand is the command line for a command of serverScript.
func scriptCommand(command string) []string {
	return []string{"/bin/sh", "-c", serverScript, "pgtest", command}
}

// scriptError makes an error of what a failed command printed.
func scriptError(command, output string, err error) error {
	output = strings.TrimSpace(output)
	if strings.Contains(output, "Address already in use") {
		err = errPortTaken
	}
	if output == "" {
		return fmt.Errorf("%s: %w", command, err)
	}
	return fmt.Errorf("%s: %w\n%s", command, err, output)
}

// freePort chooses a port nobody listens on. It stays below the range from
// which systems take the ports of outgoing connections: a server that is down
// for a moment must find its port again.
func freePort(ctx context.Context) (int, error) {
	const low, high = 15000, 32000
	var (
		lc  net.ListenConfig
		err error
	)
	for range 100 {
		port := low + rand.IntN(high-low)
		var l net.Listener
		if l, err = lc.Listen(ctx, "tcp", ":"+strconv.Itoa(port)); err == nil {
			return port, l.Close()
		}
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}
