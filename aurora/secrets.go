package aurora

// Passwords, for those who cannot use IAM: one secret for each user, rotated by a
// function inside the template that reaches the database through the Data API. It
// needs no VPC, no driver and no asset.

import (
	_ "embed"
	"fmt"
	"time"
)

const (
	docRotation = "https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_lambda-functions.html"
	docDataAPI  = docAUG + "data-api.html"
	// runtime of the functions inside the template.
	runtime = "python3.14"
)

//go:embed rotate.py
var rotateCode string

//go:embed bootstrap.py
var bootstrapCode string

// addBootstrap adds a custom resource that runs what [Bootstrap] would, whenever the
// statements change.
func (s Spec) addBootstrap(t *template) error {
	if !s.BootstrapAtDeploy {
		return nil
	}
	sql, err := checkedBootstrapStatements(s)
	if err != nil {
		return &FieldError{Field: "Users", Rule: RuleUsers, Reason: err.Error(), Doc: RuleUsers.Doc()}
	}
	s.addFunction(t, "Bootstrap", "creates users, schemas and grants, in one transaction", docDataAPI, bootstrapCode, nil)
	t.add("Bootstrap", "AWS::CloudFormation::CustomResource", "calls the function when the stack is deployed, and again when users or schemas change", docCFN+"aws-resource-cloudformation-customresource.html", props{
		"ServiceToken": getAtt("BootstrapFunction", "Arn"), "ServiceTimeout": 360, "Statements": sql,
	}).DependsOn = s.instances()
	return nil
}

func (s Spec) addSecrets(t *template) {
	if s.Auth != Secrets {
		return
	}
	for _, u := range s.Users {
		id := "Secret" + logicalName(u.Name)
		p := props{
			"Name":        s.Name + "/" + u.Name,
			"Description": s.Name + ": user name and password of " + u.Name,
			"GenerateSecretString": props{
				"SecretStringTemplate": fmt.Sprintf(`{"username":%q}`, u.Name),
				"GenerateStringKey":    "password",
				"PasswordLength":       40,
				"ExcludePunctuation":   true,
			},
		}
		if s.KMSKey != "" {
			p["KmsKeyId"] = s.KMSKey
		}
		t.add(id, "AWS::SecretsManager::Secret", "holds the user name and password of "+u.Name, docAUG+"rds-proxy-secrets-arns.html", p)
	}
}

// addRotation adds the schedules, and the function they call unless there is another.
func (s Spec) addRotation(t *template) {
	if s.Auth != Secrets || s.Rotation.Off {
		return
	}
	var function any = s.Rotation.FunctionARN
	depends := s.instances()
	if s.BootstrapAtDeploy {
		depends = append(depends, "Bootstrap")
	}
	if s.rotatesInStack() {
		var secrets []any
		for _, u := range s.Users {
			secrets = append(secrets, ref("Secret"+logicalName(u.Name)))
		}
		own := append([]props{allow([]string{
			"secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue", "secretsmanager:UpdateSecretVersionStage",
		}, secrets)}, useKey(s.KMSKey, secretsManager, "kms:Decrypt", "kms:GenerateDataKey")...)
		s.addFunction(t, "Rotation", "changes a user's password, in the database and in its secret", docRotation, rotateCode, own)
		t.add("RotationPermission", "AWS::Lambda::Permission", "lets Secrets Manager call the function", docRotation, props{
			"FunctionName": getAtt("RotationFunction", "Arn"), "Action": "lambda:InvokeFunction",
			"Principal": "secretsmanager.amazonaws.com", "SourceAccount": ref("AWS::AccountId"),
		})
		function = getAtt("RotationFunction", "Arn")
		depends = append(depends, "RotationPermission")
	}
	for _, u := range s.Users {
		t.add("Rotate"+logicalName(u.Name), "AWS::SecretsManager::RotationSchedule", "changes the password of "+u.Name+" at once and then regularly", docRotation, props{
			"SecretId":          ref("Secret" + logicalName(u.Name)),
			"RotationLambdaARN": function,
			"RotationRules":     props{"ScheduleExpression": rate(s.Rotation.Every)},
		}).DependsOn = depends
	}
}

// rate is the schedule expression for a time between rotations.
// https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_schedule.html
func rate(every time.Duration) string {
	if hours := int(every / time.Hour); hours%24 != 0 {
		return fmt.Sprintf("rate(%d hours)", hours)
	}
	if days := int(every / (24 * time.Hour)); days != 1 {
		return fmt.Sprintf("rate(%d days)", days)
	}
	return "rate(1 day)"
}

// secretsManager is how KMS knows requests that come through Secrets Manager.
var secretsManager = sub("secretsmanager.${AWS::Region}.${AWS::URLSuffix}")

// readSecrets are the statements that let someone read exactly these secrets.
func readSecrets(key string, via any, arns ...any) []props {
	return append([]props{allow([]string{"secretsmanager:GetSecretValue"}, arns)}, useKey(key, via, "kms:Decrypt")...)
}

// useKey lets someone use the key, if there is one, through Secrets Manager.
func useKey(key string, via any, actions ...string) []props {
	if key == "" {
		return nil
	}
	rule := allow(actions, []any{key})
	rule["Condition"] = props{"StringEquals": props{"kms:ViaService": via}}
	return []props{rule}
}

// addFunction adds a function that may run SQL as the administrator, with its role and
// its log, and with what else it is allowed.
func (s Spec) addFunction(t *template, name, why, doc, code string, more []props) {
	t.addLogGroup(name+"Logs", "", "keeps the log of the function for a limited time", s.LogDays)
	rules := []props{
		allow([]string{"rds-data:BeginTransaction", "rds-data:CommitTransaction", "rds-data:ExecuteStatement", "rds-data:RollbackTransaction"}, []any{getAtt("Cluster", "DBClusterArn")}),
		allow([]string{"secretsmanager:GetSecretValue"}, []any{getAtt("Cluster", "MasterUserSecret.SecretArn")}),
		allow([]string{"logs:CreateLogStream", "logs:PutLogEvents"}, []any{getAtt(name+"Logs", "Arn")}),
	}
	if len(more) == 0 {
		more = useKey(s.KMSKey, secretsManager, "kms:Decrypt")
	}
	t.add(name+"Role", "AWS::IAM::Role", "lets the function use the Data API of this cluster, and nothing else", docDataAPI, props{
		"AssumeRolePolicyDocument": assumedBy("lambda.amazonaws.com"),
		"Policies":                 []props{{"PolicyName": "run", "PolicyDocument": statements(append(rules, more...)...)}},
	})
	t.add(name+"Function", "AWS::Lambda::Function", why, doc, props{
		"Runtime": runtime, "Handler": "index.handler", "Timeout": 300, "MemorySize": 256,
		"Role":          getAtt(name+"Role", "Arn"),
		"Code":          props{"ZipFile": code},
		"LoggingConfig": props{"LogGroup": ref(name + "Logs")},
		"Environment": props{"Variables": props{
			"CLUSTER": getAtt("Cluster", "DBClusterArn"), "ADMIN": getAtt("Cluster", "MasterUserSecret.SecretArn"), "DATABASE": s.Database,
		}},
	})
}
