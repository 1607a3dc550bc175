package aurora

// The users, schemas and grants of a Spec, in the database. What is granted to whom is in
// bootstrap_sql.go.

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Bootstrap makes the database what the Spec says of users and schemas: it creates what is
// missing, grants what each [Access] allows, for later tables too, takes away what it does
// not allow, and sets the users' timeouts. It may be run again after every change of the Spec.
// Users and schemas that are no longer in the Spec are left alone. The Spec has to be valid.
//
// The exec function is the Exec of a pgx connection, pool or transaction, or the ExecContext of
// database/sql; it is called once, with everything in one string, which PostgreSQL runs as one
// transaction: all of it happens or nothing. (Drivers that do not send a string without
// arguments by the simple protocol fail, and change nothing.) It has to be connected to
// Spec.Database as the administrator, [Spec.MasterUser], and not through the proxy, which does
// not know that user.
//
//	err := aurora.Bootstrap(ctx, conn.Exec, spec)
//
// With [IAM] each user becomes a member of rds_iam, and with [Secrets] of no such thing: the role
// makes Aurora demand an IAM token where the proxy brings a password
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-iam-setup.html). A
// PostgreSQL of your own has no such role; there, CREATE ROLE rds_iam stands in for it.
func Bootstrap[Result any](ctx context.Context, exec func(ctx context.Context, sql string, args ...any) (Result, error), spec Spec, opts ...BootstrapOption) error {
	statements, err := bootstrapStatements(spec, opts...)
	if err != nil {
		return err
	}
	if _, err := exec(ctx, joinStatements(statements)); err != nil {
		return fmt.Errorf("aurora: bootstrap of database %q: %w", spec.WithDefaults().Database, err)
	}
	return nil
}

// BootstrapSQL is what [Bootstrap] runs, in a transaction, for psql with ON_ERROR_STOP or for
// reading.
func BootstrapSQL(spec Spec, opts ...BootstrapOption) (string, error) {
	statements, err := bootstrapStatements(spec, opts...)
	if err != nil {
		return "", err
	}
	return "BEGIN;\n\n" + joinStatements(statements) + "\nCOMMIT;\n", nil
}

// A BootstrapOption changes what [Bootstrap] does.
type BootstrapOption func(*bootstrap)

// WithPasswords sets the passwords of users, by name, as they stand in the users' secrets. It is for
// [Secrets] without a rotation in the stack, which sets them by itself. A user that is not named
// keeps the password it has, and a new one cannot log in before it is given one. What is sent is
// a SCRAM-SHA-256 verifier, so that no statement and no log holds a password. Passwords are
// printable ASCII, as RDS Proxy wants them
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-connecting.html).
func WithPasswords(passwords map[string]string) BootstrapOption {
	return func(b *bootstrap) { b.passwords = maps.Clone(passwords) }
}

// bootstrap collects statements.
type bootstrap struct {
	spec       Spec // with defaults
	passwords  map[string]string
	statements []string
}

// bootstrapStatements is all of it, in order, for one transaction.
func bootstrapStatements(spec Spec, opts ...BootstrapOption) ([]string, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	return checkedBootstrapStatements(spec, opts...)
}

// checkedBootstrapStatements is for specs whose fields have been checked: the template
// holds the statements too, and is a part of what Validate looks at.
func checkedBootstrapStatements(spec Spec, opts ...BootstrapOption) ([]string, error) {
	b := &bootstrap{spec: spec.WithDefaults()}
	for _, opt := range opts {
		opt(b)
	}
	owners, err := b.check()
	if err != nil {
		return nil, fmt.Errorf("aurora: bootstrap: %w", err)
	}
	b.begin()
	for _, u := range b.spec.Users {
		b.role(u)
	}
	if err := b.logins(); err != nil {
		return nil, fmt.Errorf("aurora: bootstrap: %w", err)
	}
	b.databases()
	roles := slices.Compact(slices.Sorted(maps.Values(owners)))
	for _, owner := range roles {
		b.borrow(owner)
	}
	for _, schema := range b.spec.Schemas {
		b.schema(schema, owners[schema])
	}
	for _, owner := range roles {
		b.giveBack(owner)
	}
	return b.statements, nil
}

// check refuses what cannot be done, and finds the owner of each schema that has one.
func (b *bootstrap) check() (owners map[string]string, err error) {
	owners = map[string]string{}
	var errs []error
	names := make([]string, 0, len(b.spec.Users))
	for _, u := range b.spec.Users {
		names = append(names, u.Name)
		if u.Access != Owner {
			continue
		}
		for _, schema := range u.Schemas {
			if other, taken := owners[schema]; taken && other != u.Name {
				errs = append(errs, fmt.Errorf("schema %q has two owners, %q and %q, and PostgreSQL knows one: give one of them %s access, or schemas of its own",
					schema, other, u.Name, ReadWrite))
			}
			owners[schema] = u.Name
		}
	}
	if len(b.passwords) > 0 && b.spec.Auth == IAM {
		errs = append(errs, fmt.Errorf("passwords were given, but with auth %q nobody logs in with one; use auth %q, or leave them out", IAM, Secrets))
	}
	for _, name := range slices.Sorted(maps.Keys(b.passwords)) {
		if !slices.Contains(names, name) {
			errs = append(errs, fmt.Errorf("a password was given for %q, who is not among the users of the spec: %s", name, strings.Join(names, ", ")))
		}
	}
	return owners, errors.Join(errs...)
}

func joinStatements(statements []string) string {
	return strings.Join(statements, ";\n") + ";\n"
}
