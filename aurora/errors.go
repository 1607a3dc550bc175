package aurora

import "fmt"

// FieldError is one thing that is wrong with a [Spec]. [Spec.Validate] joins them;
// errors.As finds the first, and errors.Is tells the rules apart:
//
//	errors.Is(err, aurora.RuleAutoPauseBehindProxy)
type FieldError struct {
	Field  string // path in the Spec, as "Capacity.Min", or in the template, as "Cluster.StorageEncrypted"
	Rule   Rule   // which rule it breaks
	Reason string // what is wrong and what to write instead
	Doc    string // the document that says so
}

func (e *FieldError) Error() string {
	return fmt.Sprintf("aurora: %s: %s (%s)", e.Field, e.Reason, e.Doc)
}

// Unwrap makes errors.Is(err, rule) work.
func (e *FieldError) Unwrap() error { return e.Rule }

// Rule is a rule that [Spec.Validate] enforces. As an error it matches the
// FieldErrors of that rule.
type Rule string //nolint:errname // a rule first; it is an error so that errors.Is can name it

func (r Rule) Error() string { return "aurora: rule " + string(r) }

// Doc is the document a rule comes from.
func (r Rule) Doc() string { return ruleDocs[r] }

// The rules.
//
//nolint:errname // see Rule
const (
	RuleName                 Rule = "name"                    // names that AWS, PostgreSQL or IAM would refuse
	RuleEngine               Rule = "engine"                  // not an Aurora PostgreSQL version
	RuleEngineRetired        Rule = "engine-retired"          // a version AWS no longer offers
	RuleEngineFeature        Rule = "engine-feature"          // a feature the version does not have
	RuleCapacity             Rule = "capacity"                // outside of 0.5 to 256 ACU, not in steps of 0.5, or minimum above maximum
	RuleAutoPause            Rule = "auto-pause"              // outside of 5 minutes to a day, or with a minimum above 0
	RuleAutoPauseBehindProxy Rule = "auto-pause-behind-proxy" // would never pause
	RuleAlternatingRotation  Rule = "alternating-rotation"    // breaks the proxy's sessions
	RuleRotation             Rule = "rotation"                // a schedule Secrets Manager refuses
	RuleReaders              Rule = "readers"                 // too many, or a tier that does not exist
	RuleInsights             Rule = "insights"                // a retention that does not exist, or too short for the advanced mode
	RuleBorrowTimeout        Rule = "borrow-timeout"          // longer than RDS Proxy allows
	RuleProxyTimeout         Rule = "proxy-timeout"           // an idle timeout RDS Proxy does not allow
	RuleConnectionsPercent   Rule = "connections-percent"     // a share outside of 1 to 100
	RuleSession              Rule = "session"                 // an init query that would not run
	RuleSubnets              Rule = "subnets"                 // fewer than two subnets or zones
	RuleZone                 Rule = "zone"                    // an availability zone without RDS Proxy
	RuleNetwork              Rule = "network"                 // ids that are none
	RuleEncryption           Rule = "encryption"              // storage not encrypted, or a key that is none
	RuleMasterPassword       Rule = "master-password"         // a password in the template
	RuleTLS                  Rule = "tls"                     // a server that would accept plaintext
	RulePublic               Rule = "public"                  // an instance with a public address
	RulePolicyScope          Rule = "policy-scope"            // a wildcard where one user or secret is meant
	RulePolicyAction         Rule = "policy-action"           // an action that does not exist
	RuleUsers                Rule = "users"                   // twice the same, too many, or an access that does not exist
	RuleTimeout              Rule = "timeout"                 // a timeout PostgreSQL does not take
	RuleBackup               Rule = "backup"                  // a retention or window RDS does not take
	RuleLogs                 Rule = "logs"                    // a retention CloudWatch Logs does not know
	RuleAlarmPeriod          Rule = "alarm-period"            // not whole minutes
	RuleAlarm                Rule = "alarm"                   // a threshold that could never or would always alarm
	RuleTags                 Rule = "tags"                    // tags AWS refuses
	RuleAuth                 Rule = "auth"                    // neither IAM nor Secrets
	RuleOverride             Rule = "override"                // an override that cannot be applied or checked
	RuleReference            Rule = "reference"               // a reference to what is not there, or in a circle
)

var ruleDocs = map[Rule]string{
	RuleName:                 docCFN + "aws-resource-rds-dbcluster.html",
	RuleEngine:               "https://docs.aws.amazon.com/AmazonRDS/latest/AuroraPostgreSQLReleaseNotes/AuroraPostgreSQL.Updates.html",
	RuleEngineRetired:        "https://docs.aws.amazon.com/AmazonRDS/latest/AuroraPostgreSQLReleaseNotes/aurorapostgresql-release-calendar.html",
	RuleEngineFeature:        docAUG + "Concepts.AuroraFeaturesRegionsDBEngines.grids.html",
	RuleCapacity:             docCapacity,
	RuleAutoPause:            docAutoPause,
	RuleAutoPauseBehindProxy: docAutoPause,
	RuleAlternatingRotation:  "https://github.com/aws/aws-cdk/issues/25568",
	RuleRotation:             "https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_schedule.html",
	RuleReaders:              docAUG + "Concepts.AuroraHighAvailability.html",
	RuleInsights:             docAUG + "USER_DatabaseInsights.Considerations.html",
	RuleBorrowTimeout:        docAUG + "rds-proxy-connections.html",
	RuleProxyTimeout:         docAUG + "rds-proxy-connections.html",
	RuleConnectionsPercent:   docAUG + "rds-proxy-connections.html",
	RuleSession:              docAUG + "rds-proxy-pinning.html",
	RuleSubnets:              docAUG + "rds-proxy-network-prereqs.html",
	RuleZone:                 docProxy,
	RuleNetwork:              docAUG + "USER_VPC.WorkingWithRDSInstanceinaVPC.html",
	RuleEncryption:           docAUG + "Overview.Encryption.html",
	RuleMasterPassword:       docAUG + "rds-secrets-manager.html",
	RuleTLS:                  docAUG + "AuroraPostgreSQL.Security.html",
	RulePublic:               docAUG + "USER_VPC.WorkingWithRDSInstanceinaVPC.html",
	RulePolicyScope:          docAUG + "UsingWithRDS.IAMDBAuth.IAMPolicy.html",
	RulePolicyAction:         docAUG + "UsingWithRDS.IAMDBAuth.IAMPolicy.html",
	RuleUsers:                docProxy,
	RuleTimeout:              "https://www.postgresql.org/docs/current/runtime-config-client.html",
	RuleBackup:               docAUG + "Aurora.Managing.Backups.html",
	RuleLogs:                 docCFN + "aws-resource-logs-loggroup.html",
	RuleAlarmPeriod:          "https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html",
	RuleAlarm:                "https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricAlarm.html",
	RuleTags:                 docAUG + "USER_Tagging.html",
	RuleAuth:                 docAUG + "rds-proxy-iam-setup.html",
	RuleOverride:             docTemplateReference,
	RuleReference:            docCFN + "intrinsic-function-reference.html",
}

// problems collects what is wrong.
type problems []error

func (p *problems) add(field string, rule Rule, format string, args ...any) {
	*p = append(*p, &FieldError{Field: field, Rule: rule, Reason: fmt.Sprintf(format, args...), Doc: rule.Doc()})
}

// within reports a number outside of its range.
func within[T int | float64](p *problems, field string, rule Rule, value, least, most T) {
	if !(value >= least && value <= most) { //nolint:staticcheck // NaN is outside too, and compares with nothing
		p.add(field, rule, "it is %v; write a value from %v to %v", value, least, most)
	}
}
