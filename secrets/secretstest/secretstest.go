// Package secretstest runs an AWS Secrets Manager inside a test, as net/http/httptest
// runs an HTTP server. The AWS SDK's own client talks to it:
//
//	srv := secretstest.NewServer(t)
//	srv.Put("prod/orders", `{"username": "app", "password": "..."}`)
//	src := secrets.FromManager(srv.Client(), "prod/orders")
//
// [Server.Rotate] plays a rotation as AWS's rotation functions do, in four steps and
// against a real PostgreSQL, and can hold it in the middle, where logins fail. [Server.Fail]
// and [Server.SetLatency] make the service misbehave, and [Server.Stats] counts what it was
// asked.
//
// # What is emulated
//
//   - GetSecretValue, DescribeSecret, PutSecretValue and UpdateSecretVersionStage, in the
//     protocol (AWS JSON 1.1) and with the errors of the real ones; versions and staging
//     labels, with AWSPREVIOUS following AWSCURRENT; names, ARNs and ARNs without the six
//     characters at their end.
//   - Signature Version 4: each request's signature is computed again and compared, with key,
//     region, date and body.
//
// # What is not
//
// IAM policies (one access key may do everything), KMS, other operations, quotas, and the
// delay with which changes reach all of the real service's servers.
package secretstest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"github.com/aurorapgx/aurorapgx/secrets"
)

const (
	region  = "eu-west-1"
	account = "123456789012"

	stageCurrent  = "AWSCURRENT"
	stagePending  = "AWSPENDING"
	stagePrevious = "AWSPREVIOUS"
)

// A Server is a running Secrets Manager. Its methods may be called from any goroutine.
type Server struct {
	http      *http.Server
	transport *http.Transport
	url       string
	key       aws.Credentials
	wg        sync.WaitGroup
	closed    chan struct{}
	once      sync.Once

	mu      sync.Mutex
	secrets map[string]*secret // by name
	fault   Fault
	faulty  int // requests the fault is for; negative for all
	latency time.Duration
	stats   Stats
}

// secret is one secret with its versions.
type secret struct {
	name, arn string
	created   time.Time
	versions  map[string]*version // by version id
}

type version struct {
	id      string
	value   string
	created time.Time
	stages  []string
}

// Stats counts requests since the start. Each attempt of a client that retries counts.
type Stats struct {
	Requests                 int // received, whatever became of them
	GetSecretValue           int // of them, those with a valid signature for this operation
	DescribeSecret           int
	PutSecretValue           int
	UpdateSecretVersionStage int
	Unsigned                 int // refused for their signature
	Faults                   int // failed because Fail said so
}

// Option changes how a server is started.
type Option func(*Server, *network)

// network is how clients reach the server.
type network struct {
	listener net.Listener
	dial     func(ctx context.Context, network, addr string) (net.Conn, error)
}

// InMemory lets the server and its clients talk through memory instead of a socket, so
// that a test can run in a testing/synctest bubble. Start the server inside the bubble.
func InMemory() Option {
	return func(_ *Server, n *network) {
		pipes := newPipes()
		n.listener, n.dial = pipes, pipes.dial
	}
}

// NewServer starts a server for the length of a test.
func NewServer(tb testing.TB, opts ...Option) *Server {
	tb.Helper()
	s, err := Start(opts...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

// Start starts a server on a free port of the loopback interface. It runs until Close.
func Start(opts ...Option) (*Server, error) {
	s := &Server{
		key: aws.Credentials{
			AccessKeyID: "AKIA" + rand.Text()[:16], SecretAccessKey: rand.Text() + rand.Text()[:14], Source: "secretstest",
		},
		secrets: map[string]*secret{},
		closed:  make(chan struct{}),
	}
	n := &network{dial: (&net.Dialer{}).DialContext}
	for _, opt := range opts {
		opt(s, n)
	}
	if n.listener == nil {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("start Secrets Manager: %w", err)
		}
		n.listener = l
	}
	s.url = "http://" + n.listener.Addr().String()
	s.transport = &http.Transport{DialContext: n.dial, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute}
	s.http = &http.Server{Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: 10 * time.Second}
	s.wg.Go(func() { _ = s.http.Serve(n.listener) })
	return s, nil
}

// Close ends the server and its connections. Further calls do nothing.
func (s *Server) Close() {
	s.once.Do(func() {
		close(s.closed)
		s.transport.CloseIdleConnections()
		_ = s.http.Close()
		s.wg.Wait()
	})
}

// URL is where the server listens.
func (s *Server) URL() string { return s.url }

// Config is an AWS configuration that leads to the server, with an access key it accepts.
func (s *Server) Config() aws.Config {
	return aws.Config{
		Region: region, BaseEndpoint: &s.url,
		Credentials: credentials.StaticCredentialsProvider{Value: s.key},
		HTTPClient:  &http.Client{Transport: s.transport},
	}
}

// Client is the AWS SDK's client for the server.
func (s *Server) Client() *secretsmanager.Client { return secretsmanager.NewFromConfig(s.Config()) }

// Put gives a secret a new version, which becomes AWSCURRENT, and creates the secret if
// there is none of this name. It returns the secret's ARN.
func (s *Server) Put(name, value string) (arn string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sec := s.secrets[name]
	if sec == nil {
		sec = &secret{
			name: name, created: time.Now(), versions: map[string]*version{},
			arn: fmt.Sprintf("arn:aws:secretsmanager:%s:%s:secret:%s-%s", region, account, name, rand.Text()[:6]),
		}
		s.secrets[name] = sec
	}
	v := sec.add(newID(), value)
	sec.move(stageCurrent, v)
	return sec.arn
}

// Delete forgets a secret.
func (s *Server) Delete(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.secrets, name)
}

// Current is a secret's current value, or "" if there is none: what somebody with a
// permission of his own would read, an RDS Proxy for instance. It is not counted and
// never fails on demand.
func (s *Server) Current(nameOrARN string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sec := s.find(nameOrARN); sec != nil {
		if v := sec.staged(stageCurrent); v != nil {
			return v.value
		}
	}
	return ""
}

// Credentials reads user name and password of a secret's current value, for
// proxytest.WithSecret. Both are "" while there is none that can be read.
func (s *Server) Credentials(nameOrARN string) func() (user, password string) {
	return func() (user, password string) {
		sec, err := secrets.Parse(nameOrARN, s.Current(nameOrARN))
		if err != nil {
			return "", ""
		}
		return sec.User, sec.Password
	}
}

// Stats reads the counters.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// find takes a name, an ARN, or an ARN without its random end.
func (s *Server) find(id string) *secret {
	if sec, ok := s.secrets[id]; ok {
		return sec
	}
	for _, sec := range s.secrets {
		if sec.arn == id || strings.HasPrefix(id, "arn:") && sec.arn[:len(sec.arn)-len("-AbCdEf")] == id {
			return sec
		}
	}
	return nil
}

func (sec *secret) add(id, value string) *version {
	v := &version{id: id, value: value, created: time.Now()}
	sec.versions[id] = v
	return v
}

func (sec *secret) staged(stage string) *version {
	for _, v := range sec.versions {
		if slices.Contains(v.stages, stage) {
			return v
		}
	}
	return nil
}

// move attaches a staging label to v and takes it from whoever had it. Whoever had
// AWSCURRENT has AWSPREVIOUS then.
// Source: https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_UpdateSecretVersionStage.html
func (sec *secret) move(stage string, v *version) {
	old := sec.staged(stage)
	if old == v {
		return
	}
	sec.remove(stage)
	v.stages = append(v.stages, stage)
	if stage == stageCurrent && old != nil {
		sec.remove(stagePrevious)
		old.stages = append(old.stages, stagePrevious)
	}
}

func (sec *secret) remove(stage string) {
	for _, v := range sec.versions {
		v.stages = slices.DeleteFunc(v.stages, func(s string) bool { return s == stage })
	}
}

func (sec *secret) stages() map[string][]string {
	all := map[string][]string{}
	for id, v := range sec.versions {
		if len(v.stages) > 0 {
			all[id] = slices.Clone(v.stages)
		}
	}
	return all
}

// newID is a version id, in the form of a UUID.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// pipes is a network in memory.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- server:
		return client, nil
	case <-p.done:
		return nil, errors.New("connection refused: the server is closed")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
