package pgtest

// This file starts the PostgreSQL of a site and waits until it answers. Nothing
// in here sleeps and hopes: what is waited for is asked for, until the context
// ends.

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// start starts the server and waits until it answers. The caller has the turn, or
// nobody else has s yet.
func (s *Server) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout,
		fmt.Errorf("the server did not answer within %v", readyTimeout))
	defer cancel()
	if _, err := s.site.run(ctx, "start", "PGTEST_CONF="+s.conf()); err != nil {
		return err
	}
	if err := s.awaitReady(ctx); err != nil {
		look, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if log, logErr := s.site.run(look, "log"); logErr == nil {
			err = fmt.Errorf("%w\nthe server's log ends with:\n%s", err, log)
		}
		return err
	}
	return nil
}

// conf is the server's postgresql.conf.
func (s *Server) conf() string {
	place := []setting{
		{"port", strconv.Itoa(s.site.listenPort)},
		{"listen_addresses", s.site.listenAddr},
		{"primary_conninfo", s.following},
	}
	if n := len(s.standbys); n > 0 {
		names := fmt.Sprintf("FIRST %d (%s)", n, strings.Join(s.standbys, ", "))
		place = append(place, setting{"synchronous_standby_names", names})
	}
	return render(defaults, s.settings, place)
}

// awaitReady waits until the server answers a query, under whichever of its
// site's names that may be.
func (s *Server) awaitReady(ctx context.Context) error {
	return poll(ctx, func(ctx context.Context) error {
		var errs []error
		for _, name := range s.site.names {
			one, cancel := context.WithTimeout(ctx, 3*time.Second)
			err := queryAt(one, s.dsnAt(name), "select 1", new(int))
			cancel()
			if err == nil {
				s.mu.Lock()
				s.address = name
				s.mu.Unlock()
				// Next time this one is asked first.
				s.site.names = slices.Insert(slices.DeleteFunc(s.site.names,
					func(n string) bool { return n == name }), 0, name)
				return nil
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}

// query runs a query on the server and scans its only row.
func (s *Server) query(ctx context.Context, sql string, dst ...any) error {
	return queryAt(ctx, s.DSN(), sql, dst...)
}

func queryAt(ctx context.Context, dsn, sql string, dst ...any) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	return conn.QueryRow(ctx, sql).Scan(dst...)
}

// poll calls check until it succeeds. When ctx ends, the error has both the
// reason for that and the last failure.
func poll(ctx context.Context, check func(context.Context) error) error {
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		err := check(ctx)
		if err == nil {
			return nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-timer.C:
		}
	}
}

func randomHex(bytes int) (string, error) {
	b := make([]byte, bytes)
	if _, err := rand.Read(b); err != nil {
		return "", err
	}
	return hex.EncodeToString(b), nil
}

func randomName(prefix string) (string, error) {
	suffix, err := randomHex(6)
	return prefix + "_" + suffix, err
}
