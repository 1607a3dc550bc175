package aurora

// What a change to a template would replace. Replacing a cluster means a new, empty
// one; replacing a proxy means another endpoint.

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// createOnly are the properties that cannot be changed in place, of the types in our
// templates: CloudFormation makes a new resource and deletes the old one. They are the
// createOnlyProperties and conditionalCreateOnlyProperties of the resource provider
// schemas, as published with https://github.com/aws-cloudformation/rain v1.23.1; a test
// in the module beside compares them. What is not in there is beside its reason.
// https://docs.aws.amazon.com/cloudformation-cli/latest/userguide/resource-type-schema.html
var createOnly = map[string][]string{
	"AWS::CloudFormation::CustomResource": {"ServiceToken"},
	"AWS::CloudWatch::Alarm":              {"AlarmName"},
	"AWS::CloudWatch::Dashboard":          {"DashboardName"},
	"AWS::EC2::SecurityGroup":             {"GroupDescription", "GroupName", "VpcId"},
	"AWS::EC2::SecurityGroupIngress": {
		"CidrIp", "CidrIpv6", "FromPort", "GroupId", "GroupName", "IpProtocol", "SourcePrefixListId", "SourceSecurityGroupId",
		"SourceSecurityGroupName", "SourceSecurityGroupOwnerId", "ToPort",
	},
	"AWS::IAM::ManagedPolicy": {"Description", "ManagedPolicyName", "Path"},
	"AWS::IAM::Role":          {"Path", "RoleName"},
	"AWS::Lambda::Function":   {"FunctionName", "PackageType"},
	"AWS::Lambda::Permission": {
		"Action", "EventSourceToken", "FunctionName", "FunctionUrlAuthType", "Principal", "PrincipalOrgID", "SourceAccount", "SourceArn",
	},
	"AWS::Logs::LogGroup": {"LogGroupName"},
	"AWS::RDS::DBCluster": {
		"AvailabilityZones", "ClusterScalabilityType", "DBClusterIdentifier", "DBSubnetGroupName", "DBSystemId", "DatabaseName", "Engine",
		"EngineMode", "GlobalClusterIdentifier", "KmsKeyId", "MasterUsername", "PubliclyAccessible", "RestoreToTime", "RestoreType",
		"SnapshotIdentifier", "SourceDBClusterIdentifier", "SourceRegion", "StorageEncrypted", "UseLatestRestorableTime",
	},
	"AWS::RDS::DBClusterParameterGroup": {"DBClusterParameterGroupName", "Description", "Family"},
	"AWS::RDS::DBInstance": {
		"AutoMinorVersionUpgrade", "AvailabilityZone", "BackupRetentionPeriod", "CharacterSetName", "CustomIAMInstanceProfile",
		"DBClusterIdentifier", "DBClusterSnapshotIdentifier", "DBInstanceIdentifier", "DBName", "DBParameterGroupName",
		"DBSnapshotIdentifier", "DBSubnetGroupName", "DBSystemId", "Engine", "KmsKeyId", "MasterUsername", "MultiAZ",
		"NcharCharacterSetName", "PerformanceInsightsKMSKeyId", "PreferredMaintenanceWindow", "RestoreTime",
		"SourceDBClusterIdentifier", "SourceDBInstanceAutomatedBackupsArn", "SourceDBInstanceIdentifier", "SourceDbiResourceId",
		"SourceRegion", "StorageEncrypted", "StorageType", "Timezone", "UseLatestRestorableTime",
	},
	"AWS::RDS::DBProxy":                     {"DBProxyName", "EngineFamily", "VpcSubnetIds"},
	"AWS::RDS::DBProxyEndpoint":             {"DBProxyEndpointName", "DBProxyName", "VpcSubnetIds"},
	"AWS::RDS::DBProxyTargetGroup":          {"DBProxyName", "TargetGroupName"},
	"AWS::RDS::DBSubnetGroup":               {"DBSubnetGroupName"},
	"AWS::SSM::Parameter":                   {"Name"},
	"AWS::SecretsManager::RotationSchedule": {"SecretId"},
	"AWS::SecretsManager::Secret":           {"Name"},
}

// CreateOnlyProperties are the properties of a CloudFormation type that cannot be changed
// in place, for the types in templates of this package; nil for others.
func CreateOnlyProperties(resourceType string) []string {
	return slices.Clone(createOnly[resourceType])
}

// Replacement is a resource that an update would delete: to make a new one in its
// place, or for good.
type Replacement struct {
	ID       string `json:"id"`                 // logical id, as "Cluster"
	Type     string `json:"type"`               // of the resource that is there now
	Property string `json:"property,omitempty"` // what forces the replacement; empty if the resource is gone from the template
	Old      any    `json:"old,omitempty"`
	New      any    `json:"new,omitempty"`
}

func (r Replacement) String() string {
	if r.Property == "" {
		return fmt.Sprintf("%s (%s) would be deleted", r.ID, r.Type)
	}
	return fmt.Sprintf("%s (%s) would be replaced: %s changes from %s to %s", r.ID, r.Type, r.Property, short(r.Old), short(r.New))
}

func short(v any) string {
	raw, err := json.Marshal(v)
	if err != nil || v == nil {
		return "nothing"
	}
	return string(raw)
}

// HoldsData reports whether deleting the resource loses data or an endpoint that clients
// know: a cluster, an instance, a proxy, a secret.
func (r Replacement) HoldsData() bool {
	return slices.Contains([]string{
		"AWS::RDS::DBCluster", "AWS::RDS::DBInstance", "AWS::RDS::DBProxy", "AWS::RDS::DBProxyEndpoint", "AWS::SecretsManager::Secret",
	}, r.Type)
}

// Replacements compares two templates, as JSON, and lists what an update from the old
// to the new would delete, by logical id. Templates of other makers may be given too;
// of types that this package does not use it finds only those that are gone.
// Parameters are taken to keep their values.
func Replacements(old, updated []byte) ([]Replacement, error) {
	was, err := resourcesOf(old)
	if err != nil {
		return nil, fmt.Errorf("aurora: the old template: %w", err)
	}
	will, err := resourcesOf(updated)
	if err != nil {
		return nil, fmt.Errorf("aurora: the new template: %w", err)
	}
	var all []Replacement
	for _, id := range slices.Sorted(maps.Keys(was)) {
		a, b := was[id], will[id]
		if a.Type != b.Type {
			all = append(all, Replacement{ID: id, Type: a.Type})
			continue
		}
		for _, property := range createOnly[a.Type] {
			x, y := a.Properties[property], b.Properties[property]
			if !reflect.DeepEqual(x, y) && !sameName(a.Type, property, x, y) {
				all = append(all, Replacement{id, a.Type, property, x, y})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b Replacement) int { return cmp.Compare(a.ID, b.ID) })
	return all, nil
}

// sameName knows that RDS lowers the case of identifiers.
func sameName(typ, property string, x, y any) bool {
	a, ok1 := x.(string)
	b, ok2 := y.(string)
	return ok1 && ok2 && strings.HasPrefix(typ, "AWS::RDS::") && strings.HasSuffix(property, "Identifier") && strings.EqualFold(a, b)
}

// stackResource is as much of a resource as is compared.
type stackResource struct {
	Type       string `json:"Type"`
	Properties props  `json:"Properties"`
}

func resourcesOf(text []byte) (map[string]stackResource, error) {
	var t struct {
		Resources map[string]stackResource `json:"Resources"`
	}
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, err
	}
	if len(t.Resources) == 0 {
		return nil, errors.New("it has no Resources; is it CloudFormation in JSON?")
	}
	return t.Resources, nil
}
