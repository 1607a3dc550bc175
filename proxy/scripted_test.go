package proxy_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/aurorapgx/aurorapgx/proxy"
)

// scripted is a server that says what a test tells it to, for what real PostgreSQL
// cannot be made to do: be silent, hang up in mid-login, refuse with a given code.
type scripted struct {
	listener net.Listener
	script   atomic.Pointer[func(*dialogue)]

	accepted   atomic.Int64
	cancels    atomic.Int64
	statements atomic.Int64 // Query and Parse messages received
	open       atomic.Int64
	sawTLS     atomic.Bool
	wg         sync.WaitGroup
	done       chan struct{}
}

// dialogue is the server's side of one connection.
type dialogue struct {
	*pgproto3.Backend
	conn   net.Conn
	server *scripted
}

func newScripted(t *testing.T, script func(*dialogue)) *scripted {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveScripted(t, l, script)
}

func serveScripted(t *testing.T, l net.Listener, script func(*dialogue)) *scripted {
	t.Helper()
	s := &scripted{listener: l, done: make(chan struct{})}
	s.setScript(script)
	s.wg.Go(s.accept)
	t.Cleanup(func() {
		close(s.done)
		_ = l.Close()
		s.wg.Wait()
	})
	return s
}

func (s *scripted) setScript(f func(*dialogue)) { s.script.Store(&f) }

func (s *scripted) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.accepted.Add(1)
		s.open.Add(1)
		s.wg.Go(func() {
			stop := make(chan struct{})
			defer close(stop)
			s.wg.Go(func() {
				select {
				case <-s.done:
				case <-stop:
				}
				_ = conn.Close()
			})
			defer s.open.Add(-1)
			(*s.script.Load())(&dialogue{Backend: pgproto3.NewBackend(conn, conn), conn: conn, server: s})
		})
	}
}

// port of the listener on 127.0.0.1.
func (s *scripted) port() string {
	return strconv.Itoa(s.listener.Addr().(*net.TCPAddr).Port)
}

// dsn reaches the server as an ordinary local one, without TLS.
func (s *scripted) dsn() string {
	return "postgres://app:" + password + "@127.0.0.1:" + s.port() + "/orders"
}

// silent accepts and never answers.
func silent(d *dialogue) { _, _ = io.Copy(io.Discard, d.conn) }

// hangUp closes as soon as the startup message is there.
func hangUp(d *dialogue) { _, _ = d.startup() }

// refuse answers the startup message with an error.
func refuse(code, message string) func(*dialogue) {
	return func(d *dialogue) {
		if _, err := d.startup(); err != nil {
			return
		}
		d.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: code, Message: message})
		_ = d.Flush()
	}
}

// login lets anybody in and then answers every statement with an empty result.
func login(d *dialogue) {
	if d.letIn() {
		d.serve()
	}
}

// letIn lets anybody in, and reports whether somebody wanted to come in. The server may say more of
// itself than the usual.
func (d *dialogue) letIn(says ...*pgproto3.ParameterStatus) bool {
	msg, err := d.startup()
	if err != nil {
		return false
	}
	if _, ok := msg.(*pgproto3.CancelRequest); ok {
		d.server.cancels.Add(1)
		return false
	}
	d.Send(&pgproto3.AuthenticationOk{})
	d.Send(&pgproto3.ParameterStatus{Name: "server_version", Value: "17.9"})
	d.Send(&pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"})
	d.Send(&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"})
	for _, status := range says {
		d.Send(status)
	}
	d.Send(&pgproto3.BackendKeyData{ProcessID: 42, SecretKey: []byte{1, 2, 3, 4}})
	d.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	return d.Flush() == nil
}

// standby is what a server says of its role: on or off.
func standby(is string) *pgproto3.ParameterStatus {
	return &pgproto3.ParameterStatus{Name: "in_hot_standby", Value: is}
}

// startup receives the startup message or CancelRequest, behind TLS if the client asks
// for it.
func (d *dialogue) startup() (pgproto3.FrontendMessage, error) {
	msg, err := d.ReceiveStartupMessage()
	if _, ok := msg.(*pgproto3.SSLRequest); !ok || err != nil {
		return msg, err
	}
	if _, err := d.conn.Write([]byte{'S'}); err != nil {
		return nil, err
	}
	d.server.sawTLS.Store(true)
	cert, _ := certificate()
	d.conn = tls.Server(d.conn, &tls.Config{Certificates: []tls.Certificate{cert}})
	d.Backend = pgproto3.NewBackend(d.conn, d.conn)
	return d.ReceiveStartupMessage()
}

// certificate is self-signed, for the names that the tests dial.
var certificate = sync.OnceValues(func() (tls.Certificate, []byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{proxyHost, clusterHost}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
})

// clientTLS trusts the scripted servers.
func (s *scripted) clientTLS(t *testing.T) *tls.Config {
	t.Helper()
	_, pem := certificate()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}
}

// trusted makes a pool trust the scripted servers.
func trusted(t *testing.T) proxy.Option {
	t.Helper()
	_, pem := certificate()
	return proxy.WithRootCAs(pem)
}

func (d *dialogue) serve() {
	for {
		msg, err := d.Receive()
		if err != nil {
			return
		}
		switch msg.(type) {
		case *pgproto3.Query:
			d.server.statements.Add(1)
			d.Send(&pgproto3.EmptyQueryResponse{})
			d.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		case *pgproto3.Parse:
			d.server.statements.Add(1)
		case *pgproto3.Terminate:
			return
		}
		if err := d.Flush(); err != nil {
			return
		}
	}
}

// unreachable is a dialler for a host that nothing listens on.
func unreachable(context.Context, string, string) (net.Conn, error) {
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
}
