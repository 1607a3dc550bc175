package proxy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/secrets/secretstest"
)

// Each case of the catalogue is named for what it is, with a cause and a fix.
func TestEachCaseIsNamed(t *testing.T) {
	clearEnvironment(t)
	for _, entry := range proxy.Catalogue() {
		provoke, ok := provocations[entry.Case]
		if !ok {
			t.Errorf("nothing provokes %s", entry.Case)
			continue
		}
		t.Run(entry.Case, func(t *testing.T) {
			p := provoke(t)
			opts := append([]proxy.Option{proxy.WithAttemptTimeout(400 * time.Millisecond), proxy.WithConnectBudget(600 * time.Millisecond)}, p.opts...)
			report, err := proxy.Check(t.Context(), p.conn, opts...)
			if err == nil || report.OK() {
				t.Fatalf("nothing is wrong: %v\n%s", err, shown(t, report))
			}
			t.Logf("%v\n%s: %s", err, report.Cause, report.Fix)
			if report.Case != entry.Case {
				t.Fatalf("it is called %s\n%s", report.Case, shown(t, report))
			}
			if report.Step(entry.Step).Status != proxy.StatusFailed {
				t.Errorf("step %s has not failed:\n%s", entry.Step, shown(t, report))
			}
			if report.Cause == "" || report.Fix == "" || strings.ContainsAny(report.Cause+report.Fix, "{}") && entry.Case != "secret-unusable" {
				t.Errorf("cause %q, fix %q", report.Cause, report.Fix)
			}
			var (
				connectErr *proxy.ConnectError
				configErr  *proxy.ConfigError
			)
			if errors.As(err, &connectErr) && connectErr.Case != entry.Case || connectErr == nil && !errors.As(err, &configErr) {
				t.Errorf("%T: %v", err, err)
			}
			if text := shown(t, report) + err.Error(); strings.Contains(text, password) || strings.Contains(text, "X-Amz-Signature") {
				t.Errorf("a secret is shown:\n%s", text)
			}
		})
	}
	for name := range provocations {
		if !slices.ContainsFunc(proxy.Catalogue(), func(e proxy.CatalogueEntry) bool { return e.Case == name }) {
			t.Errorf("the catalogue has no case %s", name)
		}
	}
}

func shown(t *testing.T, report *proxy.Report) string {
	t.Helper()
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// interviewed lets anybody in and answers the questions of a Check.
func interviewed(recovery, readOnly string, clock time.Duration) func(*dialogue) {
	return func(d *dialogue) {
		if _, err := d.startup(); err != nil {
			return
		}
		d.Send(&pgproto3.AuthenticationOk{})
		d.Send(&pgproto3.ParameterStatus{Name: "server_version", Value: "17.9"})
		d.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		_ = d.Flush()
		for {
			msg, err := d.Receive()
			query, ok := msg.(*pgproto3.Query)
			if err != nil || !ok {
				return
			}
			row := []string{"17.9", "100", "0", "0", readOnly, recovery}
			if strings.Contains(query.String, "clock_timestamp") {
				row = []string{fmt.Sprintf("%.6f", float64(time.Now().Add(clock).UnixMicro())/1e6), recovery, readOnly}
			}
			var (
				fields pgproto3.RowDescription
				values pgproto3.DataRow
			)
			for _, v := range row {
				fields.Fields = append(fields.Fields, pgproto3.FieldDescription{Name: []byte("?"), DataTypeOID: 25, DataTypeSize: -1, TypeModifier: -1})
				values.Values = append(values.Values, []byte(v))
			}
			d.Send(&fields)
			d.Send(&values)
			d.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
			d.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
			_ = d.Flush()
			d.server.statements.Add(1)
		}
	}
}

// What does not keep a connect from succeeding is a warning.
func TestCheckWarns(t *testing.T) {
	clearEnvironment(t)
	for name, tt := range map[string]struct {
		script func(*dialogue)
		query  string
		env    map[string]string
		opts   []proxy.Option
		step   string
		status proxy.Status
		want   string
	}{
		"all is well":             {script: interviewed("f", "off", 0), step: "role", status: proxy.StatusOK, want: "a writer"},
		"the clock is behind":     {script: interviewed("f", "off", 10*time.Minute), step: "settings", status: proxy.StatusWarning, want: "10m0s apart"},
		"the clock is ahead":      {script: interviewed("f", "off", -time.Minute), step: "settings", status: proxy.StatusWarning, want: "1m0s apart"},
		"a reader":                {script: interviewed("t", "on", 0), step: "role", status: proxy.StatusWarning, want: "writes fail with 25006"},
		"read-only by default":    {script: interviewed("f", "on", 0), step: "settings", status: proxy.StatusWarning, want: "default_transaction_read_only"},
		"a server of few words":   {script: login, step: "borrow", status: proxy.StatusWarning, want: "without saying"},
		"nobody checks":           {script: interviewed("f", "off", 0), query: "?sslmode=require", step: "TLS", status: proxy.StatusWarning, want: "nobody checks the certificate"},
		"no TLS":                  {script: interviewed("f", "off", 0), step: "TLS", status: proxy.StatusSkipped, want: "sslmode=disable (default)"},
		"a variable is used":      {script: interviewed("f", "off", 0), env: map[string]string{"PGAPPNAME": "psql"}, step: "environment", status: proxy.StatusWarning, want: "PGAPPNAME = psql (used)"},
		"a parameter and whence":  {script: interviewed("f", "off", 0), env: map[string]string{"PGTZ": "UTC"}, step: "startup", status: proxy.StatusOK, want: "timezone = UTC (PGTZ)"},
		"a variable is not used":  {script: interviewed("f", "off", 0), env: map[string]string{"PGHOST": "elsewhere"}, step: "environment", status: proxy.StatusOK, want: "PGHOST = elsewhere (not used"},
		"a password is not shown": {script: interviewed("f", "off", 0), env: map[string]string{"PGPASSWORD": password}, step: "environment", status: proxy.StatusOK, want: "PGPASSWORD = (not shown)"},
		"the only reader is the writer": {
			script: interviewed("f", "off", 0), opts: []proxy.Option{proxy.WithEndpointKind(proxy.KindReader), trusted(t)},
			step: "role", status: proxy.StatusWarning, want: "no reader just now",
		},
		"whose root it is": {
			script: interviewed("f", "off", 0), opts: []proxy.Option{proxy.WithEndpointKind(proxy.KindProxy), trusted(t)},
			step: "TLS", status: proxy.StatusOK, want: "a root of WithRootCAs",
		},
	} {
		t.Run(name, func(t *testing.T) {
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			s := newScripted(t, tt.script)
			report, err := proxy.Check(t.Context(), s.dsn()+tt.query, tt.opts...)
			if err != nil || !report.OK() {
				t.Fatalf("%v\n%s", err, shown(t, report))
			}
			step := report.Step(tt.step)
			if text := step.Summary + strings.Join(step.Details, " "); step.Status != tt.status || !strings.Contains(text, tt.want) {
				t.Errorf("%s: %s; want %s, %q", step.Status, text, tt.status, tt.want)
			}
			if text := shown(t, report); strings.Contains(text, password) {
				t.Errorf("the password is shown:\n%s", text)
			}
			for s.open.Load() > 0 { // nothing is left open
				time.Sleep(time.Millisecond)
			}
		})
	}
}

// Of several hosts each is looked at.
func TestCheckOfSeveralHosts(t *testing.T) {
	t.Parallel()
	s := newScripted(t, interviewed("f", "off", 0))
	conn := "host=127.0.0.1,127.0.0.1 port=1," + s.port() + " user=app password=" + password + " dbname=orders"
	report, err := proxy.Check(t.Context(), conn)
	if step := report.Step("TCP"); err != nil || step.Status != proxy.StatusWarning || len(step.Details) < 3 {
		t.Errorf("%v\n%s", err, shown(t, report))
	}
}

// A secret that should have told the host is named, as with NewPool.
func TestCheckOfASecretThatShouldTellTheHost(t *testing.T) {
	t.Parallel()
	srv := secretstest.NewServer(t)
	report, err := proxy.Check(t.Context(), "postgres:///?secret=none", proxy.WithAWSConfig(srv.Config()))
	if !errors.Is(err, proxy.ErrCredentials) || report.Case != "secret-not-found" || report.Step("credentials").Status != proxy.StatusFailed {
		t.Errorf("%v\n%s", err, shown(t, report))
	}
}

// A context that has ended ends a Check at once, and it still says how far it came.
func TestCheckEndsWithItsContext(t *testing.T) {
	t.Parallel()
	s := newScripted(t, silent)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	report, err := proxy.Check(ctx, s.dsn()+"?sslmode=verify-full")
	if !errors.Is(err, context.DeadlineExceeded) || report.OK() || report.Step("parse").Status != proxy.StatusOK {
		t.Errorf("%v\n%s", err, shown(t, report))
	}
}
