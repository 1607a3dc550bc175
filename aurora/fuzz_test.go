package aurora_test

import (
	"testing"
	"time"

	"github.com/aurorapgx/aurorapgx/aurora"
)

// FuzzSpecFields builds a Spec field by field from the input, out of values that are
// mostly right, so that combinations are tried rather than spellings.
func FuzzSpecFields(f *testing.F) {
	f.Add([]byte(nil))
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyz0123456789"))
	f.Fuzz(func(t *testing.T, choices []byte) {
		spec := specFrom(choices)
		if spec.Validate() != nil {
			if _, err := spec.Template(); err == nil {
				t.Error("refused and rendered")
			}
			return
		}
		checkInvariants(t, spec)
	})
}

// choice is a source of decisions; when it is used up it decides for the first.
type choice struct{ rest []byte }

func (c *choice) next(n int) int {
	if len(c.rest) == 0 {
		return 0
	}
	b := c.rest[0]
	c.rest = c.rest[1:]
	return int(b) % n
}

func pick[T any](c *choice, of ...T) T { return of[c.next(len(of))] }

func specFrom(choices []byte) aurora.Spec {
	c := &choice{choices}
	s := aurora.Spec{
		Name:     pick(c, "", "a", "orders-2", "x--y", "a${AWS::Region}"),
		Engine:   pick(c, "", "16.4", "14.6", "18.6", "15.4", "17.9'"),
		Database: pick(c, "", "orders", "a_b", `"`, "${Cluster}"),
		Auth:     pick(c, "", aurora.IAM, aurora.Secrets, aurora.Secrets),
		Capacity: aurora.Capacity{
			Min: pick(c, 0, 0.5, 2, 7.5, 256, -1), Max: pick(c, 0, 1, 32, 256, 0.5),
			AutoPause: pick(c, 0, 0, 0, 5*time.Minute, time.Second),
		},
		WriterOnly:        pick(c, false, true),
		IOOptimized:       pick(c, false, true),
		DataAPI:           pick(c, false, true),
		Disposable:        pick(c, false, true),
		BootstrapAtDeploy: pick(c, false, true),
		KMSKey:            pick(c, "", "arn:aws:kms:eu-west-1:123456789012:key/0a1b2c3d", "arn:aws:kms:*:123456789012:key/*"),
		LogDays:           pick(c, 0, 1, 3653, 2),
		MaintenanceWindow: pick(c, "", "sun:04:00-sun:05:00", "*"),
		Tags:              pick(c, nil, map[string]string{"a": "b"}, map[string]string{"a": "*"}),
	}
	s.Proxy = aurora.Proxy{
		Off: pick(c, false, false, true), NoReaderEndpoint: pick(c, false, true), DebugLogging: pick(c, false, true),
		MaxConnectionsPercent: pick(c, 0, 1, 100, 101), MaxIdleConnectionsPercent: pick(c, 0, 1, 50),
		BorrowTimeout: pick(c, 0, time.Second, 301*time.Second), IdleClientTimeout: pick(c, 0, time.Minute, time.Second),
		Session: pick(c, nil, map[string]string{}, map[string]string{"search_path": "o'clock, public"}, map[string]string{"x": "${Nobody}"}),
	}
	s.Rotation = aurora.Rotation{
		Every: pick(c, 0, 5*time.Hour, 24*time.Hour, time.Minute), Off: pick(c, false, true),
		FunctionARN: pick(c, "", "arn:aws:lambda:eu-west-1:123456789012:function:rotate", "*"),
		Strategy:    pick(c, "", aurora.SingleUser, aurora.AlternatingUsers),
	}
	s.Insights = aurora.Insights{Off: pick(c, false, true), Advanced: pick(c, false, true), Days: pick(c, 0, 31, 731, 8)}
	s.Alarms = aurora.Alarms{
		Off: pick(c, false, true), Period: pick(c, 0, time.Minute, time.Hour, time.Second),
		TopicARN: pick(c, "", "arn:aws:sns:eu-west-1:123456789012:alarms", "${Nobody}"),
	}
	for range c.next(4) {
		s.Readers = append(s.Readers, aurora.Reader{Tier: pick(c, 0, 1, 15, 16)})
	}
	for range c.next(5) {
		s.Users = append(s.Users, aurora.User{
			Name:   pick(c, "app", "reports", "a_b", "a_1", "a1", "x__y", "*", "app/*", "${AWS::Region}", "dbadmin"),
			Access: pick(c, "", aurora.ReadOnly, aurora.Owner, "all"),
		})
	}
	for range c.next(3) {
		s.Overrides = append(s.Overrides, aurora.Override{
			Resource: pick(c, "Cluster", "Proxy", "ConnectApp", "ProxyRole", "ProxyTargets", "Instance1", "AlarmCapacity1", "Nobody"),
			Property: pick(c, "Port", "StorageEncrypted", "PolicyDocument", "Policies", "Tags", "ServerlessV2ScalingConfiguration.MinCapacity", "VpcSubnetIds", "Period", "a.b.c", ""),
			Value: pick[any](c, nil, true, 5433, "x", map[string]any{"Ref": "Cluster"}, map[string]any{"Fn::GetAtt": []any{"Proxy", "Endpoint"}},
				policyOf("rds-db:connect", "arn:aws:rds-db:eu-west-1:123456789012:dbuser:prx-1/app"), policyOf("rds-db:connect", "*"),
				[]any{map[string]any{"PolicyName": "p", "PolicyDocument": policyOf([]any{"secretsmanager:GetSecretValue"}, []any{"arn:*"})}},
				[]any{"subnet-1", "subnet-2"}),
		})
	}
	s.Network.DirectSecurityGroups = pick(c, nil, []string{"sg-0123456789abcdef2"}, []string{"0.0.0.0/0"})
	if len(s.Users) > 0 {
		s.Users[0].Direct = pick(c, false, true)
	}
	return s
}
