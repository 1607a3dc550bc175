package main

// psql is the one client that every test run asks: libpq is what most others are built on. The rest is
// for the command.

import (
	"os"
	"strings"
	"testing"
)

func TestPsql(t *testing.T) {
	t.Parallel()
	s, err := startServer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	psql := clients()[0]
	version, err := psql.version(t.Context())
	if err != nil {
		// Where the server is a container, nobody promised that there are programs of PostgreSQL here.
		if strings.HasPrefix(s.server.Source(), "installed") || os.Getenv("NEED_ALL") != "" {
			t.Fatalf("PostgreSQL is installed, or everything asked for, and psql is not: %v", err)
		}
		t.Skipf("LEFT OUT: libpq through the proxy, as there is no psql here (apt-get install postgresql-client): %v", err)
	}
	t.Logf("psql %s", version)
	for _, check := range checks {
		if err := s.check(t.Context(), psql, check, psql.args(check, s)); err != nil {
			t.Errorf("%s: %v", check, err)
		}
	}
}
