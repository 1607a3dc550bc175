package main

// The clients: how each is found, and what it is told to do for a check. The programs of Python and
// Node take what to do from the environment (scripts/).

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

//go:embed scripts
var scripts embed.FS

type client struct {
	name, debian string
	program      string   // of PostgreSQL, or an interpreter
	script       string   // for an interpreter
	probe        []string // prints the version
	iamOnly      bool     // it knows no SCRAM
	cannot       []string // checks for which it has no means
}

func clients() []client {
	all := []client{
		{name: "psql", debian: "postgresql-client", program: "psql", probe: []string{"--version"}},
		{name: "pgbench", debian: "postgresql-contrib", program: "pgbench", probe: []string{"--version"}},
	}
	for _, module := range []string{"psycopg2", "psycopg", "asyncpg", "pg8000"} {
		all = append(all, client{
			name: module, debian: "python3-" + module, program: "/usr/bin/python3", script: module + ".py",
			probe: []string{"-c", "import " + module + " as m; print(m.__version__.split()[0])"},
		})
	}
	// Debian's pg8000 is of 2016: no SCRAM, TLS without a look at the certificate, no cancel.
	old := &all[len(all)-1]
	old.iamOnly, old.cannot = true, []string{"scram", "cancel"}
	return append(all, client{
		name: "node-pg", debian: "node-pg", program: "node", script: "node-pg.js",
		probe:  []string{"-e", "require('pg'); console.log(require('pg/package.json').version)"},
		cannot: []string{"copy in", "copy out"}, // they take pg-copy-streams
	})
}

// version fails if the client is not installed.
func (c client) version(ctx context.Context) (string, error) {
	path, err := find(c.program)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, c.probe...)
	cmd.Env = append(cleanEnv(), nodePath())
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		lines := strings.Split(text, "\n")
		for _, line := range lines { // the one of a long complaint that says it
			if strings.Contains(line, "Error: ") {
				return "", errors.New(line)
			}
		}
		return "", fmt.Errorf("%w: %s", err, lines[len(lines)-1])
	}
	if _, after, ok := strings.Cut(text, "(PostgreSQL) "); ok {
		text, _, _ = strings.Cut(after, " ")
	}
	return text, nil
}

// find looks for a program where Debian has PostgreSQL's, and on the PATH.
func find(name string) (string, error) {
	if filepath.IsAbs(name) {
		_, err := os.Stat(name)
		return name, err
	}
	if found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name); err == nil && len(found) > 0 {
		return found[len(found)-1], nil
	}
	return exec.LookPath(name)
}

// args is the command for a check, or nil if the client has no such thing.
func (c client) args(check string, s *testServer) []string {
	path, err := find(c.program)
	switch {
	case slices.Contains(c.cannot, check):
		return nil
	case err != nil:
		return []string{c.program} // and running it says so
	}
	switch c.name {
	case "psql":
		return psqlArgs(path, check)
	case "pgbench":
		return pgbenchArgs(path, check, s.database)
	}
	source, err := scripts.ReadFile("scripts/" + c.script)
	if err != nil {
		return []string{c.script}
	}
	if strings.HasSuffix(c.script, ".py") {
		return []string{path, "-c", string(source)}
	}
	return []string{path, "-e", string(source)}
}

func psqlArgs(path, check string) []string {
	args := []string{path, "-X", "-A", "-t", "-q"}
	if check == "cancel" {
		// Only at a terminal does psql outlive a ^C, so script(1) gives it one. The terminal shows what is
		// typed, so the answer is not that. A terminal without a size would call a pager, which eats what follows; a
		// shell between script and psql would die of the ^C itself.
		args = []string{"/bin/sh", "-c", `(echo "select pg_sleep(4);"; sleep 2.5; printf '\003'; sleep 2; echo "select 'ali' || 've';"; echo '\q') |
			script -qefc "exec $1 -X -A -t -n -P pager=off" /dev/null`, "sh", path}
	}
	return args
}

// input is what psql reads.
func (c client) input(check string) string {
	if c.name != "psql" {
		return ""
	}
	switch check {
	case "scram", "iam":
		return "select 'as ' || current_user;\n\\conninfo\n"
	case "run":
		return "\\set n 41\nselect :n + 1;\nselect 1/0;\nbegin;\nselect count(*) from pg_class where oid = 'pg_class'::regclass \\gset\n" +
			"rollback;\n\\d pg_class\nselect 'done ' || :count;\n"
	case "copy in":
		var b strings.Builder
		b.WriteString("create table psql_rows (id int primary key, body text);\n\\copy psql_rows from pstdin\n")
		for i := range rows {
			fmt.Fprintf(&b, "%d\t%s\n", i, strings.Repeat("x", i%300))
		}
		b.WriteString("\\.\nselect 'rows ' || count(*) from psql_rows;\n")
		return b.String()
	case "copy out":
		return fmt.Sprintf("\\copy (select id, body from psql_rows order by id) to program 'wc -l'\nselect 'sum ' || sum(length(body)) from psql_rows where id < %d;\n", rows)
	}
	return ""
}

// pgbenchArgs makes the one client that fills its tables by COPY, and prepares each statement.
func pgbenchArgs(path, check, database string) []string {
	switch check {
	case "scram", "copy in":
		return []string{path, "-i", "-q", "-s", "1", database}
	case "iam", "run":
		return []string{path, "-n", "-M", "prepared", "-c", "4", "-j", "4", "-t", "50", database}
	}
	return nil
}

// wants is what the client says when all is well.
func (c client) wants(check string) string {
	switch {
	case c.name == "pgbench" && (check == "iam" || check == "run"):
		return "number of failed transactions: 0 "
	case c.name == "pgbench":
		return "done in"
	case check == "scram", check == "iam":
		return "as " + user
	case c.name != "psql":
		return "ok " + check
	case check == "run":
		return "done 1"
	case check == "cancel":
		return "alive"
	case check == "copy in":
		return fmt.Sprintf("rows %d", rows)
	case check == "copy out":
		return strconv.Itoa(rows)
	}
	return ""
}
