package pgtest

// This file is the short way back for a former primary, after a planned switchover.

import (
	"context"
	"errors"
	"fmt"
)

// Rejoin starts s, a primary that was stopped in order, as a standby of primary, which
// was its standby until then. It keeps its data: a server that is stopped in order
// first sends all it has to its standbys, so that there is nothing to undo. After a
// crash there may be; use Follow then. Address and settings stay the same.
func (s *Server) Rejoin(ctx context.Context, primary *Server, opts ...Option) error {
	cfg, err := newConfig(opts)
	if err != nil {
		return err
	}
	if s == primary {
		return errors.New("pgtest: a server cannot follow itself")
	}
	if err := primary.mustBeOwn("rejoin"); err != nil {
		return err
	}
	if err := s.startAgain(ctx, primary, cfg); err != nil {
		return fmt.Errorf("pgtest: rejoin: %w", err)
	}
	if err := primary.attach(ctx, s, cfg.synchronous); err != nil {
		return fmt.Errorf("pgtest: rejoin: %w", err)
	}
	return nil
}

func (s *Server) startAgain(ctx context.Context, primary *Server, cfg config) error {
	if err := s.takeTurn(ctx, "change"); err != nil {
		return err
	}
	defer s.endTurn()
	s.settings = append(s.settings, cfg.settings...)
	s.standbys = nil
	s.take(primary)
	if _, err := s.site.run(ctx, "demote"); err != nil {
		return err
	}
	return s.start(ctx)
}
