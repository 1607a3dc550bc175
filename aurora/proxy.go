package aurora

// The RDS Proxy in front of the cluster, and the role it works with.

import (
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"
)

const docProxy = docAUG + "rds-proxy.html"

func (s Spec) addProxy(t *template) {
	t.addLogGroup("ProxyLogs", "/aws/rds/proxy/"+s.Name, "keeps the proxy's log for a limited time; RDS would create it to keep it forever", s.LogDays)
	policy := props{"PolicyName": "connect", "PolicyDocument": statements(s.proxyStatements()...)}
	t.add("ProxyRole", "AWS::IAM::Role", "lets the proxy log in to the cluster as the users of this template, and as no one else",
		docAUG+"rds-proxy-iam-setup.html", props{
			"AssumeRolePolicyDocument": assumedBy("rds.amazonaws.com"),
			"Policies":                 []props{policy},
		})
	p := props{
		"DBProxyName":         s.Name,
		"EngineFamily":        "POSTGRESQL",
		"RequireTLS":          true,
		"IdleClientTimeout":   seconds(s.Proxy.IdleClientTimeout),
		"DebugLogging":        s.Proxy.DebugLogging,
		"RoleArn":             getAtt("ProxyRole", "Arn"),
		"VpcSubnetIds":        ref("SubnetIds"),
		"VpcSecurityGroupIds": []any{getAtt("ProxySecurityGroup", "GroupId")},
	}
	if s.Auth == IAM {
		p["DefaultAuthScheme"] = "IAM_AUTH"
	} else {
		var auth []props
		for _, u := range s.Users {
			auth = append(auth, props{
				"AuthScheme": "SECRETS", "IAMAuth": "DISABLED", "ClientPasswordAuthType": "POSTGRES_SCRAM_SHA_256",
				"SecretArn": ref("Secret" + logicalName(u.Name)),
			})
		}
		p["Auth"] = auth
	}
	t.add("Proxy", "AWS::RDS::DBProxy", "shares the cluster's connections among many clients, and keeps the clients' through a failover", docProxy, p).
		DependsOn = []string{"ProxyLogs"}

	pool := props{
		"MaxConnectionsPercent":     s.Proxy.MaxConnectionsPercent,
		"MaxIdleConnectionsPercent": s.Proxy.MaxIdleConnectionsPercent,
		"ConnectionBorrowTimeout":   seconds(s.Proxy.BorrowTimeout),
		// Also where it is empty: what an update leaves out keeps its value, and an empty query
		// clears it: https://github.com/hashicorp/terraform-provider-aws/pull/49876
		"InitQuery": s.initQuery(),
	}
	t.add("ProxyTargets", "AWS::RDS::DBProxyTargetGroup", "tells the proxy its cluster; waits for the instances, without which it would find nobody",
		docAUG+"rds-proxy-connections.html", props{
			"DBProxyName": ref("Proxy"), "TargetGroupName": "default",
			"DBClusterIdentifiers":            []any{ref("Cluster")},
			"ConnectionPoolConfigurationInfo": pool,
		}).DependsOn = append(s.instances(), "ClusterFromProxy")

	if s.hasReaderEndpoint() {
		t.add("ProxyReaderEndpoint", "AWS::RDS::DBProxyEndpoint", "leads to the readers, through the proxy", docAUG+"rds-proxy-endpoints.html", props{
			"DBProxyName": ref("Proxy"), "DBProxyEndpointName": s.Name + "-read-only", "TargetRole": "READ_ONLY",
			"VpcSubnetIds":        ref("SubnetIds"),
			"VpcSecurityGroupIds": []any{getAtt("ProxySecurityGroup", "GroupId")},
		})
	}
}

// hasReaderEndpoint reports whether the proxy has an endpoint for the readers.
func (s Spec) hasReaderEndpoint() bool {
	return !s.Proxy.Off && len(s.Readers) > 0 && !s.Proxy.NoReaderEndpoint
}

// proxyStatements let the proxy log in: with IAM as each user of the cluster, else with
// each user's secret. End-to-end IAM without the former fails at the database.
func (s Spec) proxyStatements() []props {
	if s.Auth == IAM {
		var users []any
		for _, u := range s.Users {
			users = append(users, dbUserARN(getAtt("Cluster", "DBClusterResourceId"), u.Name))
		}
		return []props{allow([]string{"rds-db:connect"}, users)}
	}
	var secrets []any
	for _, u := range s.Users {
		secrets = append(secrets, ref("Secret"+logicalName(u.Name)))
	}
	return readSecrets(s.KMSKey, secretsManager, secrets...)
}

// dbUserARN names one user of one proxy or cluster.
// https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/UsingWithRDS.IAMDBAuth.IAMPolicy.html
func dbUserARN(resource any, user string) any {
	return join(sub("arn:${AWS::Partition}:rds-db:${AWS::Region}:${AWS::AccountId}:dbuser:"), resource, "/"+user)
}

// resourceID is the part of a client's policy that names the server: the proxy's id is
// the last part of its ARN.
func (s Spec) resourceID() any {
	if s.Proxy.Off {
		return getAtt("Cluster", "DBClusterResourceId")
	}
	return selectFrom(6, split(":", getAtt("Proxy", "DBProxyArn")))
}

// initQuery sets the session settings on each new database connection of the proxy.
func (s Spec) initQuery() string {
	var sets []string
	for _, name := range slices.Sorted(maps.Keys(s.Proxy.Session)) {
		values := []string{s.Proxy.Session[name]}
		if slices.Contains(listSettings, name) {
			values, _ = splitNames(values[0]) // Validate has seen to it
		}
		for i, value := range values {
			values[i] = quoteLiteral(value)
		}
		sets = append(sets, "SET "+name+" = "+strings.Join(values, ", "))
	}
	return strings.Join(sets, "; ")
}

// listSettings are the lists of names that a session can set. Within one pair of quotes PostgreSQL
// takes such a list for a single name with commas in it, so each name gets quotes of its own.
// https://www.postgresql.org/docs/current/sql-set.html, and variable_is_guc_list_quote in
// https://github.com/postgres/postgres/blob/REL_17_STABLE/src/bin/pg_dump/dumputils.c
var listSettings = []string{"search_path", "temp_tablespaces"}

var listedName = regexp.MustCompile(`^\s*(?:"((?:[^"]|"")*)"|([^\s",]+))\s*(,|$)`)

// splitNames takes a list apart as PostgreSQL does in its configuration file: names without double
// quotes are lower-case. The empty list is one empty name, which stands for none.
func splitNames(list string) ([]string, error) {
	if strings.TrimSpace(list) == "" {
		return []string{""}, nil
	}
	var names []string
	for more := true; more; {
		m := listedName.FindStringSubmatch(list)
		if m == nil {
			return nil, errors.New(`this is no list of names; write app, public, and in double quotes what is no plain name: "My Schema"`)
		}
		names = append(names, strings.ReplaceAll(m[1], `""`, `"`)+strings.ToLower(m[2]))
		list, more = list[len(m[0]):], m[3] == ","
	}
	return names, nil
}

// addClientPolicies adds one policy for each user, to be attached to the roles that log
// in as that user.
func (s Spec) addClientPolicies(t *template) {
	for _, u := range s.Users {
		logins := []any{dbUserARN(s.resourceID(), u.Name)}
		if u.Direct && !s.Proxy.Off {
			logins = append(logins, dbUserARN(getAtt("Cluster", "DBClusterResourceId"), u.Name))
		}
		rules := []props{allow([]string{"rds-db:connect"}, logins)}
		why := "lets the role it is attached to log in as " + u.Name
		if s.Auth == Secrets {
			rules = readSecrets(s.KMSKey, secretsManager, ref("Secret"+logicalName(u.Name)))
			why = "lets the role it is attached to read the password of " + u.Name
		}
		t.add("Connect"+logicalName(u.Name), "AWS::IAM::ManagedPolicy", why, docAUG+"UsingWithRDS.IAMDBAuth.IAMPolicy.html", props{
			"Description":    s.Name + ": log in to the database as " + u.Name,
			"PolicyDocument": statements(rules...),
		})
	}
}
