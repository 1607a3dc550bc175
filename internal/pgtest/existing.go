package pgtest

// This file has the server of PGTEST_DSN, which somebody else runs: it is used
// and left as it was found.

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// startExisting takes over a server somebody else runs.
func startExisting(ctx context.Context, cfg config, dsn string) (*Server, error) {
	if dsn == "" {
		return nil, errNotSet
	}
	if len(cfg.settings) > 0 {
		return nil, errors.New("not taken: WithSetting needs a server of pgtest's own")
	}
	pgxConfig, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	s := &Server{
		source:   "PGTEST_DSN",
		dsn:      dsn,
		turn:     make(chan struct{}, 1),
		address:  pgxConfig.Host,
		password: pgxConfig.Password,
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var super bool
	if err := s.query(ctx, "select usesuper from pg_user where usename = current_user", &super); err != nil {
		return nil, err
	}
	if !super {
		return nil, fmt.Errorf("user %s is not a superuser; name one who is", pgxConfig.User)
	}
	return s, nil
}

func (s *Server) dropDatabases(ctx context.Context) error {
	s.mu.Lock()
	databases := s.databases
	s.mu.Unlock()
	if len(databases) == 0 {
		return nil
	}
	conn, err := pgx.Connect(ctx, s.dsn)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	var errs []error
	for _, name := range databases {
		_, err := conn.Exec(ctx, "drop database if exists "+name+" with (force)")
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// withDatabase names another database in a connection string, which may be a
// URL or a list of keywords and values.
func withDatabase(dsn, name string) (string, error) {
	if !strings.HasPrefix(dsn, "postgres://") && !strings.HasPrefix(dsn, "postgresql://") {
		return dsn + " dbname=" + name, nil
	}
	u, err := url.Parse(dsn)
	if err != nil {
		// The error of url.Parse quotes the string, password and all.
		return "", errors.New("pgtest: PGTEST_DSN is not a URL that can be parsed")
	}
	u.Path = "/" + name
	return u.String(), nil
}
