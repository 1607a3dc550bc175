package proxytest

// From the first byte to the first ReadyForQuery: TLS, the startup packet and what RDS Proxy
// refuses in it, authentication, and the parameters a client is told.

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// setupTimeout bounds everything up to the first ReadyForQuery: PostgreSQL's authentication_timeout.
const setupTimeout = 60 * time.Second

var (
	errCancelRequest = errors.New("connection carried a CancelRequest")
	errStartupPacket = errors.New("not a startup packet")
)

// refusal is an error that the client is told about, with FATAL.
type refusal struct {
	code, message string
	cause         error // for the log
}

func (r *refusal) Error() string { return r.message }
func (r *refusal) Unwrap() error { return r.cause }

// startupInfo is what a startup packet asks for. Connections may be shared by clients for which it
// is the same.
type startupInfo struct {
	user, database string
	params         map[string]string // user and database excluded
	key            string            // all of it in one string
}

// setUp brings a client connection to its first ReadyForQuery.
func (s *clientSession) setUp() error {
	if err := s.raw.SetDeadline(time.Now().Add(setupTimeout)); err != nil {
		return err
	}
	packet, err := s.readStartupPacket()
	if err != nil {
		return err
	}
	s.p.counters.received.Add(1)
	s.logf(slog.LevelInfo, "A new client connected from %s.", s.remote)
	if s.info, err = s.parseStartup(packet); err != nil {
		return err
	}
	if err := s.p.admit(); err != nil {
		return err
	}
	if err := s.signIn(); err != nil {
		return err
	}
	if err := s.signedIn(); err != nil {
		return err
	}
	s.p.counters.succeeded.Add(1)
	statuses := s.p.pool.parameterStatuses(s.p.ctx, s.info)
	hello := encode(&pgproto3.AuthenticationOk{})
	for _, name := range slices.Sorted(maps.Keys(statuses)) {
		hello = append(hello, encode(&pgproto3.ParameterStatus{Name: name, Value: statuses[name]})...)
	}
	// No BackendKeyData: RDS Proxy sends none.
	hello = append(hello, encode(&pgproto3.ReadyForQuery{TxStatus: 'I'})...)
	if _, err := s.conn.Write(hello); err != nil {
		return err
	}
	return s.raw.SetDeadline(time.Time{})
}

// readStartupPacket answers requests for encryption until the startup packet comes, and returns
// that without its length.
func (s *clientSession) readStartupPacket() ([]byte, error) {
	for {
		var head [8]byte
		if _, err := io.ReadFull(s.conn, head[:]); err != nil {
			return nil, err
		}
		length := binary.BigEndian.Uint32(head[:4])
		// A TLS ClientHello, which direct TLS negotiation begins with, has an absurd length here.
		if length < 8 || length > maxStartupPacket {
			return nil, errStartupPacket
		}
		switch code := binary.BigEndian.Uint32(head[4:]); {
		case code == codeSSLRequest && !s.secure:
			if err := s.startTLS(); err != nil {
				return nil, err
			}
		case code == codeGSSENCRequest && !s.secure:
			if _, err := s.conn.Write([]byte{'N'}); err != nil {
				return nil, err
			}
		case code == codeCancelRequest:
			s.p.counters.canceled.Add(1)
			_, _ = io.CopyN(io.Discard, s.conn, int64(length)-8)
			return nil, errCancelRequest
		default:
			packet := make([]byte, length-4)
			copy(packet, head[4:])
			_, err := io.ReadFull(s.conn, packet[4:])
			return packet, err
		}
	}
}

// startTLS reads nothing past the request it answers, so that plaintext sent along with the request
// breaks the handshake instead of being taken for something that came through TLS.
func (s *clientSession) startTLS() error {
	if _, err := s.conn.Write([]byte{'S'}); err != nil {
		return err
	}
	conn := tls.Server(s.raw, s.p.tls)
	if err := conn.HandshakeContext(s.p.ctx); err != nil {
		return err
	}
	s.wmu.Lock()
	defer s.wmu.Unlock()
	s.conn, s.secure = conn, true
	return nil
}

// parseStartup refuses what RDS Proxy refuses before it asks who is there
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.troubleshooting.html,
// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-connecting.html). In
// which order it does so is not documented. The apostrophe in its texts is U+2019.
func (s *clientSession) parseStartup(packet []byte) (startupInfo, error) {
	info := startupInfo{params: map[string]string{}}
	if !s.secure && !s.p.cfg.plaintext {
		return info, &refusal{code: "28000", message: "This RDS Proxy requires TLS connections."}
	}
	if binary.BigEndian.Uint32(packet) != codeProtocol3 {
		return info, unsupported("RDS Proxy supports only version 3.0 of the PostgreSQL messaging protocol.")
	}
	names, err := info.readParameters(packet[4:])
	if err != nil {
		return info, err
	}
	if _, ok := info.params["replication"]; ok {
		return info, unsupported("RDS Proxy currently doesn’t support streaming replication mode.")
	}
	if _, ok := info.params["options"]; ok {
		return info, unsupported("RDS Proxy currently doesn’t support command-line options.")
	}
	for _, name := range names {
		if !acceptedParameter(name) {
			return info, unsupported("RDS Proxy currently doesn’t support the option " + name + ".")
		}
	}
	info.user, info.database = info.params["user"], info.params["database"]
	if info.user == "" {
		return info, &refusal{code: "28000", message: "A user name is missing from the connection startup packet. " +
			"Provide a user name for this connection."}
	}
	if info.database == "" {
		info.database = info.user
	}
	delete(info.params, "user")
	delete(info.params, "database")
	info.setKey()
	s.logf(slog.LevelDebug, "Received Startup Message: [username=%q, database=%q, protocolMajorVersion=3, "+
		"protocolMinorVersion=0, sslEnabled=%t]", info.user, info.database, s.secure)
	return info, nil
}

func unsupported(what string) error {
	return &refusal{code: "0A000", message: "Feature not supported: " + what}
}

// readParameters takes the names and values from the packet and returns the names in order.
func (info *startupInfo) readParameters(b []byte) (names []string, err error) {
	malformed := &refusal{code: "08P01", message: "invalid startup packet layout: expected terminator as last byte"}
	for len(b) > 0 && b[0] != 0 {
		name, rest, ok := cString(b)
		if !ok {
			return nil, malformed
		}
		value, rest, ok := cString(rest)
		if !ok {
			return nil, malformed
		}
		names = append(names, string(name))
		info.params[string(name)] = string(value)
		b = rest
	}
	if len(b) != 1 {
		return nil, malformed
	}
	return names, nil
}

// acceptedParameter knows the eight startup parameters of RDS Proxy. Whether it minds the case of
// their names is not known; minding it keeps code honest that is tested here.
func acceptedParameter(name string) bool {
	switch name {
	case "user", "database", "application_name", "client_encoding", "DateStyle", "TimeZone",
		"extra_float_digits", "search_path":
		return true
	}
	return false
}

func (info *startupInfo) setKey() {
	var b strings.Builder
	fmt.Fprintf(&b, "%q %q", info.user, info.database)
	for _, name := range slices.Sorted(maps.Keys(info.params)) {
		fmt.Fprintf(&b, " %s=%q", name, info.params[name])
	}
	info.key = b.String()
}
