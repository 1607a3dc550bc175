// Quickstart shows in 20 seconds what aurorapgx is for. It runs a service that moves
// money between bank accounts, opens its pool while nothing listens yet, and then
// kills the database under it:
//
//	go run ./quickstart
//
// It needs Go and either Docker or installed PostgreSQL, no AWS account. What is real:
// PostgreSQL, its standby, SIGKILL, the promotion, and everything on the application's
// side. What is not: the RDS Proxy between them is proxy/proxytest's emulation, which
// checks certificates and IAM tokens and multiplexes, pins and fails over as AWS
// documents it; it is told of the failover, and how long that takes is set here.
//
// The application knows nothing of this. It has a DATABASE_URL with an RDS host name
// and AWS credentials in its environment, as on ECS.
//
// Where to read on: bank.go is the application, with the transaction and what it does
// when a COMMIT goes unanswered. story.go is what befalls it, lab.go is where it runs,
// and check.go counts the money.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/aurorapgx/aurorapgx/proxy"
)

const (
	labTimeout = 10 * time.Minute // the first run may have to build an image
	runTimeout = 50 * time.Second
)

func main() {
	if err := runUntilInterrupted(); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func runUntilInterrupted() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return run(ctx, os.Stdout)
}

// run is the whole quickstart. It returns nil only if the application went through
// cold start and failover and not a cent is missing afterwards.
func run(ctx context.Context, out io.Writer) (err error) {
	tl := &timeline{out: out}
	lab, err := startLab(ctx, tl)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lab.close()) }()
	restore, err := lab.setEnvironment()
	if err != nil {
		return err
	}
	defer restore()

	ctx, cancel := context.WithTimeoutCause(ctx, runTimeout, fmt.Errorf("not done within %s", runTimeout))
	defer cancel()
	tl.begin()

	// The line this is all about. There are no options, no token callback, no TLS
	// configuration and no loop that waits for the database.
	pool, err := proxy.NewPool(ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer pool.Close()

	tl.event("pool opened, %d transfers at a time begun; nothing listens at %s (%s) yet", workers, lab.proxy.Host(), lab.proxy.Addr())
	bank := newBank(pool)
	bank.open(ctx)
	failover, err := tellStory(ctx, tl, lab, bank.record)
	if err != nil {
		cancel() // the workers may be waiting for a database that will not come back
	}
	bank.close() // each transfer begun is brought to its end
	if err != nil {
		return err
	}

	report(ctx, tl, lab, bank, failover)
	found, err := audit(ctx, lab.adminDSN(lab.standby))
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return tl.verdict(found, bank.record, check(found, &bank.record.ledger))
}
