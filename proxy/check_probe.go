package proxy

// The steps of a Check below the login: names, addresses, TLS.

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// probe looks at the way to one host. What fails here is a warning, until the connect has
// failed for it: another host or address may do.
func (c *check) probe(ctx context.Context, t *target) {
	addrs := c.lookUp(ctx, t)
	if len(addrs) == 0 {
		return
	}
	conn := c.reach(ctx, t, addrs)
	if conn == nil {
		return
	}
	defer conn.Close()
	if t.tls == nil {
		why := "sslmode=disable (" + c.settings.sourceOf("sslmode") + ")"
		if isSocket(t.endpoint.Host) {
			why = "a unix socket"
		}
		c.note(Step{Name: stepTLS, Status: StatusSkipped, Summary: "none: " + why})
		return
	}
	c.shakeHands(ctx, t, conn)
}

// note adds a host's part to a step.
func (c *check) note(s Step) {
	if len(c.conn.targets) == 1 {
		c.add(s)
		return
	}
	before := c.report.Step(s.Name)
	if before.Summary == "" {
		c.add(s)
		return
	}
	before.Details = append(append(before.Details, s.Summary), s.Details...)
	before.Took += s.Took
	if before.Status != s.Status {
		before.Status = StatusWarning
	}
	c.add(before)
}

func (c *check) lookUp(ctx context.Context, t *target) []string {
	ctx, cancel := context.WithTimeout(ctx, c.conn.attempt)
	defer cancel()
	started := time.Now()
	addrs, err := c.conn.resolve(ctx, t)
	step := Step{Name: stepDNS, Status: StatusOK, Took: time.Since(started)}
	switch {
	case err != nil:
		step.Status, step.Summary = StatusWarning, err.Error()
	case t.addr != "":
		step.Status, step.Summary = StatusSkipped, "not asked: hostaddr says "+t.addr
	case len(addrs) == 1 && addrs[0] == t.endpoint.Host:
		step.Status, step.Summary = StatusSkipped, t.endpoint.Host+" is no name"
	default:
		step.Summary = fmt.Sprintf("%s is %s", t.endpoint.Host, strings.Join(addrs, ", "))
	}
	c.note(step)
	return addrs
}

// reach opens a connection to each address and keeps the first that succeeded.
func (c *check) reach(ctx context.Context, t *target, addrs []string) net.Conn {
	ctx, cancel := context.WithTimeout(ctx, c.conn.attempt)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
		took time.Duration
	}
	results := make([]result, len(addrs))
	var wg sync.WaitGroup
	started := time.Now()
	for i, addr := range addrs {
		wg.Go(func() {
			network, address := pgconn.NetworkAddress(addr, t.port)
			conn, err := c.conn.dialNet(ctx, network, address)
			results[i] = result{conn, err, time.Since(started)}
		})
	}
	wg.Wait()
	step := Step{Name: stepTCP, Status: StatusOK, Took: time.Since(started)}
	var first net.Conn
	open := 0
	for i, r := range results {
		if r.err != nil {
			step.Details = append(step.Details, addrs[i]+": "+r.err.Error())
			continue
		}
		open++
		step.Details = append(step.Details, fmt.Sprintf("%s: open after %s", addrs[i], r.took.Round(time.Microsecond)))
		if first == nil {
			first = r.conn
		} else {
			_ = r.conn.Close()
		}
	}
	step.Summary = fmt.Sprintf("%d of %d addresses of %s accept a connection", open, len(addrs), t.hostPort())
	if open < len(addrs) {
		step.Status = StatusWarning
	}
	c.note(step)
	return first
}

// shakeHands does TLS as a connect does, and reports the chain.
func (c *check) shakeHands(ctx context.Context, t *target, conn net.Conn) {
	ctx, cancel := context.WithTimeout(ctx, c.conn.attempt)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	started := time.Now()
	cfg := t.tls.Clone()
	var err error
	if c.conn.base.SSLNegotiation == "direct" {
		cfg.NextProtos = []string{"postgresql"}
	} else {
		err = requestTLS(conn)
	}
	secured := tls.Client(conn, cfg)
	if err == nil {
		err = secured.HandshakeContext(ctx)
	}
	step := Step{Name: stepTLS, Status: StatusOK, Took: time.Since(started)}
	var (
		certErr *tls.CertificateVerificationError
		chain   []*x509.Certificate
	)
	switch state := secured.ConnectionState(); {
	case errors.As(err, &certErr):
		chain = certErr.UnverifiedCertificates
		step.Status, step.Summary = StatusWarning, err.Error()
	case err != nil:
		step.Status, step.Summary = StatusWarning, err.Error()
	case len(state.VerifiedChains) > 0:
		chain = state.VerifiedChains[0]
		step.Summary = fmt.Sprintf("%s, certificate verified by a root of %s", tls.VersionName(state.Version), c.rootOf(chain[len(chain)-1]))
	default:
		chain = state.PeerCertificates
		step.Status, step.Summary = StatusWarning, tls.VersionName(state.Version)+", and nobody checks the certificate: write sslmode=verify-full"
	}
	for i, cert := range chain {
		step.Details = append(step.Details, describeCertificate(cert, i == 0))
	}
	c.note(step)
}

func describeCertificate(cert *x509.Certificate, leaf bool) string {
	s := fmt.Sprintf("subject %q, issuer %q, valid from %s to %s", cert.Subject, cert.Issuer, cert.NotBefore.Format(time.DateOnly), cert.NotAfter.Format(time.DateOnly))
	if leaf {
		names := cert.DNSNames
		for _, ip := range cert.IPAddresses {
			names = append(names, ip.String())
		}
		s += ", names " + strings.Join(names, " ")
	}
	return s
}

// rootOf says where the root came from that verified a chain.
func (c *check) rootOf(root *x509.Certificate) string {
	file := c.settings.get("sslrootcert")
	if contains(c.options.rootCAs, root) {
		return "WithRootCAs"
	}
	if content, err := os.ReadFile(file); file != "" && err == nil && contains(content, root) {
		return file
	}
	if contains(amazonRoots, root) {
		return "Amazon Trust Services, which come with this library"
	}
	return "the system"
}

func contains(bundle []byte, cert *x509.Certificate) bool {
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if string(block.Bytes) == string(cert.Raw) {
			return true
		}
	}
	return false
}
