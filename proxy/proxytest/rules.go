package proxytest

// What pins a session to its database connection and what does not, as a table: each rule with what
// is known about it, from whom, and how sure that is. RULES.md is made from it.

import "slices"

// Certainty says how well something about RDS Proxy is known.
type Certainty string

// From the best to the least.
const (
	Documented Certainty = "documented" // AWS says so
	Reported   Certainty = "reported"   // users have seen it, and show a log line or a measurement
	Assumed    Certainty = "assumed"    // neither; the choice is explained
)

// A Rule tells how statements of one kind are treated.
type Rule struct {
	Name    string    // short and stable, for AllowRule
	Pins    bool      // whether a session is pinned
	Covers  string    // the statements
	Reason  string    // how the log words it; empty if the rule does not pin
	Sure    Certainty // how well it is known
	Source  string    // URL
	Why     string    // what the source says, or why it was decided like this
	Instead string    // what to do instead; empty if the rule does not pin
}

// Rules lists the rules, those that pin first. See RULES.md in this directory for the same as a page.
func Rules() []Rule { return slices.Clone(rules[1:]) }

// The reasons. The first two are RDS Proxy's own words; how it words the others has not been
// published, and may change.
const (
	reasonSettings = "SQL changed session settings that the proxy doesn't track. " +
		"Consider moving session configuration to the proxy's initialization query."
	reasonTooLong   = "The connection ran a SQL query which exceeded the 16384 byte limit."
	reasonPrepare   = "SQL managed prepared statements."
	reasonTemporary = "SQL created a temporary object."
	reasonCursor    = "SQL declared a cursor."
	reasonListen    = "SQL listened on a notification channel."
	reasonLoad      = "SQL loaded a library."
	reasonSequence  = "SQL manipulated a sequence."
	reasonLock      = "SQL took a session-level advisory lock."
	reasonDiscard   = "SQL discarded session state."
)

// Where it comes from.
const (
	pinningPage  = "https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-pinning.html"
	proxyPage    = "https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.html"
	extendedPage = "https://aws.amazon.com/blogs/database/amazon-rds-proxy-multiplexing-support-for-postgresql-extended-query-protocol/"
	toolkitPage  = "https://raw.githubusercontent.com/aws/agent-toolkit-for-aws/main/skills/specialized-skills/database-skills/rds-oss/references/proxy-pinning-postgresql.md"
	prismaIssue  = "https://github.com/prisma/orm/issues/5866"
	historyIssue = "https://github.com/AmbitionEng/django-pghistory/issues/245"
	asyncpgIssue = "https://github.com/MagicStack/asyncpg/issues/1153"
	psycopgIssue = "https://github.com/psycopg/psycopg/issues/1105"
)

// ruleID is a rule's place in the table.
type ruleID uint8

const (
	noRule ruleID = iota

	ruleLongText
	ruleSettings
	ruleSetConfig
	rulePgSettings
	rulePrepare
	ruleDiscard
	ruleTemporary
	rulePgTemp
	ruleCursor
	ruleListen
	ruleLoad
	ruleSequence
	ruleLock

	ruleSetLocal
	ruleXactLock
	ruleUndo
	ruleFunction
	ruleDo
	ruleBody
	ruleColumnDefault
	ruleCurrval
	ruleProtocol
	ruleFastpath
	ruleTwoPhase
	ruleCopy
	ruleTransaction
	ruleNotify
	ruleLiteral
)

var rules = [...]Rule{
	ruleLongText: {
		Name: "long-text", Pins: true, Reason: reasonTooLong, Sure: Documented, Source: pinningPage,
		Covers:  "any statement of more than 16,384 bytes",
		Why:     "The page says 16 KB, the log 16384 bytes. The limit is for the whole text, bound parameters not counted (" + prismaIssue + ").",
		Instead: "Pass values as parameters ($1 with a slice and = any($1), unnest, or COPY) so that the text stays short; send a bulk load to the cluster endpoint.",
	},
	ruleSettings: {
		Name: "settings", Pins: true, Reason: reasonSettings, Sure: Documented, Source: pinningPage,
		Covers: "SET, SET SESSION, SET TIME ZONE, SET NAMES, SET ROLE, SET SESSION AUTHORIZATION, SET SESSION CHARACTERISTICS, " +
			"RESET, RESET ALL",
		Why:     "“Using SET commands”, “setting a parameter, or resetting it to its default value”. Log lines for several of them: " + prismaIssue + ".",
		Instead: "Move the setting to the proxy's initialization query, or to ALTER ROLE … SET.",
	},
	ruleSetConfig: {
		Name: "set-config", Pins: true, Reason: reasonSettings, Sure: Reported, Source: historyIssue,
		Covers: "set_config(name, value, is_local) anywhere in a statement, whatever is_local says",
		Why: "Documented for set_config. That is_local = true makes no difference is seen in that report: django-pghistory calls it with true, " +
			"and the log names the call. By parameters as well (https://richyen.com/postgres/2026/03/12/rds_proxy_pinning.html).",
		Instead: "In a transaction, call a stored function that calls set_config(…, true), which RDS Proxy does not look into; " +
			"or SET LOCAL. For the whole session: the proxy's initialization query.",
	},
	rulePgSettings: {
		Name: "pg-settings", Pins: true, Reason: reasonSettings, Sure: Assumed,
		Source:  "https://www.postgresql.org/docs/current/view-pg-settings.html",
		Covers:  "UPDATE pg_settings",
		Why:     "It does what SET does. If RDS Proxy did not notice, the setting would reach other clients, which is worse.",
		Instead: "Move the setting to the proxy's initialization query, or to ALTER ROLE … SET.",
	},
	rulePrepare: {
		Name: "prepare", Pins: true, Reason: reasonPrepare, Sure: Documented, Source: pinningPage,
		Covers: "PREPARE, EXECUTE, DEALLOCATE, also as EXPLAIN EXECUTE and CREATE TABLE … AS EXECUTE",
		Why:    "“Using PREPARE, DISCARD, DEALLOCATE, or EXECUTE commands to manage prepared statements.” The two combinations are assumed.",
		Instead: "Let the driver prepare with the protocol (pgx does by default), and close statements with it: never Conn.DeallocateAll, " +
			"which sends DEALLOCATE ALL.",
	},
	ruleDiscard: {
		Name: "discard", Pins: true, Reason: reasonDiscard, Sure: Documented, Source: pinningPage,
		Covers:  "DISCARD ALL, PLANS, SEQUENCES, TEMP",
		Why:     "Named twice, the second time for pools that send DISCARD ALL when a connection is given back.",
		Instead: "Switch the driver's reset on release off (Npgsql: No Reset On Close=true); the proxy resets its database connections itself.",
	},
	ruleTemporary: {
		Name: "temporary", Pins: true, Reason: reasonTemporary, Sure: Documented, Source: pinningPage,
		Covers:  "CREATE [GLOBAL | LOCAL] TEMP | TEMPORARY TABLE, VIEW, SEQUENCE, also AS SELECT and ON COMMIT DROP, and SELECT … INTO TEMP",
		Why:     "“Creating temporary sequences, tables, or views.”",
		Instead: "Use a CTE, unnest over parameters, or an UNLOGGED table with a key for each run; keep what needs a temporary table on the cluster endpoint.",
	},
	rulePgTemp: {
		Name: "pg-temp", Pins: true, Reason: reasonTemporary, Sure: Assumed, Source: pinningPage,
		Covers: "CREATE of anything by a name in the schema pg_temp, and SELECT INTO pg_temp.name",
		Why: "The same object by another spelling. A function or type in pg_temp is not in AWS's list, but is state of the session " +
			"all the same.",
		Instead: "As for temporary; create helper functions once, in a migration.",
	},
	ruleCursor: {
		Name: "cursor", Pins: true, Reason: reasonCursor, Sure: Documented, Source: pinningPage,
		Covers:  "DECLARE, WITH HOLD and without",
		Why:     "“Declaring cursors”, without an exception.",
		Instead: "Read the rows as they come (pgx does not buffer them), or page by key; keep a cursor that must be on the cluster endpoint.",
	},
	ruleListen: {
		Name: "listen", Pins: true, Reason: reasonListen, Sure: Documented, Source: pinningPage,
		Covers:  "LISTEN",
		Why:     "“Listening on a notification channel.”",
		Instead: "Open one connection to the cluster (writer) endpoint for LISTEN; NOTIFY may go through the proxy.",
	},
	ruleLoad: {
		Name: "load", Pins: true, Reason: reasonLoad, Sure: Documented, Source: pinningPage,
		Covers:  "LOAD",
		Why:     "“Loading a library module such as auto_explain.”",
		Instead: "Put the library in shared_preload_libraries or session_preload_libraries, or LOAD in the proxy's initialization query.",
	},
	ruleSequence: {
		Name: "sequence", Pins: true, Reason: reasonSequence, Sure: Documented, Source: pinningPage,
		Covers: "nextval(…), setval(…) anywhere in a statement's text",
		Why: "“Manipulating sequences using functions such as nextval and setval.” Where the text only stores the call (DEFAULT nextval(…) in " +
			"DDL, a view) or EXPLAIN does not run it, it is assumed to pin too: it is the text that is looked at.",
		Instead: "Leave the column to its default, serial or identity, and read it with INSERT … RETURNING; send migrations to the cluster endpoint.",
	},
	ruleLock: {
		Name: "lock", Pins: true, Reason: reasonLock, Sure: Documented, Source: pinningPage,
		Covers: "pg_advisory_lock, pg_advisory_lock_shared, pg_try_advisory_lock, pg_try_advisory_lock_shared",
		Why: "“Interacting with locks using functions such as pg_advisory_lock and pg_try_advisory_lock.” The shared ones are " +
			"not named, but the shared ones for a transaction are exempted by name.",
		Instead: "Use pg_advisory_xact_lock or pg_try_advisory_xact_lock in a transaction; send migrations to the cluster endpoint.",
	},
	ruleSetLocal: {
		Name: "set-local", Sure: Assumed, Source: toolkitPage,
		Covers: "SET LOCAL, SET TRANSACTION, SET CONSTRAINTS: pin with WithSetLocalPins only",
		Why: "AWS's list says “Using SET commands” and exempts none. AWS's toolkit for agents says SET LOCAL pins for the transaction only, " +
			"which holds its database connection anyway. No log line is known for any of the three.",
	},
	ruleXactLock: {
		Name: "xact-lock", Sure: Documented, Source: pinningPage,
		Covers: "pg_advisory_xact_lock, pg_try_advisory_xact_lock and their _shared forms",
		Why:    "Exempted by name.",
	},
	ruleUndo: {
		Name: "undo", Sure: Reported, Source: asyncpgIssue,
		Covers: "pg_advisory_unlock…, CLOSE, UNLISTEN",
		Why: "asyncpg's reset query is pg_advisory_unlock_all, CLOSE ALL, UNLISTEN *, RESET ALL; the reason logged is the one of RESET, " +
			"which comes last. Whoever has something to undo is pinned already.",
	},
	ruleFunction: {
		Name: "function", Sure: Documented, Source: pinningPage,
		Covers: "calls of stored functions and procedures, whatever they do inside; functions of the names above in schemas other than pg_catalog",
		Why: "“Stored functions and stored procedures don't cause pinning”, and a change of session state inside is not noticed: it can reach " +
			"other clients. WithStrictSessions reports that.",
	},
	ruleDo: {
		Name: "do", Sure: Assumed, Source: pinningPage,
		Covers: "DO blocks",
		Why: "The code is a string in the statement, as the body of a stored function is, and those are not looked into. " +
			"WithStrictSessions reports what it leaves behind.",
	},
	ruleBody: {
		Name: "body", Sure: Assumed, Source: pinningPage,
		Covers: "the body in CREATE FUNCTION and CREATE PROCEDURE: a string, RETURN …, or BEGIN ATOMIC … END",
		Why:    "Nothing in it runs yet, and when it does it is a stored function.",
	},
	ruleColumnDefault: {
		Name: "column-default", Sure: Documented, Source: pinningPage,
		Covers: "INSERT that leaves a serial, identity or DEFAULT nextval(…) column to the database",
		Why:    "The text has no call of nextval. What happens below the statement is no different from what a stored function does.",
	},
	ruleCurrval: {
		Name: "currval", Sure: Documented, Source: proxyPage,
		Covers: "currval(…), lastval()",
		Why:    "Not in the list; but “lastval() is not always accurate”: the connection may be another one by then. Use INSERT … RETURNING.",
	},
	ruleProtocol: {
		Name: "protocol", Sure: Documented, Source: extendedPage,
		Covers: "Parse, Bind, Describe, Execute, Close messages, named statements included",
		Why: "Multiplexed since November 2023; Close without a pin: " + psycopgIssue + ". A statement that pins does so at Execute; " +
			"at Parse there is a line at level INFO: " + prismaIssue + ".",
	},
	ruleFastpath: {
		Name: "fastpath", Sure: Assumed, Source: "https://www.postgresql.org/docs/current/protocol-flow.html",
		Covers: "FunctionCall messages (large objects in libpq and pgjdbc)",
		Why:    "They name a function by its OID. There is no text to look at.",
	},
	ruleTwoPhase: {
		Name: "two-phase", Sure: Assumed, Source: "https://www.postgresql.org/docs/current/sql-prepare-transaction.html",
		Covers: "PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED",
		Why:    "Not the PREPARE of the list, and the transaction is no longer the session's afterwards.",
	},
	ruleCopy: {
		Name: "copy", Sure: Reported, Source: toolkitPage,
		Covers: "COPY, in and out",
		Why:    "It leaves no pin. A query in COPY (…) TO is looked at like any other.",
	},
	ruleTransaction: {
		Name: "transaction", Sure: Documented, Source: "https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.howitworks.html",
		Covers: "BEGIN, START TRANSACTION with their modes, SAVEPOINT, RELEASE, COMMIT, ROLLBACK, LOCK TABLE",
		Why:    "A transaction keeps its database connection until it ends, and no longer.",
	},
	ruleNotify: {
		Name: "notify", Sure: Assumed, Source: "https://www.postgresql.org/docs/current/sql-notify.html",
		Covers: "NOTIFY, pg_notify(…)",
		Why:    "Not in the list; it leaves nothing in the session.",
	},
	ruleLiteral: {
		Name: "literal", Sure: Reported, Source: prismaIssue,
		Covers: "the words above in strings, dollar quotes, comments, quoted names, and as names of columns and tables",
		Why: "RDS Proxy's digests carry the marks of PostgreSQL's own parser (a value of two words becomes “$1 uncommitted”), " +
			"so it does not search for words.",
	},
}
