package main

// The verb proxy: package proxytest as a process, for docker-compose and for other languages.
// What it is told is in proxy_settings.go, whom it lets in and with which key in
// proxy_secrets.go, what it says while it runs in proxy_log.go and proxy_status.go.

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"time"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

const proxyHelp = `
Runs an RDS Proxy for tests in front of any PostgreSQL, until SIGINT or SIGTERM:

  export AURORAPGX_BACKEND=postgres://app:secret@localhost/orders APP_PASSWORD=secret
  aurorapgx proxy --user app=env:APP_PASSWORD --iam-user job=env:JOB_PASSWORD

Clients sign in as they do with RDS Proxy, share database connections, and are pinned by
the statements that pin there: the log, in RDS Proxy's words on stderr, and the status page
say which, why, and what to do instead. RULES.md in proxy/proxytest has the rules.

No password stands on the command line: SOURCE is env:VARIABLE or file:PATH, and the DSN of
the database is best given as AURORAPGX_BACKEND. The user in the DSN signs in with an IAM
token, unless it is named as another kind of user.

--config reads the same settings from a JSON file; flags win over it:

  {"listen": "0.0.0.0:5432", "maxConnections": 20, "borrowTimeout": "5s",
   "users": [{"name": "app", "auth": "scram", "passwordFrom": "file:/run/secrets/app"}]}

auth is scram, md5 or iam; "password" takes the place of passwordFrom where it must. An
address without a host (":5432") is on this machine only; 0.0.0.0 is everywhere.

The status address serves a page at /, CloudWatch's figures for Prometheus at /metrics, and
the statements that pinned at /pins.json. PROXY.md beside the source has docker-compose
and other languages.
`

// runProxy serves until ctx ends.
func runProxy(ctx context.Context, p *program, args []string) error {
	s, err := p.proxySettings(args)
	if err != nil {
		return err
	}
	r, err := p.startProxy(ctx, s)
	if err != nil {
		return err
	}
	defer func() { _ = r.close() }()
	if err := r.announce(); err != nil {
		return err
	}
	var failed error
	select {
	case <-ctx.Done():
	case failed = <-r.status.failed:
	}
	pins := r.px.Pins()
	if err := errors.Join(failed, r.close()); err != nil {
		return err
	}
	r.sayGoodbye()
	if s.RequireNoPins && len(pins) > 0 {
		return p.reportPins(pins)
	}
	return nil
}

// runningProxy is the proxy and all that has to be taken down with it.
type runningProxy struct {
	p      *program
	s      *proxySettings
	px     *proxytest.Proxy
	log    *slog.Logger
	key    *accessKey
	status *statusServer
	caFile string
	since  time.Time

	undo []func() error // in the order in which it was done
}

// startProxy does all that may fail. What was done until then is undone.
func (p *program) startProxy(ctx context.Context, s *proxySettings) (_ *runningProxy, err error) {
	r := &runningProxy{p: p, s: s, since: time.Now(), log: slog.New(newProxyLog(p.stderr, s.logLevel()))}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	opts, err := s.options(p.getenv)
	if err != nil {
		return nil, err
	}
	if r.key, err = s.accessKey(ctx, p.getenv); err != nil {
		return nil, err
	}
	r.undo = append(r.undo, r.key.remove)
	if err := s.checkCAFile(); err != nil {
		return nil, err
	}
	listener, err := listen(ctx, "listen", s.Listen)
	if err != nil {
		return nil, err
	}
	opts = append(opts, proxytest.WithListener(listener), proxytest.WithAccessKey(r.key.credentials), proxytest.WithLogger(r.log))
	if r.px, err = proxytest.Start(context.WithoutCancel(ctx), s.Backend, opts...); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	r.undo = append(r.undo, r.px.Close)
	if r.status, err = r.serveStatus(ctx); err != nil {
		return nil, err
	}
	r.undo = append(r.undo, r.status.close)
	return r, r.writeCAFile()
}

// listen opens an address of the settings.
func listen(ctx context.Context, setting, addr string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", onLoopback(addr))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w; choose another address, or port 0 for a free one", setting, addr, err)
	}
	return l, nil
}

// close takes down what startProxy has set up, the last of it first. It may be called again.
func (r *runningProxy) close() error {
	var errs []error
	for _, undo := range slices.Backward(r.undo) {
		errs = append(errs, undo())
	}
	r.undo = nil
	return errors.Join(errs...)
}

// sayGoodbye sums up, in the log.
func (r *runningProxy) sayGoodbye() {
	st := r.px.Stats()
	r.log.Info(fmt.Sprintf("aurorapgx: stopped. Client connections: %d, of which pinned: %d. Borrow timeouts: %d.",
		st.ClientConnectionsSetupSucceeded, st.PinnedSessions, st.DatabaseConnectionsBorrowTimeouts))
}

// reportPins is the answer that --require-no-pins asks for.
func (p *program) reportPins(pins []proxytest.Pin) error {
	st := p.style()
	lines := []string{st.red("Sessions were pinned:")}
	for _, g := range groupPins(pins, nil) {
		lines = append(lines, fmt.Sprintf("  %d × %s (%s)", g.Times, g.Digest, g.Rule), "      "+g.Reason)
		if g.Caller != "" {
			lines = append(lines, "      from "+g.Caller)
		}
		lines = append(lines, "      instead: "+g.Instead)
	}
	if err := printLines(p.stdout, lines...); err != nil {
		return err
	}
	return errAnswered
}

// caCommonName is in every CA certificate of proxytest, and tells its files from other people's.
const caCommonName = "aurorapgx proxytest CA"

// checkCAFile makes sure that the file to be written is none of somebody else's, and takes away
// one that an earlier run has left: nothing is signed with that any more.
func (s *proxySettings) checkCAFile() error {
	if s.CAFile == "" {
		return nil
	}
	data, err := os.ReadFile(s.CAFile) //nolint:gosec // the file is the one the user names
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("caFile: %w", err)
	case !isOwnCA(data):
		return fmt.Errorf("caFile %s: there is a file of that name, which no aurorapgx proxy has written; name another, or remove it", s.CAFile)
	}
	return os.Remove(s.CAFile) //nolint:gosec // the same
}

// writeCAFile puts the CA where the settings want it, whole or not at all: whoever waits for the
// file may take it for the sign that the proxy is there.
func (r *runningProxy) writeCAFile() error {
	r.caFile = r.px.CAFile()
	if r.s.CAFile == "" {
		return nil
	}
	data, err := os.ReadFile(r.caFile)
	if err != nil {
		return fmt.Errorf("caFile: %w", err)
	}
	if err := writeWhole(r.s.CAFile, data, 0o644); err != nil {
		return fmt.Errorf("caFile: %w", err)
	}
	r.caFile = r.s.CAFile
	if !r.s.KeepCAFile {
		r.undo = append(r.undo, func() error { return ignoreMissing(os.Remove(r.s.CAFile)) })
	}
	return nil
}
