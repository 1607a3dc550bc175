// Package cfneval stands in for CloudFormation in tests: it gives parameters and
// intrinsic functions their values, as a deployment would, so that a test can look at
// the resources and outputs of a "deployed" stack. It knows what templates of the
// aurora package use, and fails on anything else.
package cfneval

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Stack is where a template is deployed.
type Stack struct {
	Region     string
	Account    string
	Parameters map[string]string // lists are separated by commas
}

// Deployed is what came of it.
type Deployed struct {
	Resources map[string]Resource
	Outputs   map[string]string
}

// Resource is a resource whose condition holds.
type Resource struct {
	Type       string
	Properties map[string]any
}

// Deploy evaluates the template.
func (s Stack) Deploy(template []byte) (*Deployed, error) {
	var t templateFile
	if err := json.Unmarshal(template, &t); err != nil {
		return nil, err
	}
	for name, p := range t.Parameters {
		if s.Parameters[name] == "" && p.Default == "" {
			return nil, fmt.Errorf("parameter %s has no value", name)
		}
	}
	e := evaluation{s, t}
	out := &Deployed{map[string]Resource{}, map[string]string{}}
	for id, r := range t.Resources {
		if r.Condition != "" {
			holds, err := e.condition(t.Conditions[r.Condition])
			if err != nil {
				return nil, fmt.Errorf("condition %s: %w", r.Condition, err)
			}
			if !holds {
				continue
			}
		}
		v, err := e.value(r.Properties)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", id, err)
		}
		properties, ok := v.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("%s: its properties are %v", id, v)
		}
		out.Resources[id] = Resource{r.Type, properties}
	}
	for id, o := range t.Outputs {
		v, err := e.value(o.Value)
		if err != nil {
			return nil, fmt.Errorf("output %s: %w", id, err)
		}
		out.Outputs[id] = fmt.Sprint(v)
	}
	return out, nil
}

type templateFile struct {
	Parameters map[string]parameter `json:"Parameters"`
	Conditions map[string]any       `json:"Conditions"`
	Resources  map[string]resource  `json:"Resources"`
	Outputs    map[string]output    `json:"Outputs"`
}

type parameter struct {
	Type    string `json:"Type"`
	Default string `json:"Default"`
}

type resource struct {
	Type       string         `json:"Type"`
	Condition  string         `json:"Condition"`
	Properties map[string]any `json:"Properties"`
}

type output struct {
	Value any `json:"Value"`
}

type evaluation struct {
	stack    Stack
	template templateFile
}

func (e evaluation) condition(v any) (bool, error) {
	name, arg, err := function(v)
	args, _ := arg.([]any)
	if err != nil {
		return false, err
	}
	switch {
	case name == "Fn::Not" && len(args) == 1:
		holds, err := e.condition(args[0])
		return !holds, err
	case name == "Fn::Equals" && len(args) == 2:
		a, err1 := e.value(args[0])
		b, err2 := e.value(args[1])
		return a == b, errors.Join(err1, err2)
	}
	return false, fmt.Errorf("%s is not a condition", name)
}

// function takes an object with one key apart.
func function(v any) (name string, arg any, err error) {
	o, _ := v.(map[string]any)
	if len(o) != 1 {
		return "", nil, fmt.Errorf("%v is no intrinsic function", v)
	}
	for name, arg = range o {
	}
	return name, arg, nil
}

func (e evaluation) value(v any) (any, error) {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i := range v {
			var err error
			if out[i], err = e.value(v[i]); err != nil {
				return nil, err
			}
		}
		return out, nil
	case map[string]any:
		if name, arg, err := function(v); err == nil && (name == "Ref" || strings.HasPrefix(name, "Fn::")) {
			return e.call(name, arg)
		}
		out := map[string]any{}
		for key := range v {
			var err error
			if out[key], err = e.value(v[key]); err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
		}
		return out, nil
	}
	return v, nil
}

func (e evaluation) call(name string, arg any) (any, error) {
	if name == "Ref" {
		return e.ref(fmt.Sprint(arg))
	}
	if text, ok := arg.(string); ok && name == "Fn::Sub" {
		return e.sub(text, nil)
	}
	args, _ := arg.([]any)
	if id, attribute, ok := strings.Cut(fmt.Sprint(arg), "."); ok && name == "Fn::GetAtt" && args == nil {
		return e.attribute(id, attribute)
	}
	if len(args) != 2 {
		return nil, fmt.Errorf("%s with %v", name, arg)
	}
	if name == "Fn::Sub" {
		v, err := e.value(args[1])
		if err != nil {
			return nil, err
		}
		own, ok := v.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("Fn::Sub with the values %v", v)
		}
		return e.sub(fmt.Sprint(args[0]), own)
	}
	second, err := e.value(args[1])
	if err != nil {
		return nil, err
	}
	items, _ := second.([]any)
	switch first := fmt.Sprint(args[0]); name {
	case "Fn::GetAtt":
		return e.attribute(first, fmt.Sprint(second))
	case "Fn::Join":
		texts := make([]string, len(items))
		for i := range items {
			texts[i] = fmt.Sprint(items[i])
		}
		return strings.Join(texts, first), nil
	case "Fn::Split":
		out := []any{}
		for part := range strings.SplitSeq(fmt.Sprint(second), first) {
			out = append(out, part)
		}
		return out, nil
	case "Fn::Select":
		if i, err := strconv.Atoi(first); err == nil && i >= 0 && i < len(items) {
			return items[i], nil
		}
		return nil, fmt.Errorf("there is no element %s in %v", first, items)
	}
	return nil, fmt.Errorf("%s is not known here", name)
}

var placeholder = regexp.MustCompile(`\$\{([^!}][^}]*)\}`)

func (e evaluation) sub(text string, own map[string]any) (any, error) {
	var failed error
	out := placeholder.ReplaceAllStringFunc(text, func(m string) string {
		name := m[2 : len(m)-1]
		if v, ok := own[name]; ok {
			return fmt.Sprint(v)
		}
		id, attribute, ok := strings.Cut(name, ".")
		v, err := e.ref(id)
		if ok {
			v, err = e.attribute(id, attribute)
		}
		failed = errors.Join(failed, err)
		return fmt.Sprint(v)
	})
	return out, failed
}

func (e evaluation) ref(id string) (any, error) {
	pseudo := map[string]string{
		"AWS::Region": e.stack.Region, "AWS::AccountId": e.stack.Account, "AWS::Partition": "aws", "AWS::URLSuffix": "amazonaws.com", "AWS::StackName": "stack",
	}
	if v, ok := pseudo[id]; ok {
		return v, nil
	}
	if p, ok := e.template.Parameters[id]; ok {
		text := e.stack.Parameters[id]
		if text == "" {
			text = p.Default
		}
		if !strings.HasPrefix(p.Type, "List<") {
			return text, nil
		}
		out := []any{}
		for part := range strings.SplitSeq(text, ",") {
			out = append(out, part)
		}
		return out, nil
	}
	r, ok := e.template.Resources[id]
	if !ok {
		return nil, fmt.Errorf("there is no %q", id)
	}
	switch r.Type {
	case "AWS::IAM::ManagedPolicy":
		return e.arn("iam", "policy/stack-"+id), nil
	case "AWS::SecretsManager::Secret":
		return e.arn("secretsmanager", fmt.Sprintf("secret:%v-AbCdEf", r.Properties["Name"])), nil
	}
	for _, name := range []string{"DBClusterIdentifier", "DBInstanceIdentifier", "DBProxyName", "LogGroupName", "Name"} {
		if v, ok := r.Properties[name].(string); ok {
			return v, nil
		}
	}
	return "stack-" + strings.ToLower(id), nil
}

func (e evaluation) attribute(id, attribute string) (any, error) {
	r, ok := e.template.Resources[id]
	if !ok {
		return nil, fmt.Errorf("there is no %q", id)
	}
	name := func(property string) string { return fmt.Sprint(r.Properties[property]) }
	host := func(kind string) string { return kind + "." + e.stack.Region + ".rds.amazonaws.com" }
	all := map[string]map[string]any{
		"AWS::RDS::DBCluster": {
			"Endpoint.Address":           name("DBClusterIdentifier") + "." + host("cluster-c1a2b3d4e5f6"),
			"ReadEndpoint.Address":       name("DBClusterIdentifier") + "." + host("cluster-ro-c1a2b3d4e5f6"),
			"DBClusterArn":               e.arn("rds", "cluster:"+name("DBClusterIdentifier")),
			"DBClusterResourceId":        "cluster-ABCDEFGHIJKLMNOPQRSTUVWXYZ",
			"MasterUserSecret.SecretArn": e.arn("secretsmanager", "secret:rds!cluster-0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f-AbCdEf"),
		},
		"AWS::RDS::DBProxy": {
			"Endpoint":   name("DBProxyName") + "." + host("proxy-c1a2b3d4e5f6"),
			"DBProxyArn": e.arn("rds", "db-proxy:prx-0123456789abcdef0"),
		},
		"AWS::RDS::DBProxyEndpoint": {"Endpoint": name("DBProxyEndpointName") + ".endpoint." + host("proxy-c1a2b3d4e5f6")},
		"AWS::EC2::SecurityGroup":   {"GroupId": "sg-" + digest(id)[:17]},
		"AWS::IAM::Role":            {"Arn": e.arn("iam", "role/stack-"+id)},
		"AWS::Lambda::Function":     {"Arn": e.arn("lambda", "function:stack-"+id)},
		"AWS::Logs::LogGroup":       {"Arn": e.arn("logs", "log-group:stack-"+id+":*")},
	}
	v, ok := all[r.Type][attribute]
	if !ok {
		return nil, fmt.Errorf("a %s has no attribute %q; it has %v", r.Type, attribute, slices.Sorted(maps.Keys(all[r.Type])))
	}
	return v, nil
}

func (e evaluation) arn(service, rest string) string {
	region := e.stack.Region
	if service == "iam" {
		region = ""
	}
	return "arn:aws:" + service + ":" + region + ":" + e.stack.Account + ":" + rest
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}
