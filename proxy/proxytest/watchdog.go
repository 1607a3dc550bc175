package proxytest

import (
	"log/slog"
	"time"
)

// startWatchdog closes the session when it has been idle, or has lived, too long. One timer does
// both; activity does not reset it, it only looks later.
func (s *clientSession) startWatchdog() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.idleSince = now
	if s.p.cfg.idleTimeout <= 0 && s.p.cfg.clientLifetime <= 0 {
		return
	}
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
	if s.ended || s.hungUp {
		s.mu.Unlock()
		return
	}
	now := time.Now()
	if s.busy() {
		s.idleSince = now
	}
	next := s.untilCheck(born, now)
	if next > 0 {
		s.watchdog.Reset(next)
	} else {
		s.end()
		s.wake()
	}
	s.mu.Unlock()
	if next > 0 {
		return
	}
	s.logf(slog.LevelDebug, "The client connection is closed: it was idle, or has lived, for too long.")
	s.sayGoodbye(nil)
}

// busy says whether a request is under way. mu is held.
func (s *clientSession) busy() bool { return s.waiting || s.due.len() > 0 }

// untilCheck is how long the session may go on if nothing happens. mu is held.
func (s *clientSession) untilCheck(born, now time.Time) time.Duration {
	next := time.Duration(1<<63 - 1)
	if idle := s.p.cfg.idleTimeout; idle > 0 {
		next = idle - now.Sub(s.idleSince)
	}
	if life := s.p.cfg.clientLifetime; life > 0 {
		next = min(next, life-now.Sub(born))
	}
	return next
}
