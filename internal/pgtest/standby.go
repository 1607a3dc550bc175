package pgtest

// This file makes pairs of servers: a standby that streams from its primary,
// its promotion, and the way back for the former primary.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
)

// Standby starts a server that streams from s, begun with a base backup. It
// comes from the same source as s and has its settings and those of opts; it
// belongs to the caller, who closes it. A standby cannot have one in turn.
// Standby returns when the standby is streaming and, with WithSynchronous, when
// commits on s have begun to wait for it.
func (s *Server) Standby(ctx context.Context, opts ...Option) (*Server, error) {
	cfg, err := newConfig(opts)
	if err != nil {
		return nil, err
	}
	if err := s.takeTurn(ctx, "make a standby of"); err != nil {
		return nil, err
	}
	settings := slices.Concat(s.settings, cfg.settings)
	s.endTurn()

	standby, err := newServer("standby", settings, s.launch)
	if err != nil {
		return nil, err
	}
	standby.take(s)
	err = standby.settle(ctx, func(ctx context.Context) error { return standby.clone(ctx, s) })
	if err != nil {
		return nil, fmt.Errorf("pgtest: standby: %w", err)
	}
	if err := s.attach(ctx, standby, cfg.synchronous); err != nil {
		return nil, errors.Join(fmt.Errorf("pgtest: standby: %w", err), standby.Close())
	}
	return standby, nil
}

// Follow makes s a standby of primary, whatever s was before: it brings a
// former primary back after its standby was promoted. The server is killed if
// it runs, and what it has is replaced by a new base backup of primary. Its
// address stays the same, its password becomes that of primary.
func (s *Server) Follow(ctx context.Context, primary *Server, opts ...Option) error {
	cfg, err := newConfig(opts)
	if err != nil {
		return err
	}
	if s == primary {
		return errors.New("pgtest: a server cannot follow itself")
	}
	if err := primary.mustBeOwn("follow"); err != nil {
		return err
	}
	if err := s.become(ctx, primary, cfg); err != nil {
		return fmt.Errorf("pgtest: follow: %w", err)
	}
	if err := primary.attach(ctx, s, cfg.synchronous); err != nil {
		return fmt.Errorf("pgtest: follow: %w", err)
	}
	return nil
}

// become replaces what s has by a copy of primary, and starts it as its standby.
func (s *Server) become(ctx context.Context, primary *Server, cfg config) error {
	if err := s.takeTurn(ctx, "change"); err != nil {
		return err
	}
	defer s.endTurn()
	s.settings = append(s.settings, cfg.settings...)
	s.standbys = nil
	s.take(primary)
	// A base backup, not pg_rewind: for a database of a test's size it is as
	// fast, and it works whatever became of the histories of the two servers.
	// pg_rewind would also want full_page_writes on the primary.
	if err := s.clone(ctx, primary); err != nil {
		return err
	}
	return s.start(ctx)
}

// Promote makes a standby a primary and returns when it accepts writes.
func (s *Server) Promote(ctx context.Context) error {
	if err := s.takeTurn(ctx, "promote"); err != nil {
		return err
	}
	defer s.endTurn()
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout,
		fmt.Errorf("the standby was not promoted within %v", readyTimeout))
	defer cancel()
	// Not waited for in SQL: that would hold on to a connection for as long as
	// it takes, and look once a second only.
	if err := s.query(ctx, "select pg_promote(wait => false)", new(bool)); err != nil {
		return fmt.Errorf("pgtest: promote: %w", err)
	}
	err := poll(ctx, func(ctx context.Context) error {
		var recovering bool
		if err := s.query(ctx, "select pg_is_in_recovery()", &recovering); err != nil {
			return err
		}
		if recovering {
			return errors.New("still in recovery")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("pgtest: promote: %w", err)
	}
	return nil
}

// take makes s ready to follow primary.
func (s *Server) take(primary *Server) {
	password := primary.superPassword()
	s.mu.Lock()
	s.password = password
	s.mu.Unlock()
	s.following = primary.conninfo() + " password=" + password + " application_name=" + s.name
}

// conninfo says how other servers reach s, without the password.
func (s *Server) conninfo() string {
	return fmt.Sprintf("host=%s port=%d user=postgres sslmode=disable", s.site.peer, s.site.peerEnd)
}

// clone replaces the data of s with that of primary.
func (s *Server) clone(ctx context.Context, primary *Server) error {
	_, err := s.site.run(ctx, "clone",
		"PGTEST_PRIMARY="+primary.conninfo()+" application_name="+s.name+"_backup",
		"PGPASSWORD="+s.superPassword())
	return err
}

// attach waits until standby streams from s and, if it is to be synchronous,
// until commits wait for it.
func (s *Server) attach(ctx context.Context, standby *Server, synchronous bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout,
		fmt.Errorf("the standby at %s was not streaming within %v",
			net.JoinHostPort(standby.site.peer, strconv.Itoa(standby.site.peerEnd)), readyTimeout))
	defer cancel()
	want := []string{"async", "sync", "potential", "quorum"}
	if synchronous {
		// "potential" is a standby that waits for its turn to be synchronous.
		want = []string{"sync"}
		if err := s.synchronise(ctx, standby.name); err != nil {
			return err
		}
	}
	return poll(ctx, func(ctx context.Context) error {
		var state, sync string
		err := s.query(ctx, "select state, sync_state from pg_stat_replication where application_name = '"+
			standby.name+"'", &state, &sync)
		if err != nil {
			return err
		}
		if state != "streaming" || !slices.Contains(want, sync) {
			return fmt.Errorf("standby is %s, %s", state, sync)
		}
		return nil
	})
}

// synchronise has commits on s wait for one more standby. The standbys that
// came before keep their place, and all of them are waited for.
func (s *Server) synchronise(ctx context.Context, name string) error {
	if err := s.takeTurn(ctx, "change"); err != nil {
		return err
	}
	defer s.endTurn()
	if !slices.Contains(s.standbys, name) {
		s.standbys = append(s.standbys, name)
	}
	_, err := s.site.run(ctx, "reload", "PGTEST_CONF="+s.conf())
	return err
}
