package proxytest

// What the proxy says to a client on its own, and how it ends a client connection.

import (
	"crypto/tls"
	"io"
	"time"
)

// reply writes the proxy's own answer to a request.
func (s *clientSession) reply(b []byte) error {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	s.mu.Lock()
	s.idleSince = time.Now()
	s.mu.Unlock()
	return s.writeLocked(b)
}

func (s *clientSession) writeLocked(b []byte) error {
	_ = s.raw.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err := s.conn.Write(b)
	_ = s.raw.SetWriteDeadline(time.Time{})
	s.midMessage = s.midMessage || err != nil
	return err
}

// hangUp ends the client connection with a last message.
func (s *clientSession) hangUp(last []byte) {
	s.mu.Lock()
	over := s.end()
	s.wake()
	s.mu.Unlock()
	if over {
		s.sayGoodbye(last)
	}
}

// end decides that the client connection is over. It is false if that was decided before; or else
// sayGoodbye is to follow. mu is held.
func (s *clientSession) end() bool {
	if s.hungUp {
		return false
	}
	s.hungUp = true
	return true
}

// sayGoodbye sends the client its last message and closes the proxy's half of the connection. A client
// that has a part of a message gets no last one, which it would take for the rest. The
// other half is read on for a while: a socket that is closed with bytes unread takes back what the
// client has not read either.
func (s *clientSession) sayGoodbye(last []byte) {
	_ = s.raw.SetWriteDeadline(time.Now().Add(writeTimeout)) // for a writer that is stuck
	s.wmu.Lock()
	defer s.wmu.Unlock()
	if len(last) > 0 && !s.midMessage {
		_ = s.writeLocked(last)
	}
	// A connection without halves (net.Pipe) may have nobody at its other end to read TLS's goodbye.
	if half, ok := s.raw.(interface{ CloseWrite() error }); ok {
		if conn, ok := s.conn.(*tls.Conn); ok {
			_ = conn.CloseWrite()
		}
		_ = half.CloseWrite()
	}
	_ = s.raw.SetReadDeadline(time.Now().Add(lingerTimeout))
}

func (s *clientSession) isHungUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hungUp
}

// linger reads until the client has closed its half, or for lingerTimeout. What it reads need not
// be decrypted.
func (s *clientSession) linger() {
	_ = s.raw.SetReadDeadline(time.Now().Add(lingerTimeout))
	_, _ = io.Copy(io.Discard, s.raw)
}
