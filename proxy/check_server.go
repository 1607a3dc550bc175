package proxy

// The steps of a Check about who logs in, and what it finds behind the login.

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aurorapgx/aurorapgx/secrets"
)

// askSource gets credentials, as a connect would, and says what they are.
func (c *check) askSource(ctx context.Context, t *target) {
	ctx, cancel := context.WithTimeout(ctx, c.conn.attempt)
	defer cancel()
	who := &c.conn.login
	started := time.Now()
	creds, err := who.source(ctx, *t, who.user)
	step := Step{Name: stepCredentials, Status: StatusOK, Took: time.Since(started)}
	switch {
	case err != nil:
		step.Status, step.Summary = StatusWarning, err.Error()
	case who.iam != nil:
		step.Summary = "an IAM token, signed here"
	case who.fixed && creds.Password == "":
		step.Summary = "user " + quote(creds.User) + " without a password"
	case who.fixed && !c.settings.has("password"):
		step.Summary = fmt.Sprintf("user %s with a password from the password file", quote(creds.User))
	case who.fixed:
		step.Summary = fmt.Sprintf("user %s with the password from %s", quote(creds.User), c.settings.sourceOf("password"))
	case who.describe != nil:
		step.Summary = who.describe.String()
	default:
		step.Summary = "the source given to WithCredentials"
	}
	if err == nil {
		if creds.User != "" {
			c.report.User = creds.User
		}
		if who.rotation != nil {
			who.rotation.named(creds.User)
		}
		step.Details = append(step.Details, describeCredentials(creds, c.report.User)...)
		if who.iam != nil {
			step.Details = append(step.Details, who.iam.describe(ctx)...)
		}
	}
	c.add(step)
}

// describeCredentials are the claims of a token, without its signature.
func describeCredentials(creds secrets.Credentials, user string) []string {
	lines := []string{"user " + quote(user)}
	token, ok := readToken(creds.Password)
	if !ok || token.malformed {
		return lines
	}
	return append(lines,
		fmt.Sprintf("token for user %s, host %s, region %s", quote(token.user), token.host, token.region),
		fmt.Sprintf("token signed at %s with access key %s, valid for 15 minutes", token.signed.Format(time.RFC3339), token.key))
}

// describe says with which AWS credentials tokens are signed.
func (s *iamSigner) describe(ctx context.Context) []string {
	provider, err := s.load(ctx)
	if err != nil {
		return nil
	}
	creds, err := provider.Retrieve(ctx)
	if err != nil {
		return nil
	}
	line := "AWS credentials from " + cmp.Or(creds.Source, "an unnamed provider")
	if creds.AccountID != "" {
		line += ", account " + creds.AccountID
	}
	if creds.SessionToken != "" {
		line += ", temporary"
	}
	if creds.CanExpire {
		line += ", until " + creds.Expires.UTC().Format(time.RFC3339)
	}
	return []string{line}
}

// firstQuery makes an RDS Proxy lend a database connection.
const firstQuery = "select pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()), pg_catalog.pg_is_in_recovery(), " +
	"pg_catalog.current_setting('transaction_read_only')"

// settingsQuery asks for what matters to an application.
const settingsQuery = "select pg_catalog.current_setting('server_version'), pg_catalog.current_setting('max_connections'), " +
	"pg_catalog.current_setting('idle_in_transaction_session_timeout'), pg_catalog.current_setting('statement_timeout'), " +
	"pg_catalog.current_setting('default_transaction_read_only'), pg_catalog.current_setting('in_hot_standby', true)"

var settingNames = []string{
	"server_version", "max_connections", "idle_in_transaction_session_timeout", "statement_timeout", "default_transaction_read_only", "in_hot_standby",
}

// interview asks the server.
func (c *check) interview(ctx context.Context, pc *pgconn.PgConn) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.conn.budget, errBudget)
	defer cancel()
	kind := c.conn.targets[0].endpoint.Kind
	started := time.Now()
	row, err := askRow(ctx, pc, firstQuery)
	took := time.Since(started)
	if err != nil {
		return c.noBorrow(ctx, err, started)
	}
	borrow := Step{Name: stepBorrow, Status: StatusOK, Summary: "the first statement is answered", Took: took}
	if kind.IsProxy() {
		borrow.Summary = "the proxy lends a database connection"
	}
	if len(row) < 3 {
		borrow.Status, borrow.Summary = StatusWarning, "the server answers without saying what it was asked"
		c.add(borrow)
		return nil
	}
	c.add(borrow)
	c.role(kind, row[1] == "t", row[2] == "on")

	started = time.Now()
	values, err := askRow(ctx, pc, settingsQuery)
	took = time.Since(started)
	step := Step{Name: stepSettings, Status: StatusOK, Summary: "nothing unusual", Took: took}
	if err != nil {
		step.Status, step.Summary = StatusWarning, err.Error()
		c.add(step)
		return nil
	}
	for i, value := range values {
		if value != "" && i < len(settingNames) {
			step.Details = append(step.Details, settingNames[i]+" = "+value)
		}
	}
	step.Details = append(step.Details, fmt.Sprintf("round trip of a statement %s", took.Round(time.Microsecond)))
	if len(values) > 4 && values[4] == "on" {
		step.Status, step.Summary = StatusWarning, "default_transaction_read_only is on: writes fail with 25006"
	}
	if skew, ok := skewOf(row[0], started); ok {
		step.Details = append(step.Details, fmt.Sprintf("this machine's clock is ahead of the server's by %s", skew.Round(time.Millisecond)))
		if skew.Abs() > tolerableSkew {
			step.Status = StatusWarning
			step.Summary = fmt.Sprintf("the clocks of this machine and the server are %s apart; IAM tokens bear no more than 5 minutes", skew.Abs().Round(time.Second))
		}
	}
	c.add(step)
	return nil
}

const tolerableSkew = 30 * time.Second

// skewOf is by how much this machine's clock is ahead of a server that said what time it was
// shortly before now.
func skewOf(epoch string, now time.Time) (time.Duration, bool) {
	seconds, err := strconv.ParseFloat(epoch, 64)
	if err != nil {
		return 0, false
	}
	return now.Sub(time.UnixMicro(int64(seconds * 1e6))), true
}

// noBorrow reports a connection that can be had and not used.
func (c *check) noBorrow(ctx context.Context, err error, started time.Time) error {
	t := &c.conn.targets[0]
	err = attemptError(ctx, err, true)
	f := diagnose(err, t.endpoint.Kind)
	tries := &attempts{login: c.conn.login, count: 1}
	tries.last.User = c.report.User
	failed := c.conn.describe(t, tries, started, f, err)
	c.fail(f, failed)
	return failed
}

// role says whether this is a writer, and whether it should be.
func (c *check) role(kind Kind, recovering, readOnly bool) {
	step := Step{Name: stepRole, Status: StatusOK, Summary: "a writer"}
	switch {
	case recovering:
		step.Summary = "a reader"
		if kind == KindProxy || kind == KindOther {
			step.Status, step.Summary = StatusWarning, "a reader: writes fail with 25006"
		}
	case kind == KindReader:
		step.Status, step.Summary = StatusWarning, "the writer, behind a reader endpoint: the cluster has no reader just now"
	case readOnly:
		step.Status, step.Summary = StatusWarning, "a writer whose transactions are read-only by default"
	}
	c.add(step)
}

// askRow runs a statement that returns a row, and nothing that outlives it.
func askRow(ctx context.Context, pc *pgconn.PgConn, sql string) ([]string, error) {
	results, err := pc.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return nil, nil
	}
	row := make([]string, 0, len(results[0].Rows[0]))
	for _, value := range results[0].Rows[0] {
		row = append(row, string(value))
	}
	return row, nil
}
