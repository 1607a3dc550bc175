package aurora

// The database: network, parameters, cluster, instances, logs.

import (
	"fmt"
	"strings"
	"time"
)

const (
	docAUG               = "https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/"
	docCFN               = "https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/"
	docTemplateReference = docCFN + "aws-template-resource-type-ref.html"
	docCapacity          = docAUG + "aurora-serverless-v2.setting-capacity.html"
	docAutoPause         = docAUG + "aurora-serverless-v2-auto-pause.html"
	port                 = 5432 // RDS Proxy listens on no other
)

// addNetwork adds security groups that let the clients in and nothing out, and the
// subnet group.
func (s Spec) addNetwork(t *template) {
	t.add("SubnetGroup", "AWS::RDS::DBSubnetGroup", "puts the cluster into the given private subnets",
		docAUG+"USER_VPC.WorkingWithRDSInstanceinaVPC.html", props{
			"DBSubnetGroupDescription": s.Name + ": subnets of the cluster",
			"SubnetIds":                ref("SubnetIds"),
		})
	const docGroups = docAUG + "Overview.RDSSecurityGroups.html"
	t.add("ClusterSecurityGroup", "AWS::EC2::SecurityGroup", "lets in whom a rule names, and nothing out", docGroups, props{
		"GroupDescription":    s.Name + ": the cluster",
		"VpcId":               ref("VpcId"),
		"SecurityGroupEgress": []props{{"IpProtocol": "-1", "CidrIp": "127.0.0.1/32", "Description": "nothing: a group without a rule would allow everything"}},
	})
	front := "ClusterSecurityGroup"
	if !s.Proxy.Off {
		front = "ProxySecurityGroup"
		t.add(front, "AWS::EC2::SecurityGroup", "lets the proxy's clients in, and the proxy out to the cluster alone", docGroups, props{
			"GroupDescription": s.Name + ": the proxy",
			"VpcId":            ref("VpcId"),
			"SecurityGroupEgress": []props{{
				"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "Description": "to the cluster",
				"DestinationSecurityGroupId": getAtt("ClusterSecurityGroup", "GroupId"),
			}},
		})
		t.addIngress("ClusterFromProxy", "lets the proxy into the cluster", "ClusterSecurityGroup", getAtt(front, "GroupId"))
	}
	t.addSlots("Client", front, slots(s.Network.ClientSecurityGroups))
	if s.direct() {
		t.addSlots("Direct", "ClusterSecurityGroup", slots(s.Network.DirectSecurityGroups))
	}
}

// addSlots adds a rule for each of the groups that one of the parameters may hold.
func (t *template) addSlots(kind, into string, n int) {
	parameter := kind + "SecurityGroupIds"
	given := props{"Fn::Join": []any{",", ref(parameter)}}
	for i := range n {
		// "sg-1,sg-2" and filler, so that every slot can be read; no more of it than that, or one
		// slot more would change the rules of all.
		padded := split(",", join(given, strings.Repeat(",none", max(leastSlots-1, i))))
		id := fmt.Sprintf("From%s%d", kind, i+1)
		r := t.addIngress(id, "lets one of "+parameter+" in", into, selectFrom(i, padded))
		if i > 0 {
			r.Condition = fmt.Sprintf("Has%s%d", kind, i+1)
			t.Conditions[r.Condition] = props{"Fn::Not": []any{props{"Fn::Equals": []any{selectFrom(i, padded), "none"}}}}
		}
	}
}

func (t *template) addIngress(id, why, into string, from any) *resource {
	return t.add(id, "AWS::EC2::SecurityGroupIngress", why, docAUG+"Overview.RDSSecurityGroups.html", props{
		"GroupId": getAtt(into, "GroupId"), "SourceSecurityGroupId": from,
		"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "Description": "PostgreSQL",
	})
}

func (s Spec) addCluster(t *template) {
	version, _ := parseEngine(s.Engine)
	t.add("ClusterParameters", "AWS::RDS::DBClusterParameterGroup", "makes the cluster refuse connections without TLS",
		docAUG+"AuroraPostgreSQL.Security.html", props{
			"Description": s.Name + ": cluster parameters",
			"Family":      fmt.Sprintf("aurora-postgresql%d", version.major),
			"Parameters":  props{"rds.force_ssl": "1"},
		})
	t.addLogGroup("ClusterLogs", "/aws/rds/cluster/"+s.Name+"/postgresql", "keeps the cluster's log for a limited time; RDS would create it to keep it forever", s.LogDays)

	cluster := t.add("Cluster", "AWS::RDS::DBCluster", "the database", docAUG+"aurora-serverless-v2.html", s.clusterProps())
	cluster.DependsOn = []string{"ClusterLogs"}
	cluster.DeletionPolicy, cluster.UpdateReplacePolicy = "Snapshot", "Snapshot"
	if s.Disposable {
		cluster.DeletionPolicy, cluster.UpdateReplacePolicy = "Delete", "Delete"
	}
	t.addInstance(s, 1, 0, "the first writer")
	for i, reader := range s.Readers {
		why := "a reader that scales with the writer and takes over when that fails"
		if reader.Tier > 1 {
			why = "a reader that scales by itself"
		}
		t.addInstance(s, i+2, reader.Tier, why)
	}
}

func (s Spec) clusterProps() props {
	scaling := props{"MinCapacity": s.Capacity.Min, "MaxCapacity": s.Capacity.Max}
	if s.Capacity.AutoPause > 0 {
		scaling["SecondsUntilAutoPause"] = seconds(s.Capacity.AutoPause)
	}
	p := props{
		"DBClusterIdentifier":              s.Name,
		"Engine":                           "aurora-postgresql",
		"EngineVersion":                    s.Engine,
		"DatabaseName":                     s.Database,
		"Port":                             port,
		"MasterUsername":                   s.MasterUser,
		"ManageMasterUserPassword":         true,
		"EnableIAMDatabaseAuthentication":  s.Auth == IAM,
		"ServerlessV2ScalingConfiguration": scaling,
		"StorageEncrypted":                 true,
		"StorageType":                      "aurora",
		"BackupRetentionPeriod":            s.Backup.Days,
		"CopyTagsToSnapshot":               true,
		"DeletionProtection":               !s.Disposable,
		"DBClusterParameterGroupName":      ref("ClusterParameters"),
		"DBSubnetGroupName":                ref("SubnetGroup"),
		"VpcSecurityGroupIds":              []any{getAtt("ClusterSecurityGroup", "GroupId")},
		"EnableCloudwatchLogsExports":      []string{"postgresql"},
	}
	if s.IOOptimized {
		p["StorageType"] = "aurora-iopt1"
	}
	if !s.Insights.Off {
		p["DatabaseInsightsMode"] = map[bool]string{false: "standard", true: "advanced"}[s.Insights.Advanced]
		p["PerformanceInsightsEnabled"] = true
		p["PerformanceInsightsRetentionPeriod"] = s.Insights.Days
	}
	if s.KMSKey != "" {
		p["KmsKeyId"] = s.KMSKey
		p["MasterUserSecret"] = props{"KmsKeyId": s.KMSKey}
		if !s.Insights.Off {
			p["PerformanceInsightsKmsKeyId"] = s.KMSKey
		}
	}
	if s.DataAPI {
		p["EnableHttpEndpoint"] = true
	}
	if s.Backup.Window != "" {
		p["PreferredBackupWindow"] = s.Backup.Window
	}
	if s.MaintenanceWindow != "" {
		p["PreferredMaintenanceWindow"] = s.MaintenanceWindow
	}
	return p
}

func (t *template) addInstance(s Spec, n, tier int, why string) {
	t.add(instanceID(n), "AWS::RDS::DBInstance", why, docAUG+"Concepts.AuroraHighAvailability.html", props{
		"DBInstanceIdentifier": fmt.Sprintf("%s-%d", s.Name, n),
		"DBClusterIdentifier":  ref("Cluster"),
		"DBInstanceClass":      "db.serverless",
		"Engine":               "aurora-postgresql",
		"PromotionTier":        tier,
		"PubliclyAccessible":   false,
	})
}

func instanceID(n int) string { return fmt.Sprintf("Instance%d", n) }

// instances are the logical ids of all instances.
func (s Spec) instances() []string {
	ids := []string{instanceID(1)}
	for i := range s.Readers {
		ids = append(ids, instanceID(i+2))
	}
	return ids
}

func (t *template) addLogGroup(id, name, why string, days int) {
	p := props{"RetentionInDays": days}
	if name != "" {
		p["LogGroupName"] = name
	}
	t.add(id, "AWS::Logs::LogGroup", why, "https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/Working-with-log-groups-and-streams.html", p)
}

func seconds(d time.Duration) int { return int(d / time.Second) }
