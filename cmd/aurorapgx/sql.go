package main

import (
	"context"
	"fmt"
	"io"

	"github.com/aurorapgx/aurorapgx/aurora"
)

const sqlHelp = `
Prints the SQL that creates a spec's users and schemas and makes the grants. It runs in one
transaction, any number of times, as the administrator and connected to the spec's database:

  aurorapgx sql --spec orders.json | psql -v ON_ERROR_STOP=1 "host=... dbname=orders user=dbadmin"

With auth "iam" there are no passwords. With "secrets", --passwords sets them, from a JSON object
of users and passwords; the output holds SCRAM verifiers and no password.
` + specHelp

func runSQL(_ context.Context, p *program, args []string) error {
	f := p.flags("sql", "[--stage NAME] [--spec FILE] [--passwords FILE] [--json]", sqlHelp)
	from, asJSON := f.spec(), f.json()
	file := f.String("passwords", "", "read {\"user\": \"password\"} from `FILE`, JSON; - is standard input")
	if _, err := f.parse(args, 0); err != nil {
		return err
	}
	if *from.file == "-" && *file == "-" {
		return f.wrong("--spec and --passwords cannot both be standard input")
	}
	spec, err := from.read(f)
	if err != nil {
		return err
	}
	if err := spec.Validate(); err != nil {
		return err
	}
	var opts []aurora.BootstrapOption
	if *file != "" {
		passwords, err := p.readPasswords(*file)
		if err != nil {
			return err
		}
		opts = append(opts, aurora.WithPasswords(passwords))
	}
	text, err := aurora.BootstrapSQL(spec, opts...)
	if err != nil {
		return err
	}
	if *asJSON {
		return p.printJSON(map[string]string{"database": spec.WithDefaults().Database, "sql": text})
	}
	_, err = io.WriteString(p.stdout, text)
	return err
}

// readPasswords does not show what it read in an error.
func (p *program) readPasswords(path string) (map[string]string, error) {
	data, name, err := p.readFile(path)
	if err != nil {
		return nil, err
	}
	var passwords map[string]string
	if err := decodeStrict(data, &passwords); err != nil {
		return nil, fmt.Errorf("%s has to be a JSON object of user names and passwords", name)
	}
	return passwords, nil
}
