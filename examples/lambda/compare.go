package main

// This file measures what the library costs a cold start and a binary.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/aurorapgx/aurorapgx/examples/internal/lab"
)

// coldStarts is how many processes of each are measured. They take turns.
const coldStarts = 20

type candidate struct {
	name, program string
	binary        string
	size          int64
	took          []time.Duration
}

func runComparison(ctx context.Context, out io.Writer) error {
	candidates, err := compare(ctx, coldStarts)
	if err != nil {
		return err
	}
	return report(out, candidates)
}

func report(out io.Writer, candidates []*candidate) error {
	ours, theirs := candidates[0], candidates[1]
	_, _ = fmt.Fprintf(out, "cold start, from the start of the process to the first answer: median of %d\n", len(ours.took))
	for _, c := range candidates {
		_, _ = fmt.Fprintf(out, "  %-13s %s, binary %.1f MB\n", c.name, median(c.took).Round(100*time.Microsecond), float64(c.size)/1e6)
	}
	_, err := fmt.Fprintf(out, "difference\n  %s, binary %+.1f %%\n",
		(median(ours.took) - median(theirs.took)).Round(100*time.Microsecond), 100*(float64(ours.size)/float64(theirs.size)-1))
	return err
}

// compare starts every candidate rounds times, in turn, and has it answer one event.
func compare(ctx context.Context, rounds int) (_ []*candidate, err error) {
	l, err := lab.Start(ctx, lab.Setup{Schema: schema})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	dir, err := os.MkdirTemp("", "lambda")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	candidates := []*candidate{
		{name: "aurorapgx", program: "lambda/minimal"},
		{name: "by hand", program: "lambda/handwritten"},
	}
	for _, c := range candidates {
		if c.binary, err = lab.Build(ctx, dir, c.program, "-tags", "lambda.norpc", "-trimpath", "-ldflags", "-s -w"); err != nil {
			return nil, err
		}
		info, err := os.Stat(c.binary)
		if err != nil {
			return nil, err
		}
		c.size = info.Size()
	}
	roots, err := systemRoots(l, dir)
	if err != nil {
		return nil, err
	}
	for range rounds {
		for _, c := range candidates {
			took, err := coldStart(ctx, l, c.binary, roots)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			c.took = append(c.took, took)
		}
	}
	return candidates, nil
}

// coldStart starts a process with an event waiting for it.
func coldStart(ctx context.Context, l *lab.Lab, binary string, roots map[string]string) (time.Duration, error) {
	e, err := start(l, binary, roots)
	if err != nil {
		return 0, err
	}
	defer e.kill()
	if _, err := e.ready(ctx); err != nil {
		return 0, err
	}
	var orders int64
	_, err = e.invoke(ctx, struct{}{}, &orders)
	return time.Since(e.started), err
}

// systemRoots makes the proxy's certificate one that the system trusts, as that of an
// RDS Proxy is, and takes the name of its own CA out of DATABASE_URL. Reading the
// system's roots is a large part of a cold start, and both functions have to.
func systemRoots(l *lab.Lab, dir string) (map[string]string, error) {
	bundle, err := os.ReadFile(l.Proxy.CAFile())
	if err != nil {
		return nil, err
	}
	for _, file := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"} {
		if system, err := os.ReadFile(file); err == nil {
			bundle = append(bundle, system...)
			break
		}
	}
	u, err := url.Parse(l.Proxy.URL(lab.User, lab.Database))
	if err != nil {
		return nil, err
	}
	query := u.Query()
	query.Del("sslrootcert")
	u.RawQuery = query.Encode()
	file := filepath.Join(dir, "roots.pem")
	variables := map[string]string{"SSL_CERT_FILE": file, "DATABASE_URL": u.String()}
	return variables, os.WriteFile(file, bundle, 0o600) //nolint:gosec // in a directory of our own
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return (d[len(d)/2] + d[(len(d)-1)/2]) / 2
}
