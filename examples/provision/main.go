// Provision follows one file, orders.json, from a plan to a query:
//
//	go run ./provision
//
// It checks the spec and renders the CloudFormation template, says what it costs and how many
// connections there are, reads the deployed stack's outputs, creates the users, and opens
// the application's pool with nothing but the environment that comes out of the outputs.
// No string is copied by hand on the way.
//
// It needs Go and either Docker or installed PostgreSQL, no AWS account: instead of AWS, stack.go
// works out the template's own outputs, and has a PostgreSQL and an RDS Proxy emulation
// (proxy/proxytest) stand where they lead to. With an account, deploy.sh does the first half and
// smoke.sh, inside the VPC, the second.
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aurorapgx/aurorapgx/aurora"
)

//go:embed orders.json
var ordersJSON []byte

const timeout = 10 * time.Minute // the first run may have to build an image

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "provision:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("not done within %s", timeout))
	defer cancel()
	spec, template, err := plan(out)
	if err != nil {
		return err
	}

	stack, err := deploy(ctx, spec, template)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stack.close()) }()
	say(out, "deployed", "here, not on AWS: %s", stack.source())

	if err := createUsers(ctx, spec, stack); err != nil {
		return err
	}
	say(out, "users", "created by aurora.Bootstrap as %s, past the proxy", spec.MasterUser)

	handoff, err := aurora.HandoffFromOutputs(stack.outputs)
	if err != nil {
		return err
	}
	for _, part := range []struct {
		user string
		work func(context.Context, string, *localStack) (string, error)
	}{{"migrate", migrate}, {"app", serve}, {"report", read}} {
		env, err := handoff.Env(part.user)
		if err != nil {
			return err
		}
		url := env["DATABASE_URL"]
		if env["AURORA_DIRECT"] == "true" {
			url = stack.pastProxy(env)
		}
		did, err := part.work(ctx, url, stack)
		if err != nil {
			return fmt.Errorf("as %s: %w", part.user, err)
		}
		say(out, part.user, "%s", url)
		say(out, "", "%s", did)
	}
	say(out, "pinned", "%d sessions at the proxy", stack.proxy.Stats().PinnedSessions)
	return nil
}

// plan is everything that can be known before anything is deployed.
func plan(out io.Writer) (aurora.Spec, []byte, error) {
	spec, err := aurora.ParseSpec(ordersJSON)
	if err != nil {
		return spec, nil, err
	}
	template, err := spec.Template() // checks the spec
	if err != nil {
		return spec, nil, err
	}
	resources, err := spec.Explain()
	if err != nil {
		return spec, nil, err
	}
	say(out, "template", "%d bytes, %d resources; deploy.sh has the command for AWS", len(template), len(resources))

	prices, err := aurora.PricesIn("us-east-1")
	if err != nil {
		return spec, nil, err
	}
	estimate, err := aurora.Cost(spec, aurora.Usage{}, prices)
	if err != nil {
		return spec, nil, err
	}
	say(out, "cost", "$%.0f a month at least, $%.0f expected, $%.0f at most (%s, prices as of %s)",
		estimate.Total.Floor, estimate.Total.Expected, estimate.Total.Ceiling, estimate.Region, estimate.PricesAsOf)

	budget, err := aurora.ConnectionBudget(spec, aurora.Client{Name: "app", Tasks: 20})
	if err != nil {
		return spec, nil, err
	}
	say(out, "connections", "%d on each instance, %d through the proxy: at most pool_max_conns=%d in each of 20 tasks",
		budget.MaxConnections, budget.Writer.Connections, budget.Clients[0].MaxConns)
	return spec.WithDefaults(), template, nil
}

// createUsers runs the bootstrap as the administrator, twice, as deployments do.
func createUsers(ctx context.Context, spec aurora.Spec, stack *localStack) (err error) {
	conn, err := pgx.Connect(ctx, stack.adminDSN())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	for range 2 {
		if err := aurora.Bootstrap(ctx, conn.Exec, spec); err != nil {
			return err
		}
	}
	return stack.setPasswords(ctx, spec.Users)
}

func say(out io.Writer, what, format string, args ...any) {
	_, _ = fmt.Fprintf(out, "%-12s %s\n", what, fmt.Sprintf(format, args...))
}
