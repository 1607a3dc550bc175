package aurora_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aurorapgx/aurorapgx/aurora"
)

// mutation is a mistake, the rule that finds it, and the field it is reported for.
type mutation struct {
	name  string
	spoil func(s *aurora.Spec)
	rule  aurora.Rule
	field string
}

func override(resource, property string, value any) func(*aurora.Spec) {
	return func(s *aurora.Spec) {
		s.Overrides = append(s.Overrides, aurora.Override{Resource: resource, Property: property, Value: value})
	}
}

// policyOf is a policy document with one statement, as somebody would override it.
func policyOf(action, resource any) any {
	return map[string]any{"Version": "2012-10-17", "Statement": []any{map[string]any{"Effect": "Allow", "Action": action, "Resource": resource}}}
}

// What cfn-lint, the provider schemas and cdk-nag let through: each was deployed by
// somebody, and failed hours later or at night.
var whatCheckersMiss = []mutation{
	{"retired engine", func(s *aurora.Spec) { s.Engine = "15.4" }, aurora.RuleEngineRetired, "Engine"},
	{"retired engine, override", override("Cluster", "EngineVersion", "15.4"), aurora.RuleEngineRetired, "Cluster.EngineVersion"},
	{"300 ACU", func(s *aurora.Spec) { s.Capacity.Max = 300 }, aurora.RuleCapacity, "Capacity.Max"},
	{"300 ACU, override", override("Cluster", "ServerlessV2ScalingConfiguration.MaxCapacity", 300), aurora.RuleCapacity, "Cluster.ServerlessV2ScalingConfiguration.Max"},
	{"steps of 0.3", func(s *aurora.Spec) { s.Capacity.Min = 3.3 }, aurora.RuleCapacity, "Capacity.Min"},
	{"steps of 0.3, override", override("Cluster", "ServerlessV2ScalingConfiguration.MinCapacity", 3.3), aurora.RuleCapacity, "Cluster.ServerlessV2ScalingConfiguration.Min"},
	{"minimum above maximum", func(s *aurora.Spec) { s.Capacity = aurora.Capacity{Min: 8, Max: 4} }, aurora.RuleCapacity, "Capacity.Min"},
	{"pause after 60 s", func(s *aurora.Spec) { s.Proxy.Off = true; s.Capacity.AutoPause = time.Minute }, aurora.RuleAutoPause, "Capacity.AutoPause"},
	{"pause after 60 s, override", func(s *aurora.Spec) {
		s.Proxy.Off = true
		override("Cluster", "ServerlessV2ScalingConfiguration", map[string]any{"MinCapacity": 0, "MaxCapacity": 4, "SecondsUntilAutoPause": 60})(s)
	}, aurora.RuleAutoPause, "Cluster.ServerlessV2ScalingConfiguration.AutoPause"},
	{"insights for 10 days", func(s *aurora.Spec) { s.Insights.Days = 10 }, aurora.RuleInsights, "Insights.Days"},
	{"insights for 10 days, override", override("Cluster", "PerformanceInsightsRetentionPeriod", 10), aurora.RuleInsights, "Cluster.PerformanceInsights.Days"},
	{"advanced insights for 31 days", func(s *aurora.Spec) { s.Insights = aurora.Insights{Advanced: true, Days: 31} }, aurora.RuleInsights, "Insights.Days"},
	{"advanced insights for 7 days, override", override("Cluster", "DatabaseInsightsMode", "advanced"), aurora.RuleInsights, "Cluster.PerformanceInsights.Days"},
	{"borrow timeout of 4000 s", func(s *aurora.Spec) { s.Proxy.BorrowTimeout = 4000 * time.Second }, aurora.RuleBorrowTimeout, "Proxy.BorrowTimeout"},
	{"borrow timeout of 4000 s, override", override("ProxyTargets", "ConnectionPoolConfigurationInfo.ConnectionBorrowTimeout", 4000), aurora.RuleBorrowTimeout, "ProxyTargets.ConnectionPoolConfigurationInfo.BorrowTimeout"},
	{"no connections", func(s *aurora.Spec) { s.Proxy.MaxConnectionsPercent = -1 }, aurora.RuleConnectionsPercent, "Proxy.MaxConnectionsPercent"},
	{"no connections, override", override("ProxyTargets", "ConnectionPoolConfigurationInfo.MaxConnectionsPercent", 0), aurora.RuleConnectionsPercent, "ProxyTargets.ConnectionPoolConfigurationInfo.MaxConnectionsPercent"},
	{"alarm period of 45 s", func(s *aurora.Spec) { s.Alarms.Period = 45 * time.Second }, aurora.RuleAlarmPeriod, "Alarms.Period"},
	{"alarm period of 45 s, override", override("AlarmBorrow", "Period", 45), aurora.RuleAlarmPeriod, "AlarmBorrow.Period"},
	{"rds-db wildcard", override("ConnectApp", "PolicyDocument", policyOf("rds-db:connect", "arn:aws:rds-db:eu-west-1:123456789012:dbuser:*/app")), aurora.RulePolicyScope, "ConnectApp.PolicyDocument.Statement[0].Resource"},
	{"rds-db wildcard inside a function", override("ConnectApp", "PolicyDocument", policyOf("rds-db:connect", map[string]any{"Fn::Sub": "arn:${AWS::Partition}:rds-db:*"})), aurora.RulePolicyScope, "ConnectApp.PolicyDocument.Statement[0].Resource"},
	{"rds-db, all actions", override("ConnectApp", "PolicyDocument", policyOf("rds-db:*", "arn:aws:rds-db:eu-west-1:123456789012:dbuser:prx-1/app")), aurora.RulePolicyScope, "ConnectApp.PolicyDocument.Statement[0].Action"},
	{"rds-db misspelt", override("ConnectApp", "PolicyDocument", policyOf("rds-db:Connnect", "arn:aws:rds-db:eu-west-1:123456789012:dbuser:prx-1/app")), aurora.RulePolicyAction, "ConnectApp.PolicyDocument.Statement[0].Action"},
	{"proxy role with a wildcard", override("ProxyRole", "Policies", []any{map[string]any{"PolicyName": "p", "PolicyDocument": policyOf([]any{"secretsmanager:GetSecretValue"}, []any{"*"})}}), aurora.RulePolicyScope, "ProxyRole.Policies[0].PolicyDocument.Statement[0].Resource"},
	{"policy where none belongs", override("AlarmCapacity1", "Policies", []any{policyOf("secretsmanager:GetSecretValue", "arn:*")}), aurora.RulePolicyScope, "AlarmCapacity1.Policies[0].Statement[0].Resource"},
	{"role for anyone", override("ProxyRole", "AssumeRolePolicyDocument", map[string]any{"Statement": []any{map[string]any{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": map[string]any{"AWS": "*"}}}}), aurora.RulePolicyScope, "ProxyRole.AssumeRolePolicyDocument.Statement[0].Principal"},
	{"two master passwords", override("Cluster", "MasterUserPassword", "swordfish"), aurora.RuleMasterPassword, "Cluster.MasterUserPassword"},
	{"a single subnet", func(s *aurora.Spec) { s.Network.Subnets = []string{"subnet-0123456789abcdef0"} }, aurora.RuleSubnets, "Network.Subnets"},
	{"a single subnet, override", override("Proxy", "VpcSubnetIds", []any{"subnet-1"}), aurora.RuleSubnets, "Proxy.VpcSubnetIds"},
	{"storage not encrypted", override("Cluster", "StorageEncrypted", false), aurora.RuleEncryption, "Cluster.StorageEncrypted"},
	{"storage encryption taken away", override("Cluster", "StorageEncrypted", nil), aurora.RuleEncryption, "Cluster.StorageEncrypted"},
	{"pause behind a proxy", func(s *aurora.Spec) { s.Capacity.AutoPause = 10 * time.Minute }, aurora.RuleAutoPauseBehindProxy, "Capacity.AutoPause"},
	{"minimum of 0 behind a proxy, override", override("Cluster", "ServerlessV2ScalingConfiguration.MinCapacity", 0), aurora.RuleAutoPauseBehindProxy, "Cluster.ServerlessV2ScalingConfiguration.AutoPause"},
	{"alternating rotation", func(s *aurora.Spec) {
		s.Auth, s.Rotation.Strategy = aurora.Secrets, aurora.AlternatingUsers
	}, aurora.RuleAlternatingRotation, "Rotation.Strategy"},
	{"hosted alternating rotation, override", func(s *aurora.Spec) {
		s.Auth = aurora.Secrets
		override("RotateApp", "HostedRotationLambda", map[string]any{"RotationType": "PostgreSQLMultiUser"})(s)
	}, aurora.RuleAlternatingRotation, "RotateApp.HostedRotationLambda"},
}

// Whatever else a Spec can get wrong.
var otherMistakes = []mutation{
	{"name with capitals", func(s *aurora.Spec) { s.Name = "Orders" }, aurora.RuleName, "Name"},
	{"name that is a path", func(s *aurora.Spec) { s.Name = "a/b" }, aurora.RuleName, "Name"},
	{"name with two hyphens", func(s *aurora.Spec) { s.Name = "a--b" }, aurora.RuleName, "Name"},
	{"name too long", func(s *aurora.Spec) { s.Name = strings.Repeat("a", 41) }, aurora.RuleName, "Name"},
	{"reserved database", func(s *aurora.Spec) { s.Database = "order" }, aurora.RuleName, "Database"},
	{"quoted database", func(s *aurora.Spec) { s.Database = `a"b` }, aurora.RuleName, "Database"},
	{"reserved administrator", func(s *aurora.Spec) { s.MasterUser = "admin" }, aurora.RuleName, "MasterUser"},
	{"RDS's administrator", func(s *aurora.Spec) { s.MasterUser = "rdsadmin" }, aurora.RuleName, "MasterUser"},
	{"schema of PostgreSQL", func(s *aurora.Spec) { s.Schemas = []string{"pg_catalog"} }, aurora.RuleName, "Schemas[0]"},
	{"information_schema", func(s *aurora.Spec) { s.Schemas = []string{"information_schema"} }, aurora.RuleName, "Schemas[0]"},
	{"schema twice", func(s *aurora.Spec) { s.Schemas = []string{"a", "a"} }, aurora.RuleName, "Schemas[1]"},
	{"no auth of ours", func(s *aurora.Spec) { s.Auth = "kerberos" }, aurora.RuleAuth, "Auth"},
	{"no version", func(s *aurora.Spec) { s.Engine = "17" }, aurora.RuleEngine, "Engine"},
	{"limitless", func(s *aurora.Spec) { s.Engine = "16.4-limitless" }, aurora.RuleEngine, "Engine"},
	{"old major", func(s *aurora.Spec) { s.Engine = "13.20" }, aurora.RuleEngineRetired, "Engine"},
	{"pause too old", func(s *aurora.Spec) {
		s.Engine, s.Proxy.Off, s.Capacity.AutoPause = "14.6", true, time.Hour
	}, aurora.RuleEngineFeature, "Capacity.AutoPause"},
	{"Data API too old", func(s *aurora.Spec) { s.Engine, s.DataAPI = "14.6", true }, aurora.RuleEngineFeature, "DataAPI"},
	{"256 ACU too old", func(s *aurora.Spec) { s.Engine, s.Capacity.Max = "14.6", 256 }, aurora.RuleEngineFeature, "Capacity.Max"},
	{"I/O-Optimized too old", func(s *aurora.Spec) { s.Engine, s.IOOptimized = "14.6", true }, aurora.RuleEngineFeature, "IOOptimized"},
	{"not a number of ACU", func(s *aurora.Spec) { s.Capacity.Max = nan }, aurora.RuleCapacity, "Capacity.Max"},
	{"minimum with a pause", func(s *aurora.Spec) {
		s.Proxy.Off, s.Capacity = true, aurora.Capacity{Min: 1, Max: 2, AutoPause: time.Hour}
	}, aurora.RuleAutoPause, "Capacity.Min"},
	{"capacity as a reference", override("Cluster", "ServerlessV2ScalingConfiguration.MaxCapacity", map[string]any{"Ref": "VpcId"}), aurora.RuleOverride, "Cluster.ServerlessV2ScalingConfiguration.MaxCapacity"},
	{"user twice", func(s *aurora.Spec) { s.Users = []aurora.User{{Name: "a"}, {Name: "a"}} }, aurora.RuleUsers, "Users[1].Name"},
	{"users alike", func(s *aurora.Spec) { s.Users = []aurora.User{{Name: "a_1"}, {Name: "a1"}} }, aurora.RuleUsers, "Users[1].Name"},
	{"administrator as a user", func(s *aurora.Spec) { s.Users = []aurora.User{{Name: "dbadmin"}} }, aurora.RuleUsers, "Users[0].Name"},
	{"user for everyone", func(s *aurora.Spec) { s.Users = []aurora.User{{Name: "public"}} }, aurora.RuleUsers, "Users[0].Name"},
	{"user with a wildcard", func(s *aurora.Spec) { s.Users = []aurora.User{{Name: "*"}} }, aurora.RuleName, "Users[0].Name"},
	{"user of the proxy", func(s *aurora.Spec) { s.Users = []aurora.User{{Name: "rdsproxyadmin"}} }, aurora.RuleName, "Users[0].Name"},
	{"no name", func(s *aurora.Spec) { s.Users = []aurora.User{{}} }, aurora.RuleName, "Users[0].Name"},
	{"no such access", func(s *aurora.Spec) { s.Users = []aurora.User{{Name: "a", Access: "superuser"}} }, aurora.RuleUsers, "Users[0].Access"},
	{"schema of nobody", func(s *aurora.Spec) { s.Users = []aurora.User{{Name: "a", Schemas: []string{"x"}}} }, aurora.RuleUsers, "Users[0].Schemas[0]"},
	{"two owners at deployment", func(s *aurora.Spec) {
		s.BootstrapAtDeploy = true
		s.Users = []aurora.User{{Name: "a", Access: aurora.Owner}, {Name: "b", Access: aurora.Owner}}
	}, aurora.RuleUsers, "Users"},
	{"too many users", func(s *aurora.Spec) {
		for i := range 21 {
			s.Users = append(s.Users, aurora.User{Name: fmt.Sprintf("user%d", i)})
		}
	}, aurora.RuleUsers, "Users"},
	{"timeout of a microsecond", func(s *aurora.Spec) {
		s.Users = []aurora.User{{Name: "a", StatementTimeout: time.Microsecond}}
	}, aurora.RuleTimeout, "Users[0].StatementTimeout"},
	{"rotation every hour", func(s *aurora.Spec) { s.Auth, s.Rotation.Every = aurora.Secrets, time.Hour }, aurora.RuleRotation, "Rotation.Every"},
	{"no function", func(s *aurora.Spec) { s.Auth, s.Rotation.FunctionARN = aurora.Secrets, "rotate" }, aurora.RuleRotation, "Rotation.FunctionARN"},
	{"no strategy", func(s *aurora.Spec) { s.Rotation.Strategy = "weekly" }, aurora.RuleRotation, "Rotation.Strategy"},
	{"writer only, with readers", func(s *aurora.Spec) { s.WriterOnly = true }, aurora.RuleReaders, "WriterOnly"},
	{"too many readers", func(s *aurora.Spec) { s.Readers = make([]aurora.Reader, 16) }, aurora.RuleReaders, "Readers"},
	{"no such tier", func(s *aurora.Spec) { s.Readers = []aurora.Reader{{Tier: 16}} }, aurora.RuleReaders, "Readers[0].Tier"},
	{"more idle than there are", func(s *aurora.Spec) { s.Proxy.MaxConnectionsPercent, s.Proxy.MaxIdleConnectionsPercent = 20, 30 }, aurora.RuleConnectionsPercent, "Proxy.MaxIdleConnectionsPercent"},
	{"idle for a day", func(s *aurora.Spec) { s.Proxy.IdleClientTimeout = 24 * time.Hour }, aurora.RuleProxyTimeout, "Proxy.IdleClientTimeout"},
	{"half a second", func(s *aurora.Spec) { s.Proxy.BorrowTimeout = 1500 * time.Millisecond }, aurora.RuleBorrowTimeout, "Proxy.BorrowTimeout"},
	{"no setting", func(s *aurora.Spec) { s.Proxy.Session = map[string]string{"x; drop": "1"} }, aurora.RuleSession, `Proxy.Session["x; drop"]`},
	{"two statements", func(s *aurora.Spec) { s.Proxy.Session = map[string]string{"search_path": "a; drop table b"} }, aurora.RuleSession, `Proxy.Session["search_path"]`},
	{"a list that ends early", func(s *aurora.Spec) { s.Proxy.Session = map[string]string{"search_path": "app,"} }, aurora.RuleSession, `Proxy.Session["search_path"]`},
	{"a quote that does not end", func(s *aurora.Spec) { s.Proxy.Session = map[string]string{"search_path": `app, "public`} }, aurora.RuleSession, `Proxy.Session["search_path"]`},
	{"two words for one name", func(s *aurora.Spec) { s.Proxy.Session = map[string]string{"temp_tablespaces": "fast disk"} }, aurora.RuleSession, `Proxy.Session["temp_tablespaces"]`},
	{"no VPC", func(s *aurora.Spec) { s.Network.VPC = "default" }, aurora.RuleNetwork, "Network.VPC"},
	{"subnet twice", func(s *aurora.Spec) { s.Network.Subnets = []string{"subnet-01234567", "subnet-01234567"} }, aurora.RuleNetwork, "Network.Subnets[1]"},
	{"no group", func(s *aurora.Spec) { s.Network.ClientSecurityGroups = []string{"0.0.0.0/0"} }, aurora.RuleNetwork, "Network.ClientSecurityGroups[0]"},
	{"direct group twice", func(s *aurora.Spec) { s.Network.DirectSecurityGroups = []string{"sg-01234567", "sg-01234567"} }, aurora.RuleNetwork, "Network.DirectSecurityGroups[1]"},
	{"zone without proxies", func(s *aurora.Spec) {
		s.Network.Subnets, s.Network.ZoneIDs = []string{"subnet-01234567", "subnet-01234568"}, []string{"use1-az1", "use1-az3"}
	}, aurora.RuleZone, "Network.ZoneIDs[1]"},
	{"one zone", func(s *aurora.Spec) {
		s.Network.Subnets, s.Network.ZoneIDs = []string{"subnet-01234567", "subnet-01234568"}, []string{"use1-az1", "use1-az1"}
	}, aurora.RuleSubnets, "Network.ZoneIDs"},
	{"zone names", func(s *aurora.Spec) {
		s.Network.Subnets, s.Network.ZoneIDs = []string{"subnet-01234567", "subnet-01234568"}, []string{"us-east-1a", "us-east-1b"}
	}, aurora.RuleNetwork, "Network.ZoneIDs[0]"},
	{"key by alias", func(s *aurora.Spec) { s.KMSKey = "alias/orders" }, aurora.RuleEncryption, "KMSKey"},
	{"advanced but off", func(s *aurora.Spec) { s.Insights = aurora.Insights{Off: true, Advanced: true} }, aurora.RuleInsights, "Insights.Advanced"},
	{"backups for ever", func(s *aurora.Spec) { s.Backup.Days = 36 }, aurora.RuleBackup, "Backup.Days"},
	{"no backups, override", override("Cluster", "BackupRetentionPeriod", 0), aurora.RuleBackup, "Cluster.BackupRetentionPeriod"},
	{"window of a minute", func(s *aurora.Spec) { s.Backup.Window = "23:59-00:00" }, aurora.RuleBackup, "Backup.Window"},
	{"window on no day", func(s *aurora.Spec) { s.MaintenanceWindow = "04:00-05:00" }, aurora.RuleBackup, "MaintenanceWindow"},
	{"logs for 8 days", func(s *aurora.Spec) { s.LogDays = 8 }, aurora.RuleLogs, "LogDays"},
	{"no topic", func(s *aurora.Spec) { s.Alarms.TopicARN = "ops@example.com" }, aurora.RuleAlarm, "Alarms.TopicARN"},
	{"alarm above everything", func(s *aurora.Spec) { s.Alarms.ACUPercent = 101 }, aurora.RuleAlarm, "Alarms.ACUPercent"},
	{"alarm at the minimum", func(s *aurora.Spec) { s.Capacity.Min, s.Alarms.ACUPercent = 2, 25 }, aurora.RuleAlarm, "Alarms.ACUPercent"},
	{"alarm at the minimum, override", func(s *aurora.Spec) { s.Capacity.Min = 2; override("AlarmCapacity1", "Threshold", 25)(s) }, aurora.RuleAlarm, "AlarmCapacity1.Threshold"},
	{"alarm below the minimum, override", override("Cluster", "ServerlessV2ScalingConfiguration.MinCapacity", 7.5), aurora.RuleAlarm, "AlarmCapacity1.Threshold"},
	{"alarm on fixed capacity", func(s *aurora.Spec) { s.Capacity.Min, s.Alarms.ACUPercent = 8, 100 }, aurora.RuleAlarm, "Alarms.ACUPercent"},
	{"alarm on fixed capacity, override", override("Cluster", "ServerlessV2ScalingConfiguration.MinCapacity", 8), aurora.RuleAlarm, "AlarmCeiling2.Threshold"},
	{"alarm on nothing", func(s *aurora.Spec) { s.Alarms.BorrowLatency = time.Microsecond }, aurora.RuleAlarm, "Alarms.BorrowLatency"},
	{"tag of AWS", func(s *aurora.Spec) { s.Tags = map[string]string{"aws:x": "y"} }, aurora.RuleTags, `Tags["aws:x"]`},
	{"tag with an accent", func(s *aurora.Spec) { s.Tags = map[string]string{"café": "y"} }, aurora.RuleTags, `Tags["café"]`},
	{"plaintext to the proxy", override("Proxy", "RequireTLS", false), aurora.RuleTLS, "Proxy.RequireTLS"},
	{"plaintext to the cluster", override("ClusterParameters", "Parameters", map[string]any{"rds.force_ssl": "0"}), aurora.RuleTLS, "ClusterParameters.Parameters.rds.force_ssl"},
	{"public instance", override("Instance1", "PubliclyAccessible", true), aurora.RulePublic, "Instance1.PubliclyAccessible"},
	{"no such resource", override("Clutser", "Port", 1), aurora.RuleOverride, "Overrides[0]"},
	{"property inside a text", override("Cluster", "Engine.Version", 1), aurora.RuleOverride, "Overrides[0]"},
	{"value that is no JSON", override("Cluster", "Port", func() {}), aurora.RuleOverride, "Overrides[0]"},
	{"reference to nothing", override("Cluster", "KmsKeyId", map[string]any{"Ref": "Key"}), aurora.RuleReference, "Cluster"},
	{"attribute of nothing", override("Cluster", "KmsKeyId", map[string]any{"Fn::GetAtt": "ProxyRole.Name"}), aurora.RuleReference, "Cluster"},
	{"reference in a text", override("Dashboard", "DashboardBody", map[string]any{"Fn::Sub": "${Nobody}"}), aurora.RuleReference, "Dashboard"},
	{"function that does not exist", override("Cluster", "KmsKeyId", map[string]any{"Fn::Subb": "x"}), aurora.RuleReference, "Cluster"},
	{"function that needs a transform", override("Cluster", "KmsKeyId", map[string]any{"Fn::ToJsonString": map[string]any{}}), aurora.RuleReference, "Cluster"},
	{"element that is not there", override("Cluster", "KmsKeyId", map[string]any{"Fn::Select": []any{"2", []any{"a", "b"}}}), aurora.RuleReference, "Cluster"},
	{"a circle", override("ClusterLogs", "KmsKeyId", map[string]any{"Fn::GetAtt": []any{"Cluster", "DBClusterArn"}}), aurora.RuleReference, "Cluster"},
	{"NotAction", override("ConnectApp", "PolicyDocument", map[string]any{"Statement": map[string]any{"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}}), aurora.RulePolicyScope, "ConnectApp.PolicyDocument.Statement"},
}

func TestMistakesAreRefused(t *testing.T) {
	t.Parallel()
	for _, m := range append(whatCheckersMiss, otherMistakes...) {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			spec := aurora.EarlyProduction()
			m.spoil(&spec)
			err := spec.Validate()
			if !errors.Is(err, m.rule) {
				t.Fatalf("%v is no %v", err, m.rule)
			}
			found := false
			for _, one := range fieldErrors(err) {
				if one.Field == m.field && one.Rule == m.rule {
					found = true
					if one.Doc != m.rule.Doc() || !strings.HasPrefix(one.Doc, "https://") || !strings.Contains(one.Error(), one.Doc) || one.Reason == "" {
						t.Errorf("no document or no reason: %+v", one)
					}
				}
			}
			if !found {
				t.Errorf("%v is not about %s", err, m.field)
			}
			if text, err := spec.Template(); err == nil {
				t.Errorf("rendered:\n%s", text)
			}
			if strings.Contains(err.Error(), "swordfish") {
				t.Error("the error quotes a password")
			}
		})
	}
}

func fieldErrors(err error) []*aurora.FieldError {
	var out []*aurora.FieldError
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range joined.Unwrap() {
			out = append(out, fieldErrors(one)...)
		}
	} else if one, ok := errors.AsType[*aurora.FieldError](err); ok {
		out = append(out, one)
	}
	return out
}

// All mistakes are reported at once, each with its own rule.
func TestMistakesAreReportedTogether(t *testing.T) {
	t.Parallel()
	spec := aurora.Spec{Engine: "15.4", Capacity: aurora.Capacity{Max: 300}, LogDays: 8}
	err := spec.Validate()
	for _, rule := range []aurora.Rule{aurora.RuleEngineRetired, aurora.RuleCapacity, aurora.RuleLogs} {
		if !errors.Is(err, rule) {
			t.Errorf("%v is missing in %v", rule, err)
		}
	}
	if errors.Is(err, aurora.RuleTLS) || len(fieldErrors(err)) != 3 {
		t.Error(err)
	}
}

func TestWhatIsRightPasses(t *testing.T) {
	t.Parallel()
	for name, spec := range map[string]aurora.Spec{
		"nothing":        {},
		"pause":          {Proxy: aurora.Proxy{Off: true}, Capacity: aurora.Capacity{AutoPause: 5 * time.Minute, Max: 1}},
		"newer engine":   {Engine: "17.12"},
		"newer major":    {Engine: "19.1"},
		"256 ACU":        {Capacity: aurora.Capacity{Min: 256, Max: 256}},
		"advanced":       {Insights: aurora.Insights{Advanced: true, Days: 731}},
		"window at 0:00": {Backup: aurora.Backup{Window: "23:45-00:15"}, MaintenanceWindow: "sun:23:45-mon:00:15"},
		"no limits":      {Users: []aurora.User{{Name: "batch", StatementTimeout: -1, IdleInTransactionTimeout: -1}}},
		"own policy":     withOverride("ConnectApp", "PolicyDocument", policyOf("cloudwatch:PutMetricData", "*")),
		"parameters":     withOverride("ClusterParameters", "Parameters", map[string]any{"rds.force_ssl": "1", "log_min_duration_statement": "1000"}),
		"proxy, 6 users": {Auth: aurora.Secrets, Users: []aurora.User{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "d"}, {Name: "e"}, {Name: "f_g"}}},
	} {
		if err := spec.Validate(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func withOverride(resource, property string, value any) aurora.Spec {
	var s aurora.Spec
	override(resource, property, value)(&s)
	return s
}

// Every rule there is has its document and a mistake above that it finds.
func TestEveryRuleIsTested(t *testing.T) {
	t.Parallel()
	tested := map[aurora.Rule]bool{}
	for _, m := range append(whatCheckersMiss, otherMistakes...) {
		tested[m.rule] = true
	}
	constant := regexp.MustCompile(`(?m)^\tRule\w+ +Rule = "([a-z-]+)"`)
	source := readFile(t, "errors.go")
	all := constant.FindAllStringSubmatch(source, -1)
	if len(all) < 30 {
		t.Fatalf("found %d rules", len(all))
	}
	for _, m := range all {
		if rule := aurora.Rule(m[1]); !tested[rule] || rule.Doc() == "" {
			t.Errorf("%s: tested %v, document %q", rule, tested[rule], rule.Doc())
		}
	}
}

var nan = math.NaN()

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
