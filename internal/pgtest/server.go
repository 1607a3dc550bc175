package pgtest

// This file has the Server and what is done with one: starting it on a site of
// its own, killing, stopping, restarting and closing it. How a site runs the
// commands for that is in docker.go and installed.go.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// closeTimeout bounds Close, which has no context since it must work when all
// of them have ended.
const closeTimeout = 30 * time.Second

// Server is a running PostgreSQL server. Its methods may be called from
// several goroutines; those that start and stop it take turns.
type Server struct {
	source     string
	passedOver error  // why earlier ways were not taken
	name       string // as standby, in pg_stat_replication
	dsn        string // of an existing server; otherwise put together by DSN

	launch launcher // nil for an existing server
	site   *site    // nil for an existing server

	// turn has room for one: whoever changes the state of the server. It is a
	// channel and not a mutex so that waiting for it ends with a context. It
	// guards the fields up to the next blank line.
	turn      chan struct{}
	closed    bool
	settings  []setting // those of the caller
	following string    // primary_conninfo of a standby
	standbys  []string  // names of the synchronous standbys

	mu        sync.Mutex // guards the following, never for long
	address   string
	password  string
	databases []string // to be dropped from an existing server
}

// startOwn starts a new server on a site of its own.
func startOwn(ctx context.Context, cfg config, launch launcher) (*Server, error) {
	password, err := randomHex(16)
	if err != nil {
		return nil, err
	}
	s, err := newServer("pgtest", cfg.settings, launch)
	if err != nil {
		return nil, err
	}
	s.password = password
	err = s.settle(ctx, func(ctx context.Context) error {
		_, err := s.site.run(ctx, "init", "PGPASSWORD="+password)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// newServer is a server that is nowhere yet.
func newServer(prefix string, settings []setting, launch launcher) (*Server, error) {
	name, err := randomName(prefix)
	return &Server{name: name, settings: settings, launch: launch, turn: make(chan struct{}, 1)}, err
}

// settle launches a site, has data put there and starts the server. It begins
// again elsewhere if the port chosen was taken in the meantime.
func (s *Server) settle(ctx context.Context, fill func(context.Context) error) error {
	var err error
	for range startAttempts {
		if s.site, err = s.launch(ctx); err != nil {
			if errors.Is(err, errPortTaken) {
				continue
			}
			return err
		}
		s.source = s.site.source
		if err = fill(ctx); err == nil {
			err = s.start(ctx)
		}
		if err == nil {
			return nil
		}
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		err = errors.Join(err, s.site.close(closing))
		cancel()
		if !errors.Is(err, errPortTaken) {
			break
		}
	}
	return err
}

// Source says where the server comes from, for people.
func (s *Server) Source() string { return s.source }

// DSN is a superuser's connection string for the database postgres.
func (s *Server) DSN() string {
	if s.site == nil {
		return s.dsn
	}
	return s.dsnAt(s.Host())
}

func (s *Server) dsnAt(host string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword("postgres", s.superPassword()),
		Host:     net.JoinHostPort(host, strconv.Itoa(s.site.port)),
		Path:     "/postgres",
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

func (s *Server) superPassword() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.password
}

// Host is the host part of DSN.
func (s *Server) Host() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.address
}

// Port is the port of DSN. It stays the same over Kill, Stop and Restart.
func (s *Server) Port() uint16 {
	if s.site != nil {
		return uint16(s.site.port)
	}
	if cfg, err := pgx.ParseConfig(s.dsn); err == nil {
		return cfg.Port
	}
	return 0
}

// NewDatabase creates a database of a name nobody else has, and returns its
// connection string. It goes when the server is closed.
func (s *Server) NewDatabase(ctx context.Context) (string, error) {
	name, err := randomName("test")
	if err != nil {
		return "", err
	}
	conn, err := pgx.Connect(ctx, s.DSN())
	if err != nil {
		return "", fmt.Errorf("pgtest: new database: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, "create database "+name); err != nil {
		return "", fmt.Errorf("pgtest: new database: %w", err)
	}
	s.mu.Lock()
	s.databases = append(s.databases, name)
	s.mu.Unlock()
	return withDatabase(s.DSN(), name)
}

// Kill ends the server with SIGKILL, all of its processes at once, as a crash
// would. Its data stays; Restart starts it again.
func (s *Server) Kill(ctx context.Context) error { return s.command(ctx, "kill", "crash") }

// Stop shuts the server down in order, without waiting for clients to leave.
// Restart starts it again.
func (s *Server) Stop(ctx context.Context) error { return s.command(ctx, "stop", "stop") }

func (s *Server) command(ctx context.Context, verb, command string) error {
	if err := s.takeTurn(ctx, verb); err != nil {
		return err
	}
	defer s.endTurn()
	if _, err := s.site.run(ctx, command); err != nil {
		return fmt.Errorf("pgtest: %w", err)
	}
	return nil
}

// Restart starts the server after Kill or Stop: the same data, the same
// address. A server that runs is stopped first.
func (s *Server) Restart(ctx context.Context) error {
	if err := s.takeTurn(ctx, "restart"); err != nil {
		return err
	}
	defer s.endTurn()
	_, err := s.site.run(ctx, "stop")
	if err == nil {
		err = s.start(ctx)
	}
	if err != nil {
		return fmt.Errorf("pgtest: restart: %w", err)
	}
	return nil
}

// takeTurn waits until nobody else changes the server. If it returns nil,
// endTurn must be called. The verb is for the error.
func (s *Server) takeTurn(ctx context.Context, verb string) error {
	if err := s.mustBeOwn(verb); err != nil {
		return err
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("pgtest: %s: %w", verb, context.Cause(ctx))
	}
	if s.closed {
		s.endTurn()
		return fmt.Errorf("pgtest: cannot %s a closed server", verb)
	}
	return nil
}

func (s *Server) endTurn() { <-s.turn }

// mustBeOwn refuses what only a server of our own can be asked for.
func (s *Server) mustBeOwn(verb string) error {
	if s.site != nil {
		return nil
	}
	return fmt.Errorf("pgtest: cannot %s the server of PGTEST_DSN, which pgtest did not start; unset PGTEST_DSN to have one of its own", verb)
}

// Close ends the server and removes all of it. Of a server that pgtest did not
// start it drops the databases made by NewDatabase. Close may be called again.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	select {
	case s.turn <- struct{}{}:
		defer s.endTurn()
	case <-ctx.Done():
		return errors.New("pgtest: close: something else is still being done with the server")
	}
	if s.closed {
		return nil
	}
	s.closed = true
	var err error
	if s.site == nil {
		err = s.dropDatabases(ctx)
	} else {
		err = s.site.close(ctx)
	}
	if err != nil {
		return fmt.Errorf("pgtest: close: %w", err)
	}
	return nil
}
