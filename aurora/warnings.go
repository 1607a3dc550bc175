package aurora

// What is allowed and may still not be what was meant.

import (
	"fmt"
	"time"
)

const docAlterRole = "https://www.postgresql.org/docs/current/sql-alterrole.html"

// Warning is something that works and costs, or works less well than it could.
type Warning struct {
	Field  string `json:"field"`
	Reason string `json:"reason"`
	Doc    string `json:"doc"`
}

// Warnings tells what is worth a second look in a Spec that [Spec.Validate] accepts.
func (s Spec) Warnings() []Warning {
	given := s
	s = s.WithDefaults()
	var all []Warning
	warn := func(is bool, field, reason, doc string) {
		if is {
			all = append(all, Warning{field, reason, doc})
		}
	}
	version, _ := parseEngine(s.Engine)
	warn(!version.known(), "Engine", "the version is not in the table of "+EnginesAsOf+": AWS may not offer it", RuleEngineRetired.Doc())
	warn(version.major >= 18 && s.DataAPI, "DataAPI", "whether the Data API is there for PostgreSQL 18 was not documented on "+EnginesAsOf, docDataAPI)
	warn(s.Capacity.Min < 1 && s.Capacity.Max > 9.5, "Capacity.Min", "with a minimum below 1 ACU the number of connections is capped at 2,000; a maximum of 16 ACU alone would allow 3,360", docCapacity)
	warn(s.Capacity.Min < 2 && !s.Insights.Off && !s.Disposable, "Capacity.Min", "AWS recommends at least 2 ACU with Database Insights, which need memory of their own", docCapacity)
	warn(s.WriterOnly && !s.Disposable, "WriterOnly", "without a reader a failed writer is recreated, which takes up to 10 minutes", RuleReaders.Doc())
	warn(s.Proxy.Off && s.Auth == IAM, "Proxy.Off", "clients of the cluster's own endpoint need the RDS root certificates: sslrootcert in the connection string, or PGSSLROOTCERT", docAUG+"UsingWithRDS.SSL.html")
	warn(!s.Proxy.Off && s.Disposable, "Proxy", "RDS Proxy is charged for at least 8 ACU, more than a small cluster itself", "https://aws.amazon.com/rds/proxy/pricing/")
	warn(s.Proxy.DebugLogging, "Proxy.DebugLogging", "statements go to the log with their texts; RDS Proxy switches it off after a day", docAUG+"rds-proxy.troubleshooting.html")
	for _, of := range [][2]string{{"idle_in_transaction_session_timeout", "IdleInTransactionTimeout"}, {"statement_timeout", "StatementTimeout"}} {
		_, is := s.Proxy.Session[of[0]]
		warn(is && !s.Proxy.Off, fmt.Sprintf("Proxy.Session[%q]", of[0]), "it takes the place of every user's "+of[1]+"; leave it to that", docAlterRole)
	}
	warn(s.Proxy.Off && !(given.Proxy.isZero()), "Proxy", "the proxy is off, so its other fields do nothing", docProxy)
	warn(s.Proxy.Off && len(s.Network.DirectSecurityGroups) > 0, "Network.DirectSecurityGroups", "without a proxy there is no way past it, so these may not connect; write them to ClientSecurityGroups", RuleNetwork.Doc())
	warn(s.Auth == IAM && given.Rotation != Rotation{}, "Rotation", "with IAM there are no secrets of users to rotate", RuleAuth.Doc())
	warn(s.Auth == Secrets && s.Rotation.Off, "Rotation.Off", "the passwords stay as they were generated", docRotation)
	warn(s.BootstrapAtDeploy && s.Auth == Secrets && !s.rotatesInStack(), "Rotation", "nothing in the stack tells the database the users' passwords: without the stack's own rotation that is up to you", docRotation)
	warn(s.Auth == Secrets && !s.Rotation.Off && s.Rotation.Every > 90*24*time.Hour, "Rotation.Every", "the passwords stay for more than 90 days", docRotation)
	warn(!s.Alarms.Off && s.Alarms.TopicARN == "", "Alarms.TopicARN", "nobody hears of the alarms", RuleAlarm.Doc())
	warn(s.Alarms.Off && !s.Disposable, "Alarms.Off", "nothing tells of pinned sessions, full capacity or failed logins", docProxyMetrics)
	warn(s.Backup.Days < 7 && !s.Disposable, "Backup.Days", "the cluster can be restored to the last few days only", RuleBackup.Doc())
	warn(len(s.Overrides) > 0, "Overrides", "overrides are checked against the rules, not against what CloudFormation accepts", docTemplateReference)
	return all
}

// isZero reports whether nothing was set but Off.
func (p Proxy) isZero() bool {
	return p.MaxConnectionsPercent == 0 && p.MaxIdleConnectionsPercent == 0 && p.BorrowTimeout == 0 && p.IdleClientTimeout == 0 &&
		len(p.Session) == 0 && !p.NoReaderEndpoint && !p.DebugLogging
}
