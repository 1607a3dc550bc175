package proxytest

import (
	"log/slog"
	"time"
)

// startWatchdog closes the session when it has been idle, or has lived, too long. One timer does
// both; activity does not reset it, it only looks later.
func (s *clientSession) startWatchdog() {
	now := time.Now()
	s.lastActive.Store(now.UnixNano())
	idle, life := s.p.cfg.idleTimeout, s.p.cfg.clientLifetime
	if idle <= 0 && life <= 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchdog = time.AfterFunc(s.untilCheck(now, now), func() { s.watch(now) })
}

func (s *clientSession) stopWatchdog() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watchdog != nil {
		s.watchdog.Stop()
	}
}

func (s *clientSession) watch(born time.Time) {
	s.mu.Lock()
	busy := s.due.len() > 0
	ended := s.ended || s.hungUp
	s.mu.Unlock()
	if ended {
		return
	}
	now := time.Now()
	if busy {
		s.lastActive.Store(now.UnixNano())
	}
	if next := s.untilCheck(born, now); next > 0 {
		s.mu.Lock()
		s.watchdog.Reset(next)
		s.mu.Unlock()
		return
	}
	s.logf(slog.LevelDebug, "The client connection is closed: it was idle, or has lived, for too long.")
	s.hangUp(nil)
}

// untilCheck is how long the session may go on if nothing happens.
func (s *clientSession) untilCheck(born, now time.Time) time.Duration {
	next := time.Duration(1<<63 - 1)
	if idle := s.p.cfg.idleTimeout; idle > 0 {
		next = idle - time.Duration(now.UnixNano()-s.lastActive.Load())
	}
	if life := s.p.cfg.clientLifetime; life > 0 {
		next = min(next, life-now.Sub(born))
	}
	return next
}
