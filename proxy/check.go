package proxy

// Check walks the way of a connect step by step and says where it ends and why. The steps
// look; what is reported as the cause is the diagnosis of a connect, the same one that
// Connect makes, so that the two cannot disagree.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Status is how a step of a [Report] went.
type Status string

// How a step went.
const (
	StatusOK      Status = "ok"
	StatusWarning Status = "warning" // nothing that keeps a connect from succeeding, but worth a look
	StatusFailed  Status = "failed"
	StatusSkipped Status = "skipped" // not reached, or nothing to do
)

// Step is one step on the way to a connection.
type Step struct {
	Name    string        `json:"name"`
	Status  Status        `json:"status"`
	Summary string        `json:"summary"`
	Details []string      `json:"details,omitempty"`
	Took    time.Duration `json:"took_ns,omitempty"`
}

// Report is what [Check] has found. It holds no password, no secret and no token's
// signature.
type Report struct {
	Endpoint string `json:"endpoint,omitempty"` // host and port of the first host
	Kind     string `json:"kind,omitempty"`     // what its name says it is; see [Kind]
	User     string `json:"user,omitempty"`
	Database string `json:"database,omitempty"`
	Steps    []Step `json:"steps"`

	// Case is the failure's name in the catalogue, FAILURES.md, Cause the likely reason,
	// and Fix what to do about it. They are empty if the connect succeeded.
	Case  string `json:"case,omitempty"`
	Cause string `json:"cause,omitempty"`
	Fix   string `json:"fix,omitempty"`
	// Passing says of a failure that another attempt may end differently: NewPool and
	// Connect would go on trying.
	Passing bool `json:"passing,omitempty"`
}

// OK reports whether a connection could be made and used.
func (r *Report) OK() bool { return r.Case == "" }

// Step returns the step with this name, or a skipped one.
func (r *Report) Step(name string) Step {
	for _, s := range r.Steps {
		if s.Name == name {
			return s
		}
	}
	return Step{Name: name, Status: StatusSkipped}
}

// Check finds out whether [NewPool] and [Connect] can connect with this connection string and
// these options, and if not why. It goes through the connection string, the environment's PG*
// variables, DNS, TCP to each address, TLS, the credentials, one login, and behind an RDS
// Proxy the first statement; then it looks at the server's role, clock and settings.
//
// The error is what Connect returns, a [*ConfigError], a [*ConnectError], or one that wraps
// [ErrCredentials] where a secret should have named the host; it is nil if all is
// well. The report, which is never nil, holds the likely cause and the fix. Where Connect tries
// again, Check makes one attempt: [Report.Passing] tells that another may succeed.
//
// Check ends with ctx, and without a deadline in it when the attempt timeout
// ([WithAttemptTimeout]) has passed for each step, or for the first statement the connect budget
// ([WithConnectBudget]). It opens a connection to each address and one that logs in, and closes them.
// It sends nothing but SELECTs that pin no session
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-pinning.html).
func Check(ctx context.Context, connString string, opts ...Option) (*Report, error) {
	c := &check{report: &Report{}}
	err := c.run(ctx, connString, opts)
	c.complete()
	return c.report, err
}

// order is that of the steps.
var order = []string{
	stepParse, stepEnvironment, stepDNS, stepTCP, stepTLS, stepCredentials, stepStartup, stepLogin, stepBorrow, stepRole, stepSettings,
}

// check is one Check under way.
type check struct {
	report *Report
	*reading
	conn *connector
}

func (c *check) run(ctx context.Context, connString string, opts []Option) error {
	started := time.Now()
	r, err := read(ctx, connString, opts)
	if err == nil {
		c.reading = r
		c.conn, err = wire(r.cfg, r.options, r.settings)
	}
	if err != nil {
		c.misread(err)
		return err
	}
	first := c.conn.targets[0]
	c.report.Endpoint, c.report.Kind = first.hostPort(), first.endpoint.Kind.String()
	c.report.User, c.report.Database = c.conn.login.user, c.cfg.ConnConfig.Database
	c.add(Step{Name: stepParse, Status: StatusOK, Summary: c.whereTo(), Details: c.settings.tell(), Took: time.Since(started)})
	c.lookAround()
	for i := range c.conn.targets {
		c.probe(ctx, &c.conn.targets[i])
	}
	c.askSource(ctx, &c.conn.targets[0])
	return c.connect(ctx)
}

// misread reports a connection string, an option or the environment that is of no use.
func (c *check) misread(err error) {
	var (
		f   finding
		cfg *ConfigError
	)
	if errors.As(err, &cfg) {
		f = configTrouble(cfg)
	} else { // the secret that has the host
		f = diagnoseSource(err, login{})
	}
	c.fail(f, err)
	if name := f.trouble.entry().step; name != stepParse && c.report.Step(stepParse).Status == StatusSkipped {
		c.add(Step{Name: stepParse, Status: StatusOK, Summary: "well-formed"})
	}
}

// fail notes what has ended the way.
func (c *check) fail(f finding, err error) {
	e := f.trouble.entry()
	c.report.Case, c.report.Cause, c.report.Fix, c.report.Passing = e.name, f.why, f.fix, f.verdict.Retryable()
	if cfg := (*ConfigError)(nil); errors.As(err, &cfg) {
		c.report.Cause, c.report.Fix = cfg.Source+": "+cfg.Problem, cfg.Fix
	}
	step := c.report.Step(e.step)
	step.Status = StatusFailed
	if step.Summary = err.Error(); f.trouble >= hostUnknown {
		step.Summary = c.report.Cause
		if failed, ok := errors.AsType[*ConnectError](err); ok {
			err = failed.err // without the hint, which is said already
		}
		step.Details = append(step.Details, err.Error())
	}
	c.add(step)
}

// add puts a step into the report, in the place of one with the same name.
func (c *check) add(s Step) {
	i := slices.IndexFunc(c.report.Steps, func(one Step) bool { return one.Name == s.Name })
	if i < 0 {
		c.report.Steps = append(c.report.Steps, s)
		return
	}
	c.report.Steps[i] = s
}

// complete puts the steps in order and adds those that were not reached.
func (c *check) complete() {
	steps := make([]Step, 0, len(order))
	for _, name := range order {
		step := c.report.Step(name)
		if step.Summary == "" {
			step.Summary = "not reached"
		}
		steps = append(steps, step)
	}
	c.report.Steps = steps
}

// whereTo is the connection string in words.
func (c *check) whereTo() string {
	var places []string
	for _, t := range c.conn.targets {
		what := t.endpoint.Kind.String()
		if t.endpoint.Kind == KindOther {
			what = "not an RDS endpoint"
		}
		if t.endpoint.Region != "" {
			what += " in " + t.endpoint.Region
		}
		places = append(places, t.hostPort()+" ("+what+")")
	}
	user := "as " + quote(c.conn.login.user)
	if c.conn.login.user == "" {
		user = "as the user that the source of credentials names"
	}
	return fmt.Sprintf("database %s on %s %s", quote(c.cfg.ConnConfig.Database), strings.Join(places, ", "), user)
}

// secretKeys are the settings whose values nobody may see.
var secretKeys = []string{"password", "sslpassword"}

// tell lists the settings, each with the place it came from.
func (s settings) tell() []string {
	var lines []string
	for key, one := range s {
		value := one.value
		switch {
		case value == "":
			continue
		case slices.Contains(secretKeys, key):
			value = "(not shown)"
		}
		lines = append(lines, fmt.Sprintf("%s = %s (%s)", key, value, one.source))
	}
	slices.Sort(lines)
	return lines
}

// lookAround reports the PG* variables: which of them count and which do not.
func (c *check) lookAround() {
	step := Step{Name: stepEnvironment, Status: StatusOK, Summary: "no PG* variable changes the connection"}
	var leaks []string
	tell := func(variable, key, why string) {
		value, ok := os.LookupEnv(variable)
		if !ok || value == "" {
			return
		}
		if slices.Contains(secretKeys, key) {
			value = "(not shown)"
		}
		if c.settings[key].source == variable {
			leaks = append(leaks, variable)
			step.Status, why = StatusWarning, "used"
		}
		step.Details = append(step.Details, fmt.Sprintf("%s = %s (%s)", variable, value, why))
	}
	for _, e := range environment {
		tell(e.variable, e.key, "not used: the connection string says it")
	}
	for _, variable := range []string{"PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGDATABASE"} {
		tell(variable, "", "not used: the connection string decides")
	}
	for variable, key := range passwordVariables {
		tell(variable, key, "not used")
	}
	if leaks != nil {
		step.Summary = "set here and not in the connection string: " + strings.Join(leaks, ", ")
	}
	c.add(step)
}

// connect makes the connection, and looks at what is behind it.
func (c *check) connect(ctx context.Context) error {
	cfg := c.cfg.ConnConfig.Copy()
	who := c.conn.login
	who.once = true
	cfg.DialFunc = c.conn.dialer(who)
	started := time.Now()
	conn, err := connectThrough(ctx, cfg, nil)
	took := time.Since(started)
	if err != nil {
		c.refused(err, took)
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
		defer cancel()
		_ = conn.Close(ctx)
	}()
	c.passed(took, conn.PgConn().ParameterStatus("server_version"))
	return c.interview(ctx, conn.PgConn())
}

// refused reports a connect that failed.
func (c *check) refused(err error, took time.Duration) {
	failed, ok := errors.AsType[*ConnectError](err)
	if !ok {
		c.fail(unexpected.found(), err)
		return
	}
	f := failed.found
	c.fail(f, err)
	at := slices.Index(order, f.trouble.entry().step)
	if at > slices.Index(order, stepStartup) {
		c.add(c.parameters())
	}
	if at > slices.Index(order, stepLogin) {
		c.add(Step{Name: stepLogin, Status: StatusOK, Summary: "logged in"})
	}
	if at >= slices.Index(order, stepStartup) {
		step := c.report.Step(order[at])
		step.Took = took
		c.add(step)
	}
}

// passed reports a login that succeeded.
func (c *check) passed(took time.Duration, version string) {
	c.add(c.parameters())
	summary := fmt.Sprintf("logged in as %s; the server says it is PostgreSQL %s", quote(c.report.User), version)
	c.add(Step{Name: stepLogin, Status: StatusOK, Summary: summary, Took: took})
}

func (c *check) parameters() Step {
	step := Step{Name: stepStartup, Status: StatusOK, Summary: "no startup parameters beside user and database"}
	for name, value := range c.conn.login.params {
		step.Details = append(step.Details, fmt.Sprintf("%s = %s (%s)", name, value, c.settings.sourceOf(name)))
	}
	if n := len(step.Details); n > 0 {
		slices.Sort(step.Details)
		step.Summary = fmt.Sprintf("%d startup parameters, taken", n)
	}
	return step
}
