package integration

// proxy.Check against a real PostgreSQL, and against an RDS Proxy in front of one.

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

func checkText(tb testing.TB, report *proxy.Report) string {
	tb.Helper()
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

// All is well behind an RDS Proxy: nothing is pinned, and nothing is left.
func TestCheckThroughAProxy(t *testing.T) {
	t.Parallel()
	px, url, _ := startProxy(t)
	report, err := proxy.Check(t.Context(), url, signedBy(px))
	if err != nil || !report.OK() {
		t.Fatalf("%v\n%s", err, checkText(t, report))
	}
	proxytest.RequireNoPins(t, px)
	waitFor(t, "client connections to close", func() bool { return px.Stats().ClientConnections == 0 })
	text := checkText(t, report)
	t.Log(text)
	for _, step := range report.Steps {
		want := proxy.StatusOK
		if step.Name == "DNS" { // hostaddr leads to the listener
			want = proxy.StatusSkipped
		}
		if step.Status != want {
			t.Errorf("%s: %s, want %s: %s", step.Name, step.Status, want, step.Summary)
		}
	}
	for _, want := range []string{
		"sslmode = verify-full (connection string)", "certificate verified by a root of " + px.CAFile(), "token for user", "AWS credentials from",
		"lends a database connection", "a writer", "max_connections = ", "idle_in_transaction_session_timeout = ", "clock is ahead",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if strings.Contains(text, "X-Amz") || strings.Contains(text, px.Credentials().SecretAccessKey) {
		t.Error("it shows a token or a key")
	}
}

// All is well without a proxy, and no session is left.
func TestCheckOfPostgreSQL(t *testing.T) {
	t.Parallel()
	dsn := database(t, shared)
	report, err := proxy.Check(t.Context(), dsn)
	if err != nil || !report.OK() || report.Step("role").Summary != "a writer" {
		t.Fatalf("%v\n%s", err, checkText(t, report))
	}
	if strings.Contains(checkText(t, report), appPassword) {
		t.Error("it shows the password")
	}
	waitFor(t, "the session to end", func() bool { return sessions(t, name(t, dsn)) == 0 })

	admin(t, shared, "alter database "+name(t, dsn)+" set default_transaction_read_only to on")
	report, err = proxy.Check(t.Context(), dsn)
	if err != nil || report.Step("role").Status != proxy.StatusWarning || report.Step("settings").Status != proxy.StatusWarning {
		t.Errorf("read-only by default: %v\n%s", err, checkText(t, report))
	}
}

// What a real server says of what is wrong.
func TestCheckOfWhatPostgreSQLRefuses(t *testing.T) {
	t.Parallel()
	dsn := database(t, shared)
	db := name(t, dsn)
	role := "refused_" + strings.ToLower(db)
	admin(t, shared, "create role "+role+"_nologin password '"+appPassword+"'")
	admin(t, shared, "create role "+role+"_full login connection limit 0 password '"+appPassword+"'")
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), shared.DSN())
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(context.Background(), "drop role "+role+"_nologin, "+role+"_full"); err != nil {
			t.Error(err)
		}
	})
	closed, full := name(t, database(t, shared)), name(t, database(t, shared))
	admin(t, shared, "revoke connect on database "+closed+" from public, "+appUser)
	admin(t, shared, "alter database "+closed+" owner to postgres")
	admin(t, shared, "alter database "+full+" connection limit 0")
	with := func(user, password, database, query string) string {
		u, err := url.Parse(dsn)
		if err != nil {
			t.Fatal(err)
		}
		u.User, u.Path = url.UserPassword(user, password), "/"+database
		q := u.Query()
		if key, value, ok := strings.Cut(query, "="); ok {
			q.Set(key, value)
		}
		u.RawQuery = q.Encode()
		return u.String()
	}
	for want, conn := range map[string]string{
		"password-rejected":             with(appUser, "wrong-Passw0rd", db, ""),
		"role-may-not-log-in":           with(role+"_nologin", appPassword, db, ""),
		"too-many-connections-role":     with(role+"_full", appPassword, db, ""),
		"too-many-connections-database": with(appUser, appPassword, full, ""),
		"connect-not-granted":           with(appUser, appPassword, closed, ""),
		"database-not-found":            with(appUser, appPassword, "nowhere", ""),
		"startup-parameter-unknown":     with(appUser, appPassword, db, "work_memory=5MB"),
		"startup-parameter-invalid":     with(appUser, appPassword, db, "statement_timeout=soon"),
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			report, err := proxy.Check(t.Context(), conn, proxy.WithAttemptTimeout(10*time.Second))
			if err == nil || report.Case != want {
				t.Errorf("%v\n%s", err, checkText(t, report))
			}
			if text := checkText(t, report); strings.Contains(text, "Passw0rd") {
				t.Errorf("it shows the password:\n%s", text)
			}
		})
	}
}

// Behind an RDS Proxy whose database is gone, a login succeeds and a statement does not.
func TestCheckOfAProxyWithoutAWorkingDatabase(t *testing.T) {
	t.Parallel()
	dsn := database(t, shared)
	px := proxytest.NewProxy(t, strings.Replace(dsn, appPassword, "wrong-Passw0rd", 1), proxytest.WithBorrowTimeout(time.Second))
	report, err := proxy.Check(t.Context(), px.URL(appUser, name(t, dsn)), signedBy(px))
	if err == nil || report.Case != "proxy-secret-stale" && report.Case != "borrow-timeout" || report.Step("TLS").Status != proxy.StatusOK {
		t.Errorf("%v\n%s", err, checkText(t, report))
	}
}
