package aurora

// The statements of a bootstrap. They run as an administrator who need not be a superuser (on
// Aurora it is not), on PostgreSQL 14 and later, and any number of times.

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

func (b *bootstrap) add(format string, args ...any) {
	b.statements = append(b.statements, fmt.Sprintf(format, args...))
}

// do adds a block of PL/pgSQL. Names and values in it are quoted like those outside.
func (b *bootstrap) do(format string, args ...any) {
	body := fmt.Sprintf(format, args...)
	tag := "$do$"
	for strings.Contains(body, tag) {
		tag = "$" + strings.Trim(tag, "$") + "o$"
	}
	b.statements = append(b.statements, "DO "+tag+"\nBEGIN\n"+strings.Trim(body, "\n")+"\nEND "+tag)
}

// begin keeps bootstraps from running into each other, and from the wrong database.
func (b *bootstrap) begin() {
	b.add("SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('aurorapgx bootstrap'))")
	b.do(`
  IF pg_catalog.current_database() <> %[1]s THEN
    RAISE EXCEPTION 'this is database "%%", the spec is about another: connect to %%', pg_catalog.current_database(), %[1]s;
  END IF;`, quoteLiteral(b.spec.Database))
}

// role creates a user if need be, and sees to it that it can log in and do nothing to the server
// as a whole. Only superusers may say NOSUPERUSER and its like, so these are looked at.
func (b *bootstrap) role(u User) {
	b.do(`
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = %[2]s) THEN
    CREATE ROLE %[1]s;
  ELSIF %[2]s = current_user THEN
    RAISE EXCEPTION 'role %% is the administrator this runs as, and no user for an application', %[3]s;
  ELSIF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = %[2]s AND (rolsuper OR rolreplication OR rolbypassrls)) THEN
    RAISE EXCEPTION 'role %% exists and is a superuser, replicates or bypasses row security; use another name', %[3]s;
  END IF;`, quoteIdentifier(u.Name), quoteLiteral(u.Name), quoteLiteral(quoteIdentifier(u.Name)))
	b.add("ALTER ROLE %s LOGIN INHERIT NOCREATEDB NOCREATEROLE", quoteIdentifier(u.Name))
	// A client that gives up ends nothing behind RDS Proxy, so the server has to.
	b.setting(u, "statement_timeout", u.StatementTimeout)
	b.setting(u, "idle_in_transaction_session_timeout", u.IdleInTransactionTimeout)
	b.do(`
  IF EXISTS (SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r ON r.oid = m.roleid
             WHERE m.member = %[1]s::pg_catalog.regrole AND r.rolname <> 'rds_iam') THEN
    RAISE WARNING 'role %% is a member of roles the spec does not know of, and may do what they may', %[1]s;
  END IF;`, quoteLiteral(quoteIdentifier(u.Name)))
}

func (b *bootstrap) setting(u User, name string, value time.Duration) {
	b.add("ALTER ROLE %s SET %s = '%dms'", quoteIdentifier(u.Name), name, max(value, 0).Milliseconds())
}

// logins grants rds_iam where it belongs and revokes it where it does not, and sets passwords.
func (b *bootstrap) logins() error {
	for _, u := range b.spec.Users {
		if b.spec.Auth == IAM {
			b.do(`
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'rds_iam') THEN
    RAISE EXCEPTION 'role rds_iam does not exist; Aurora has it, and on a PostgreSQL of your own CREATE ROLE rds_iam stands in for it';
  ELSIF NOT pg_catalog.pg_has_role(%[2]s, 'rds_iam', 'MEMBER') THEN
    GRANT rds_iam TO %[1]s;
  END IF;`, quoteIdentifier(u.Name), quoteLiteral(u.Name))
			continue
		}
		b.do(`
  IF EXISTS (SELECT FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r ON r.oid = m.roleid
             WHERE r.rolname = 'rds_iam' AND m.member = %[2]s::pg_catalog.regrole) THEN
    REVOKE rds_iam FROM %[1]s;
  END IF;`, quoteIdentifier(u.Name), quoteLiteral(quoteIdentifier(u.Name)))
		if password, ok := b.passwords[u.Name]; ok {
			verifier, err := scramVerifier(password)
			if err != nil {
				return fmt.Errorf("password of user %q: %w", u.Name, err)
			}
			b.add("ALTER ROLE %s PASSWORD %s", quoteIdentifier(u.Name), quoteLiteral(verifier))
		}
	}
	return nil
}

// databases lets the users into their database and nobody else; and into no database that a
// new cluster has beside it. There, RDS Proxy's own user needs an entry of its own
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-new-db-user.html), which it
// can be given once it exists: a proxy creates it when the cluster becomes its target
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.html). Until then everybody
// is let in, because a proxy may be added to any cluster.
// Other databases are the business of whoever creates them.
func (b *bootstrap) databases() {
	db := quoteIdentifier(b.spec.Database)
	if b.spec.Database != "postgres" {
		b.add("REVOKE ALL ON DATABASE %s FROM PUBLIC", db)
	}
	for _, u := range b.spec.Users {
		b.add("REVOKE ALL ON DATABASE %s FROM %s", db, quoteIdentifier(u.Name))
		privileges := "CONNECT"
		if u.Access == Owner {
			privileges += ", TEMPORARY" // migrations use temporary tables; in an application they would pin
		}
		b.add("GRANT %s ON DATABASE %s TO %s", privileges, db, quoteIdentifier(u.Name))
	}
	// Databases that come from PostgreSQL 14 or older let everybody create things in public.
	if !slices.Contains(b.spec.Schemas, "public") {
		b.do(`
  IF pg_catalog.to_regnamespace('public') IS NOT NULL THEN
    REVOKE CREATE ON SCHEMA public FROM PUBLIC;
  END IF;`)
	}
	level := "WARNING"
	if b.spec.Proxy.Off {
		level = "NOTICE"
	}
	// Where PUBLIC has no privilege left and there is no proxy, it was closed for one that would never
	// have been let in.
	b.do(`
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_database WHERE datname = 'postgres'
                 AND pg_catalog.pg_has_role(datdba, 'USAGE')) THEN
    RAISE NOTICE 'database postgres is as open as it was: it belongs to somebody else';
  ELSIF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'rdsproxyadmin') THEN
    REVOKE ALL ON DATABASE postgres FROM PUBLIC;
    GRANT CONNECT ON DATABASE postgres TO rdsproxyadmin;
  ELSE
    RAISE %s 'database postgres is open to every user: closing it would lock out a proxy that is yet to come; run this again when there is one';
    IF NOT EXISTS (SELECT FROM pg_catalog.pg_database, pg_catalog.aclexplode(COALESCE(datacl, pg_catalog.acldefault('d', datdba)))
                   WHERE datname = 'postgres' AND grantee = 0) THEN
      GRANT CONNECT ON DATABASE postgres TO PUBLIC;
    END IF;
  END IF;`, level)
}

// borrow makes the administrator a member of an owner for the length of the transaction, which
// it has to be to act for it. To remain one would be its end: through the owner it would be a
// member of rds_iam, and its password would no longer be accepted
// (https://github.com/cyrilgdn/terraform-provider-postgresql/issues/289).
func (b *bootstrap) borrow(owner string) {
	b.do(`
  IF NOT pg_catalog.pg_has_role(%[2]s, 'USAGE') THEN
    GRANT %[1]s TO CURRENT_USER;
    PERFORM pg_catalog.set_config('aurorapgx.borrowed', COALESCE(pg_catalog.current_setting('aurorapgx.borrowed', true), '') || %[3]s, true);
  END IF;`, quoteIdentifier(owner), quoteLiteral(owner), quoteLiteral(owner+","))
}

func (b *bootstrap) giveBack(owner string) {
	b.do(`
  IF pg_catalog.strpos(',' || pg_catalog.current_setting('aurorapgx.borrowed', true), %[2]s) > 0 THEN
    REVOKE %[1]s FROM CURRENT_USER;
  END IF;`, quoteIdentifier(owner), quoteLiteral(","+owner+","))
}

// schema creates a schema and makes the grants in it. An owner of "" leaves it to whoever has it.
func (b *bootstrap) schema(name, owner string) {
	s := quoteIdentifier(name)
	b.add("CREATE SCHEMA IF NOT EXISTS %s", s)
	if owner != "" {
		b.add("ALTER SCHEMA %s OWNER TO %s", s, quoteIdentifier(owner))
		b.functions(name, owner)
	}
	b.add("REVOKE CREATE ON SCHEMA %s FROM PUBLIC", s)
	for _, u := range b.spec.Users {
		if u.Name == owner {
			continue
		}
		access := u.Access
		if !slices.Contains(u.Schemas, name) {
			access = "" // none
		}
		b.grants(u.Name, access, name, owner)
	}
}

// functions takes the owner's functions away from PUBLIC, to which PostgreSQL gives them, so that
// users who only read cannot write through one. Extensions' functions stay as they are:
// they are operators too.
func (b *bootstrap) functions(schema, owner string) {
	b.add("ALTER DEFAULT PRIVILEGES FOR ROLE %s REVOKE EXECUTE ON ROUTINES FROM PUBLIC", quoteIdentifier(owner))
	b.do(`
  DECLARE f pg_catalog.regprocedure;
  BEGIN
    FOR f IN SELECT oid FROM pg_catalog.pg_proc WHERE pronamespace = %s::pg_catalog.regnamespace AND proowner = %s::pg_catalog.regrole LOOP
      EXECUTE pg_catalog.format('REVOKE EXECUTE ON ROUTINE %%s FROM PUBLIC', f);
    END LOOP;
  END;`, quoteLiteral(quoteIdentifier(schema)), quoteLiteral(quoteIdentifier(owner)))
}

// grants gives a user its access to what is in a schema and to what its owner will create
// there, after taking away whatever it had.
func (b *bootstrap) grants(user string, access Access, schema, owner string) {
	u, s := quoteIdentifier(user), quoteIdentifier(schema)
	later := "ALTER DEFAULT PRIVILEGES "
	if owner != "" {
		later += "FOR ROLE " + quoteIdentifier(owner) + " "
	}
	later += "IN SCHEMA " + s + " "
	b.add("REVOKE ALL ON SCHEMA %s FROM %s", s, u)
	for _, kind := range []string{"TABLES", "SEQUENCES", "ROUTINES"} {
		b.add("REVOKE ALL ON ALL %s IN SCHEMA %s FROM %s", kind, s, u)
		b.add("%sREVOKE ALL ON %s FROM %s", later, kind, u)
	}
	var privileges [][2]string
	switch access {
	case ReadWrite:
		privileges = [][2]string{{"SELECT, INSERT, UPDATE, DELETE", "TABLES"}, {"USAGE, SELECT", "SEQUENCES"}, {"EXECUTE", "ROUTINES"}}
	case ReadOnly:
		privileges = [][2]string{{"SELECT", "TABLES"}, {"SELECT", "SEQUENCES"}}
	default: // no access to this schema
		return
	}
	b.add("GRANT USAGE ON SCHEMA %s TO %s", s, u)
	for _, p := range privileges {
		b.add("GRANT %s ON ALL %s IN SCHEMA %s TO %s", p[0], p[1], s, u)
		b.add("%sGRANT %s ON %s TO %s", later, p[0], p[1], u)
	}
}

// quoteIdentifier quotes a name for SQL.
func quoteIdentifier(name string) string {
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// quoteLiteral quotes a string for SQL, whatever standard_conforming_strings says.
func quoteLiteral(value string) string {
	quoted := "'" + strings.NewReplacer("'", "''", `\`, `\\`).Replace(value) + "'"
	if strings.Contains(value, `\`) {
		return "E" + quoted
	}
	return quoted
}
