// Command clients runs what other languages have for PostgreSQL through proxytest in front of a real
// PostgreSQL, and prints a table of client by check:
//
//	scram    sign in with a password, TLS verify-full
//	iam      sign in with an IAM token as the password, TLS verify-full
//	run      a statement with a parameter (psql: a variable), an error, and a transaction after it
//	cancel   a CancelRequest, which RDS Proxy ignores: the statement ends in its own time, the client lives
//	copy in  COPY FROM STDIN of 20,000 rows
//	copy out COPY TO STDOUT of them
//
//	go run ./clients
//
// A client that is not installed is named, and is no failure, but for psql: without it nothing is
// shown about libpq. Debian's packages: postgresql-client, postgresql-contrib (pgbench),
// python3-psycopg2, python3-psycopg, python3-asyncpg, python3-pg8000, node-pg. In Docker mode, too, the
// clients are those of the host.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// checkTimeout is for one client and one check.
const checkTimeout = time.Minute

var checks = []string{"scram", "iam", "run", "cancel", "copy in", "copy out"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "clients:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	s, err := startServer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	fmt.Println(s.server.Source())
	fmt.Println()

	var missing []string
	var failures []error
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "client\t"+strings.Join(checks, "\t"))
	for _, c := range clients() {
		version, err := c.version(ctx)
		if err != nil {
			missing = append(missing, fmt.Sprintf("%s (apt-get install %s): %v", c.name, c.debian, err))
			if c.name == "psql" {
				failures = append(failures, errors.New("psql is missing"))
			}
			continue
		}
		row := []string{c.name + " " + version}
		for _, check := range checks {
			result := "ok"
			if args := c.args(check, s); args == nil {
				result = "-"
			} else if err := s.check(ctx, c, check, args); err != nil {
				result = "FAIL"
				failures = append(failures, fmt.Errorf("%s, %s: %w", c.name, check, err))
			}
			row = append(row, result)
		}
		_, _ = fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Println("\n- : the client has no such thing")
	for _, m := range slices.Sorted(slices.Values(missing)) {
		fmt.Println("not installed: " + m)
	}
	return errors.Join(failures...)
}
