package aurora

// The rendered template, looked at once more. Overrides can set any property; what the
// rules protect they cannot take away.

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// lint checks the template as CloudFormation would read it.
func (t *template) lint(p *problems) error {
	for _, id := range slices.Sorted(maps.Keys(t.Resources)) {
		v, err := plain(t.Resources[id].Properties)
		if err != nil {
			return fmt.Errorf("aurora: %s: %w", id, err)
		}
		properties, _ := v.(props) // nil where it has none
		r := linted{p: p, id: id, props: properties}
		switch t.Resources[id].Type {
		case "AWS::RDS::DBCluster":
			r.cluster(t.Resources["Proxy"] != nil)
		case "AWS::RDS::DBClusterParameterGroup":
			r.must("Parameters.rds\x00force_ssl", RuleTLS, "1", "the cluster would accept connections without TLS")
		case "AWS::RDS::DBInstance":
			r.mustNot("PubliclyAccessible", RulePublic, "the instance would get a public address")
			r.absent("MasterUserPassword", RuleMasterPassword, "RDS keeps the administrator's password; a template is read by many")
		case "AWS::RDS::DBSubnetGroup":
			r.subnets("SubnetIds")
		case "AWS::RDS::DBProxyEndpoint":
			r.subnets("VpcSubnetIds")
		case "AWS::RDS::DBProxy":
			r.subnets("VpcSubnetIds")
			r.must("RequireTLS", RuleTLS, true, "the proxy would accept connections without TLS, and IAM tokens with them")
			r.must("EngineFamily", RuleEngine, "POSTGRESQL", "the proxy would not speak PostgreSQL")
		case "AWS::RDS::DBProxyTargetGroup":
			r.pool()
		case "AWS::CloudWatch::Alarm":
			r.alarm()
			r.capacityAlarm(t.capacity())
		case "AWS::SecretsManager::RotationSchedule":
			r.absent("HostedRotationLambda", RuleAlternatingRotation, "it needs a transform, and its multi-user kind breaks RDS Proxy; set Rotation.FunctionARN instead")
		}
		r.policies("", r.props)
	}
	t.checkReferences(p)
	return nil
}

// linted is one resource under the lens.
type linted struct {
	p     *problems
	id    string
	props props
}

// get reads a property by its path. A NUL stands for a dot inside a name.
func (r linted) get(path string) any {
	var at any = r.props
	for name := range strings.SplitSeq(path, ".") {
		at = object(at)[strings.ReplaceAll(name, "\x00", ".")]
	}
	return at
}

func (r linted) field(path string) string { return r.id + "." + strings.ReplaceAll(path, "\x00", ".") }

func (r linted) must(path string, rule Rule, want any, otherwise string) {
	if got := r.get(path); got != want {
		r.p.add(r.field(path), rule, "it is %v and must be %v: otherwise %s", got, want, otherwise)
	}
}

func (r linted) mustNot(path string, rule Rule, otherwise string) {
	if got := r.get(path); got != nil && got != false {
		r.p.add(r.field(path), rule, "it is %v and must be false: otherwise %s", got, otherwise)
	}
}

func (r linted) absent(path string, rule Rule, reason string) {
	if r.get(path) != nil {
		r.p.add(r.field(path), rule, "take it away: %s", reason)
	}
}

// number reads a number; instead of an intrinsic function, whose value nobody can
// check here, the property must be given as it is.
func (r linted) number(path string) (float64, bool) {
	n, ok := r.get(path).(float64)
	if !ok {
		r.p.add(r.field(path), RuleOverride, "it is %v; write a number, so that it can be checked", r.get(path))
	}
	return n, ok
}

func (r linted) subnets(path string) {
	if ids, ok := r.get(path).([]any); ok {
		checkSubnets(r.p, r.field(path), ids)
	}
}

func (r linted) cluster(proxied bool) {
	r.must("StorageEncrypted", RuleEncryption, true, "the data would lie unencrypted, and this cannot be changed later")
	r.must("Engine", RuleEngine, "aurora-postgresql", "it would not be PostgreSQL")
	r.absent("MasterUserPassword", RuleMasterPassword, "RDS keeps the administrator's password; a template is read by many")
	r.must("ManageMasterUserPassword", RuleMasterPassword, true, "nobody would know the administrator's password")
	r.mustNot("PubliclyAccessible", RulePublic, "the cluster would get a public address")
	if version, ok := r.get("EngineVersion").(string); ok {
		checkEngine(r.p, r.field("EngineVersion"), version)
	} else {
		r.p.add(r.field("EngineVersion"), RuleEngine, "it is %v; write a version", r.get("EngineVersion"))
	}
	const scaling = "ServerlessV2ScalingConfiguration"
	least, ok1 := r.number(scaling + ".MinCapacity")
	most, ok2 := r.number(scaling + ".MaxCapacity")
	if ok1 && ok2 {
		c := Capacity{Min: least, Max: most}
		if r.get(scaling+".SecondsUntilAutoPause") != nil {
			s, _ := r.number(scaling + ".SecondsUntilAutoPause")
			c.AutoPause = time.Duration(s * float64(time.Second))
		} else if least == 0 {
			c.AutoPause = 5 * time.Minute // AWS's default
		}
		checkCapacity(r.p, r.field(scaling), c, proxied)
	}
	if days, ok := r.number("BackupRetentionPeriod"); ok {
		within(r.p, r.field("BackupRetentionPeriod"), RuleBackup, days, 1, 35)
	}
	if r.get("PerformanceInsightsEnabled") == true {
		if days, ok := r.number("PerformanceInsightsRetentionPeriod"); ok {
			checkInsights(r.p, r.id+".PerformanceInsights", r.get("DatabaseInsightsMode") == "advanced", int(days))
		}
	} else if r.get("DatabaseInsightsMode") == "advanced" {
		r.p.add(r.field("DatabaseInsightsMode"), RuleInsights, "the advanced mode needs PerformanceInsightsEnabled")
	}
}

func (r linted) pool() {
	const pool = "ConnectionPoolConfigurationInfo"
	most, ok1 := r.number(pool + ".MaxConnectionsPercent")
	idle, ok2 := r.number(pool + ".MaxIdleConnectionsPercent")
	borrow, ok3 := r.number(pool + ".ConnectionBorrowTimeout")
	if ok1 && ok2 && ok3 {
		checkPool(r.p, r.field(pool), int(most), int(idle), time.Duration(borrow)*time.Second)
	}
}

func (r linted) alarm() {
	if r.get("Period") != nil {
		if s, ok := r.number("Period"); ok {
			checkPeriod(r.p, r.field("Period"), time.Duration(s)*time.Second)
		}
	}
	for i, m := range list(r.get("Metrics")) {
		if stat := object(object(m)["MetricStat"]); len(stat) > 0 {
			s, _ := stat["Period"].(float64)
			checkPeriod(r.p, r.field(fmt.Sprintf("Metrics[%d].MetricStat.Period", i)), time.Duration(s)*time.Second)
		}
	}
}

// capacity is the cluster's, overrides included; of what is no number it says 0.
func (t *template) capacity() Capacity {
	v, _ := plain(t.Resources["Cluster"].Properties)
	scaling := object(object(v)["ServerlessV2ScalingConfiguration"])
	least, _ := scaling["MinCapacity"].(float64)
	most, _ := scaling["MaxCapacity"].(float64)
	return Capacity{Min: least, Max: most}
}

func (r linted) capacityAlarm(c Capacity) {
	threshold, ok := r.get("Threshold").(float64)
	if !ok || c.Max == 0 || r.get("ComparisonOperator") != "GreaterThanOrEqualToThreshold" {
		return
	}
	switch r.get("MetricName") {
	case "ACUUtilization":
		checkCapacityAlarm(r.p, r.field("Threshold"), threshold, c.leastPercent(), 100)
	case "ServerlessDatabaseCapacity":
		checkCapacityAlarm(r.p, r.field("Threshold"), threshold, c.Min, c.Max)
	}
}

// scoped are the services whose permissions name exactly what they are for, with the
// actions there are.
var scoped = map[string][]string{
	"rds-db":         {"connect"},
	"secretsmanager": {"GetSecretValue", "DescribeSecret", "PutSecretValue", "UpdateSecretVersionStage"},
	"rds-data":       {"BatchExecuteStatement", "BeginTransaction", "CommitTransaction", "ExecuteStatement", "RollbackTransaction"},
	"kms":            {"Decrypt", "GenerateDataKey", "DescribeKey"},
}

// policies finds the statements of policies, wherever they are.
func (r linted) policies(path string, v any) {
	switch v := v.(type) {
	case []any:
		for i, one := range v {
			r.policies(fmt.Sprintf("%s[%d]", path, i), one)
		}
	case props:
		if v["Effect"] == "Allow" {
			r.statement(r.field(path), v)
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			r.policies(strings.TrimPrefix(path+"."+name, "."), v[name])
		}
	}
}

// statement looks at what a statement of a policy allows.
func (r linted) statement(field string, st props) {
	if st["NotAction"] != nil || st["NotResource"] != nil {
		r.p.add(field, RulePolicyScope, "NotAction and NotResource allow everything else; write Action and Resource")
		return
	}
	narrow := false
	for _, a := range listOrOne(st["Action"]) {
		action, _ := a.(string)
		service, name, _ := strings.Cut(action, ":")
		known, guarded := scoped[strings.ToLower(service)]
		switch {
		case strings.ContainsAny(action, "*?") || action == "":
			r.p.add(field+".Action", RulePolicyScope, "%q allows more than is needed; write each action", action)
		case guarded && !slices.Contains(known, name):
			r.p.add(field+".Action", RulePolicyAction, "%q is not an action this template needs; write one of %s: %s", action, service, strings.Join(known, ", "))
		}
		narrow = narrow || guarded
	}
	if st["Principal"] != nil { // a trust policy: it is about who, not about what
		if hasWildcard(st["Principal"]) {
			r.p.add(field+".Principal", RulePolicyScope, "it holds a wildcard, and so trusts others; write one service or account")
		}
		return
	}
	resources := listOrOne(st["Resource"])
	if len(resources) == 0 {
		r.p.add(field+".Resource", RulePolicyScope, "there is none; write the ARN of one user, secret, cluster or key")
	}
	for _, resource := range resources {
		if narrow && hasWildcard(resource) {
			r.p.add(field+".Resource", RulePolicyScope, "it holds a wildcard, and so allows other users or secrets; write the ARN of one")
		}
	}
}

// hasWildcard looks into every text of an ARN, intrinsic functions included.
func hasWildcard(v any) bool {
	switch v := v.(type) {
	case string:
		return strings.ContainsAny(v, "*?")
	case []any:
		return slices.ContainsFunc(v, hasWildcard)
	case props:
		for _, one := range v {
			if hasWildcard(one) {
				return true
			}
		}
	}
	return false
}

func object(v any) props { o, _ := v.(props); return o }
func list(v any) []any   { l, _ := v.([]any); return l }

// listOrOne is for what IAM takes as a list or as a single value.
func listOrOne(v any) []any {
	switch v := v.(type) {
	case nil:
		return nil
	case []any:
		return v
	}
	return []any{v}
}
