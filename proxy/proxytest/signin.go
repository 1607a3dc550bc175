package proxytest

// Authentication: which way a user signs in, and the three ways.

import (
	"crypto/md5" //nolint:gosec // what PostgreSQL calls MD5 is that
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// The texts are those of
// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.troubleshooting.html.
const (
	noCredentialsText = "This RDS proxy has no credentials for the role %. Check the credentials for this role and try again."
	wrongTokenText    = "The IAM authentication failed for the role %. Check the IAM token for this role and try again."
	wrongPasswordText = "The password that was provided for the role % is wrong."
	iamNeedsTLSText   = "IAM authentication is allowed only with SSL connections."
	needIAMText       = "Enable IAM authentication for the client connection to the proxy and try again."
	wrongMethodText   = "RDS Proxy supports only IAM, MD5, or SCRAM authentication."
)

// signIn authenticates the client and tells the hooks how it went.
func (s *clientSession) signIn() error {
	login := Login{
		ClientConnection: s.id, RemoteAddr: s.remote, User: s.info.user, Database: s.info.database,
	}
	err := s.authenticate(&login)
	if refused, ok := errors.AsType[*refusal](err); ok {
		login.Err = refused
		if refused.cause != nil {
			login.Err = refused.cause
		}
		s.p.counters.failedAuth.Add(1)
		s.logLoginFailure(login)
	} else {
		login.Err = err
	}
	for _, f := range s.p.cfg.onLogin {
		f(login)
	}
	return err
}

func (s *clientSession) logLoginFailure(login Login) {
	tlsState := "off"
	if s.secure {
		tlsState = "on"
	}
	method := "PostgreSQL native password"
	if login.Method == methodIAM {
		method = "IAM"
	}
	s.logf(slog.LevelWarn, "Proxy authentication with %s authentication failed for user %q with TLS %s. Reason: %s.",
		method, login.User, tlsState, login.Err)
}

const (
	methodIAM = "IAM"
	methodMD5 = "MD5"
)

func (s *clientSession) authenticate(login *Login) error {
	secret, ok := s.p.users.find(s.info.user)
	if !ok {
		return &refusal{code: "28000", message: fillIn(noCredentialsText, s.info.user),
			cause: errors.New("no secret is registered for this user")}
	}
	if secret.iam {
		login.Method = methodIAM
		return s.authenticateIAM(login)
	}
	if secret.md5 {
		login.Method = methodMD5
		return s.authenticateMD5(secret.password)
	}
	login.Method = scramMechanism
	return s.authenticateSCRAM(secret.password)
}

func (s *clientSession) authenticateIAM(login *Login) error {
	if !s.secure {
		return &refusal{code: "28000", message: iamNeedsTLSText}
	}
	if _, err := s.conn.Write(encode(&pgproto3.AuthenticationCleartextPassword{})); err != nil {
		return err
	}
	body, err := s.readAuthMessage()
	if err != nil {
		return err
	}
	if !s.p.iamRate.allow(s.p.cfg.iamRate, time.Now()) {
		return &refusal{code: "53300", message: iamThrottledText}
	}
	token, rest, ok := cString(body)
	if !ok || len(rest) != 0 {
		return &refusal{code: "28000", message: wrongMethodText}
	}
	if s.p.cfg.endToEndIAM && !strings.Contains(string(token), "?") {
		return &refusal{code: "28000", message: needIAMText}
	}
	login.TokenHash = tokenHash(string(token))
	login.SignedAt, err = s.p.iam.verify(string(token), s.info.user, time.Now())
	if err != nil {
		return &refusal{code: "28P01", message: fillIn(wrongTokenText, s.info.user), cause: err}
	}
	return nil
}

func (s *clientSession) authenticateMD5(password string) error {
	var ask pgproto3.AuthenticationMD5Password
	if _, err := rand.Read(ask.Salt[:]); err != nil {
		return err
	}
	if _, err := s.conn.Write(encode(&ask)); err != nil {
		return err
	}
	body, err := s.readAuthMessage()
	if err != nil {
		return err
	}
	given, rest, ok := cString(body)
	if !ok || len(rest) != 0 {
		return &refusal{code: "28000", message: wrongMethodText}
	}
	want := "md5" + md5Hex(md5Hex(password+s.info.user)+string(ask.Salt[:]))
	if subtle.ConstantTimeCompare(given, []byte(want)) != 1 {
		return &refusal{code: "28P01", message: fillIn(wrongPasswordText, s.info.user), cause: errWrongPassword}
	}
	return nil
}

func md5Hex(text string) string {
	sum := md5.Sum([]byte(text)) //nolint:gosec // the same
	return hex.EncodeToString(sum[:])
}

func (s *clientSession) authenticateSCRAM(password string) error {
	ask := &pgproto3.AuthenticationSASL{AuthMechanisms: []string{scramMechanism}}
	if _, err := s.conn.Write(encode(ask)); err != nil {
		return err
	}
	body, err := s.readAuthMessage()
	if err != nil {
		return err
	}
	clientFirst, ok := saslInitialResponse(body)
	if !ok {
		return &refusal{code: "28000", message: wrongMethodText}
	}
	verifier, err := s.p.users.verifier(s.info.user, password)
	if err != nil {
		return err
	}
	exchange := scramExchange{verifier: verifier}
	serverFirst, err := exchange.first(clientFirst)
	if err != nil {
		return &refusal{code: "08P01", message: "malformed SCRAM message", cause: err}
	}
	if _, err := s.conn.Write(encode(&pgproto3.AuthenticationSASLContinue{Data: []byte(serverFirst)})); err != nil {
		return err
	}
	if body, err = s.readAuthMessage(); err != nil {
		return err
	}
	serverFinal, err := exchange.final(string(body))
	switch {
	case errors.Is(err, errWrongPassword):
		return &refusal{code: "28P01", message: fillIn(wrongPasswordText, s.info.user), cause: err}
	case err != nil:
		return &refusal{code: "08P01", message: "malformed SCRAM message", cause: err}
	}
	_, err = s.conn.Write(encode(&pgproto3.AuthenticationSASLFinal{Data: []byte(serverFinal)}))
	return err
}

// saslInitialResponse splits a SASLInitialResponse: mechanism, length, client-first-message.
func saslInitialResponse(body []byte) (clientFirst string, ok bool) {
	mechanism, rest, ok := cString(body)
	if !ok || string(mechanism) != scramMechanism || len(rest) < 4 {
		return "", false
	}
	n := binary.BigEndian.Uint32(rest)
	if uint64(n) != uint64(len(rest)-4) {
		return "", false
	}
	return string(rest[4:]), true
}

// readAuthMessage reads a message of type p: PasswordMessage and the SASL responses share it. It
// reads no further than that.
func (s *clientSession) readAuthMessage() ([]byte, error) {
	var head [headerLen]byte
	if _, err := io.ReadFull(s.conn, head[:]); err != nil {
		return nil, err
	}
	kind, n, ok := parseHeader(head[:])
	if !ok || kind != 'p' || n > maxAuthMessage {
		return nil, &refusal{code: "08P01", message: "expected a password response from the client"}
	}
	body := make([]byte, n)
	_, err := io.ReadFull(s.conn, body)
	return body, err
}
