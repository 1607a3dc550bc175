package pgtest

// This file is the second way to a server: a container, through
// testcontainers-go. Which image it is made from is in image.go.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/testcontainers/testcontainers-go"
	tcexec "github.com/testcontainers/testcontainers-go/exec"
	tclog "github.com/testcontainers/testcontainers-go/log"
)

const (
	// containerDir is the server's directory in its container.
	containerDir = "/tmp/pgtest"
	// containerPort is where the server listens in its container.
	containerPort = 5432
	// daemonTimeout is how long a Docker daemon may take to say it is there.
	daemonTimeout = 3 * time.Second
)

// container is a container with a server in it.
//
// Its first process is the script's hold command, whose standard input is
// attached to this process. Docker closes it when this process is gone, killed
// or not; then hold ends, with it the container, and Docker removes it. Server
// and container are started and stopped apart, so that data, port and address
// outlast a killed server.
type container struct {
	provider *testcontainers.DockerProvider
	testcontainers.Container
	leash io.Closer // the other end of hold's standard input
}

func dockerLauncher(getenv func(string) string) launcher {
	return func(ctx context.Context) (*site, error) {
		provider, err := dockerProvider(ctx, getenv)
		if err != nil {
			return nil, err
		}
		image, source, err := dockerImage(ctx, provider, getenv)
		if err != nil {
			return nil, errors.Join(err, provider.Close())
		}
		port, err := freePort(ctx)
		if err != nil {
			return nil, errors.Join(err, provider.Close())
		}
		c := &container{provider: provider}
		place := &site{
			host:       c,
			source:     source,
			listenPort: containerPort,
			listenAddr: "*",
			port:       port,
			peerEnd:    containerPort,
		}
		if err = c.open(ctx, image, port); err == nil {
			place.peer, err = c.ContainerIP(ctx)
		}
		if err == nil {
			place.names, err = publishedAt(ctx, provider, getenv)
		}
		if err != nil {
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
			defer cancel()
			return nil, errors.Join(err, c.close(closing))
		}
		return place, nil
	}
}

// dockerProvider connects to the Docker daemon, or soon says that there is none.
func dockerProvider(ctx context.Context, getenv func(string) string) (*testcontainers.DockerProvider, error) {
	// testcontainers looks for the daemon without a time limit, so it is only
	// let at one that can be reached.
	if daemon := getenv("DOCKER_HOST"); daemon != "" {
		if err := dialDaemon(ctx, daemon); err != nil {
			return nil, err
		}
	}
	// testcontainers' reaper does for containers what hold does here, and to do
	// it pulls an image and runs another container. It stays available to those
	// who ask for it. testcontainers reads the variable once, so it must be set
	// by now.
	const reaper = "TESTCONTAINERS_RYUK_DISABLED"
	if _, set := os.LookupEnv(reaper); !set {
		if err := os.Setenv(reaper, "true"); err != nil {
			return nil, err
		}
	}
	// The result of this is remembered for the process; an early end of ctx
	// would be remembered too.
	ping, cancel := context.WithTimeout(context.WithoutCancel(ctx), daemonTimeout)
	defer cancel()
	silence()
	client, err := testcontainers.NewDockerClientWithOpts(ping)
	if err != nil {
		return nil, fmt.Errorf("no daemon answers: %w", err)
	}
	if err := client.Close(); err != nil {
		return nil, err
	}
	return testcontainers.NewDockerProvider(testcontainers.WithLogger(tclog.NewNoopLogger()))
}

// silence takes away testcontainers' banner, which would stand in the middle of what a
// test or example prints. Its client can be told so no other way than for the whole
// process, which it reads from without a lock.
var silence = sync.OnceFunc(func() { tclog.SetDefault(tclog.NewNoopLogger()) })

// dialDaemon tries to reach a daemon given as in DOCKER_HOST.
func dialDaemon(ctx context.Context, daemon string) error {
	network, address, ok := strings.Cut(daemon, "://")
	if !ok {
		return fmt.Errorf("DOCKER_HOST is %q, which is not a URL", daemon)
	}
	switch network {
	case "unix":
	case "tcp", "http", "https":
		network = "tcp"
		address, _, _ = strings.Cut(address, "/")
	default:
		return nil // ssh and the like; testcontainers knows more about them
	}
	dialer := net.Dialer{Timeout: daemonTimeout}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return fmt.Errorf("no daemon answers: %w", err)
	}
	return conn.Close()
}

// open creates the container, takes hold of its standard input and starts it.
func (c *container) open(ctx context.Context, image string, port int) error {
	req := testcontainers.ContainerRequest{
		Image:        image,
		Entrypoint:   scriptCommand("hold"),
		Env:          map[string]string{"PGTEST_DIR": containerDir},
		ExposedPorts: []string{fmt.Sprintf("%d/tcp", containerPort)},
		Labels: map[string]string{
			"com.github.aurorapgx.pgtest":       "true",
			"com.github.aurorapgx.pgtest.owner": fmt.Sprintf("%s, process %d", path.Base(os.Args[0]), os.Getpid()),
		},
	}
	amend(&req.ConfigModifier, map[string]any{
		"User":      "postgres",
		"OpenStdin": true,
		"StdinOnce": true,
		// A volume with no name, which goes with the container: the layered
		// file system of images is slow to write, with some drivers very.
		"Volumes": map[string]any{path.Dir(containerDir): struct{}{}},
	})
	amend(&req.HostConfigModifier, map[string]any{
		"AutoRemove": true,
		"ShmSize":    256 << 20, // the default is too small for parallel queries
		"PortBindings": map[string]any{
			fmt.Sprintf("%d/tcp", containerPort): []map[string]string{{"HostPort": strconv.Itoa(port)}},
		},
	})
	var err error
	if c.Container, err = c.provider.CreateContainer(ctx, req); err != nil {
		return fmt.Errorf("create a container: %w", err)
	}
	// Attached before it starts: there is no moment at which the container runs
	// without us.
	client := c.provider.Client()
	attach := fmt.Sprintf("http://docker/v%s/containers/%s/attach?stream=1&stdin=1",
		client.ClientVersion(), c.GetContainerID())
	if c.leash, err = client.DialHijack(ctx, attach, "tcp", nil); err != nil {
		return fmt.Errorf("attach to the container: %w", err)
	}
	if err = c.Start(ctx); err != nil {
		if strings.Contains(err.Error(), "port is already allocated") ||
			strings.Contains(err.Error(), "address already in use") {
			err = errors.Join(errPortTaken, err)
		}
		return fmt.Errorf("start the container: %w", err)
	}
	return nil
}

// amend lays settings, named as in Docker's API, over the part of a request
// that modifier is for. Going through JSON spares a dependency on the module
// with Docker's types, which testcontainers exchanges from time to time.
func amend[T any](modifier *func(*T), settings map[string]any) {
	*modifier = func(part *T) {
		text, err := json.Marshal(settings)
		if err == nil {
			err = json.Unmarshal(text, part)
		}
		if err != nil {
			panic(fmt.Sprintf("pgtest: settings that Docker's API does not have: %v", err))
		}
	}
}

func (c *container) run(ctx context.Context, name string, env ...string) (string, error) {
	code, reader, err := c.Exec(ctx, scriptCommand(name), tcexec.WithEnv(env), tcexec.Multiplexed())
	if ctx.Err() != nil {
		return "", fmt.Errorf("%s: %w", name, context.Cause(ctx))
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	out, err := io.ReadAll(reader)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	if code != 0 {
		return "", scriptError(name, string(out), fmt.Errorf("exit status %d", code))
	}
	return string(out), nil
}

// close removes the container and returns when it is gone.
func (c *container) close(ctx context.Context) error {
	var errs []error
	if c.leash != nil {
		errs = append(errs, c.leash.Close())
	}
	if c.Container != nil {
		// Docker may be removing it already, by AutoRemove; whether it is gone
		// in the end is what counts.
		terminateErr := c.Terminate(ctx, testcontainers.StopTimeout(0))
		errs = append(errs, poll(ctx, func(ctx context.Context) error {
			_, err := c.State(ctx)
			if missing(err) {
				return nil
			}
			return errors.Join(errors.New("the container is still there"), terminateErr, err)
		}))
	}
	return errors.Join(append(errs, c.provider.Close())...)
}

// missing says whether Docker's answer is that there is no such image or
// container. Its client hides the kind of the error from errors.As, so it is
// known by its text, which Docker and Podman have in common.
func missing(err error) bool {
	if err == nil {
		return false
	}
	text := strings.ToLower(err.Error())
	return strings.Contains(text, "no such image") || strings.Contains(text, "no such container")
}

// publishedAt lists the hosts under which a published port may be reached.
// testcontainers has one answer, which is wrong for a process that looks as if
// it were in a container, but shares the network of its Docker daemon.
func publishedAt(ctx context.Context, provider *testcontainers.DockerProvider, getenv func(string) string) ([]string, error) {
	var names []string
	if name := getenv("TESTCONTAINERS_HOST_OVERRIDE"); name != "" {
		names = append(names, name)
	}
	daemon := provider.Client().DaemonHost()
	if strings.HasPrefix(daemon, "unix:") || strings.HasPrefix(daemon, "npipe:") {
		names = append(names, "127.0.0.1")
	}
	name, err := provider.DaemonHost(ctx)
	if err != nil && len(names) == 0 {
		return nil, fmt.Errorf("find the host of the published port: %w", err)
	}
	if err == nil && name != "localhost" && !slices.Contains(names, name) {
		names = append(names, name)
	}
	return names, nil
}
