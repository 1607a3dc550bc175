package aurora

// How a template is put together: resources are added with the reason they are there,
// and written as JSON with sorted keys, so that the same Spec gives the same bytes.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Template renders the Spec as a CloudFormation template in JSON, after checking it
// with [Spec.Validate]. The same Spec gives the same bytes. The template holds no
// transforms and no assets, and needs CAPABILITY_IAM alone. Its parameters are VpcId,
// SubnetIds and ClientSecurityGroupIds, and DirectSecurityGroupIds where somebody may
// connect past the proxy; its outputs are what [HandoffFromOutputs] reads.
func (s Spec) Template() ([]byte, error) {
	t, err := s.checked()
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "\t")
	if err := enc.Encode(t); err != nil {
		return nil, fmt.Errorf("aurora: %w", err)
	}
	return b.Bytes(), nil
}

// Explanation says why a resource is in the template.
type Explanation struct {
	ID   string `json:"id"`   // logical id, as "Cluster"
	Type string `json:"type"` // CloudFormation type, as "AWS::RDS::DBCluster"
	Why  string `json:"why"`
	Doc  string `json:"doc"` // where AWS documents it
}

// Explain lists the template's resources, in the order a reader would want to meet
// them, each with its reason. The Spec is checked as by [Spec.Template].
func (s Spec) Explain() ([]Explanation, error) {
	t, err := s.checked()
	if err != nil {
		return nil, err
	}
	return t.explanations, nil
}

// props are properties, and CloudFormation's JSON in general.
type props = map[string]any

type template struct {
	Version     string                `json:"AWSTemplateFormatVersion"`
	Description string                `json:"Description"`
	Parameters  map[string]props      `json:"Parameters"`
	Rules       map[string]props      `json:"Rules"`
	Conditions  map[string]any        `json:"Conditions"`
	Resources   map[string]*resource  `json:"Resources"`
	Outputs     map[string]outputItem `json:"Outputs"`

	explanations []Explanation
	tags         map[string]string
}

type resource struct {
	Type                string   `json:"Type"`
	Condition           string   `json:"Condition,omitempty"`
	DependsOn           []string `json:"DependsOn,omitempty"`
	DeletionPolicy      string   `json:"DeletionPolicy,omitempty"`
	UpdateReplacePolicy string   `json:"UpdateReplacePolicy,omitempty"`
	Properties          props    `json:"Properties"`
}

type outputItem struct {
	Description string `json:"Description"`
	Value       any    `json:"Value"`
}

// add puts a resource into the template.
func (t *template) add(id, typ, why, doc string, p props) *resource {
	if len(t.tags) > 0 && slices.Contains(taggedTypes, typ) {
		p["Tags"] = t.tagsFor(typ)
	}
	r := &resource{Type: typ, Properties: p}
	t.Resources[id] = r
	t.explanations = append(t.explanations, Explanation{ID: id, Type: typ, Why: why, Doc: doc})
	return r
}

// taggedTypes are the types of ours that take tags.
var taggedTypes = []string{
	"AWS::RDS::DBCluster", "AWS::RDS::DBInstance", "AWS::RDS::DBClusterParameterGroup", "AWS::RDS::DBSubnetGroup",
	"AWS::RDS::DBProxy", "AWS::RDS::DBProxyEndpoint", "AWS::EC2::SecurityGroup", "AWS::IAM::Role", "AWS::Logs::LogGroup",
	"AWS::SecretsManager::Secret", "AWS::Lambda::Function", "AWS::CloudWatch::Alarm", "AWS::SSM::Parameter",
}

func (t *template) tagsFor(typ string) any {
	if typ == "AWS::SSM::Parameter" {
		return maps.Clone(t.tags)
	}
	list := []props{}
	for _, key := range slices.Sorted(maps.Keys(t.tags)) {
		list = append(list, props{"Key": key, "Value": t.tags[key]})
	}
	return list
}

func (t *template) output(id, description string, value any) {
	t.Outputs[id] = outputItem{description, value}
}

// CloudFormation's intrinsic functions.
// https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/intrinsic-function-reference.html
func ref(id string) props               { return props{"Ref": id} }
func getAtt(id, attribute string) props { return props{"Fn::GetAtt": []string{id, attribute}} }
func sub(format string) props           { return props{"Fn::Sub": format} }
func join(parts ...any) props           { return props{"Fn::Join": []any{"", parts}} }
func selectFrom(i int, list any) props  { return props{"Fn::Select": []any{strconv.Itoa(i), list}} }
func split(sep string, text any) props  { return props{"Fn::Split": []any{sep, text}} }
func statements(all ...props) props     { return props{"Version": "2012-10-17", "Statement": all} }

func allow(actions []string, resources any) props {
	return props{"Effect": "Allow", "Action": actions, "Resource": resources}
}

// assumedBy is the trust policy of a role for one AWS service.
func assumedBy(service string) props {
	return statements(props{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": props{"Service": service}})
}

// logicalName makes a part of a logical id, letters and digits only, of a user's name:
// "orders_app" becomes "OrdersApp".
func logicalName(name string) string {
	var b strings.Builder
	for part := range strings.SplitSeq(name, "_") {
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return b.String()
}

// leastSlots is how many security groups of a kind the template has rules for at least. A
// template without transforms cannot loop over a parameter.
const leastSlots = 5

func slots(groups []string) int { return max(leastSlots, len(groups)) }

// render builds the template of a Spec that has been checked, overrides included.
func (s Spec) render() (*template, error) {
	s = s.WithDefaults()
	t := &template{
		Version:     "2010-09-09",
		Description: s.description(),
		Parameters:  s.parameters(),
		Conditions:  map[string]any{},
		Resources:   map[string]*resource{},
		Outputs:     map[string]outputItem{},
		Rules: map[string]props{"SubnetsInVpc": {"Assertions": []props{{
			"Assert": props{"Fn::EachMemberIn": []any{
				props{"Fn::ValueOfAll": []string{"AWS::EC2::Subnet::Id", "VpcId"}},
				props{"Fn::RefAll": "AWS::EC2::VPC::Id"},
			}},
			"AssertDescription": "SubnetIds must be subnets of VpcId",
		}}}},
		tags: s.Tags,
	}
	s.addNetwork(t)
	s.addCluster(t)
	s.addSecrets(t)
	if !s.Proxy.Off {
		s.addProxy(t)
	}
	s.addClientPolicies(t)
	if err := s.addBootstrap(t); err != nil {
		return nil, err
	}
	s.addRotation(t)
	if !s.Alarms.Off {
		s.addAlarms(t)
	}
	s.addHandoff(t)
	for _, r := range t.Resources {
		slices.Sort(r.DependsOn) // as the CDK writes them
	}
	for i, o := range s.Overrides {
		if err := t.override(o); err != nil {
			return nil, &FieldError{Field: fmt.Sprintf("Overrides[%d]", i), Rule: RuleOverride, Reason: err.Error(), Doc: docTemplateReference}
		}
	}
	return t, nil
}

func (s Spec) description() string {
	front := "behind RDS Proxy"
	if s.Proxy.Off {
		front = "without a proxy"
	}
	return fmt.Sprintf("%s: Aurora PostgreSQL %s Serverless v2, %g to %g ACU, %s. Made by aurorapgx.", s.Name, s.Engine, s.Capacity.Min, s.Capacity.Max, front)
}

func (s Spec) parameters() map[string]props {
	all := map[string]props{
		"VpcId":                  {"Type": "AWS::EC2::VPC::Id", "Description": "The VPC of the cluster"},
		"SubnetIds":              {"Type": "List<AWS::EC2::Subnet::Id>", "Description": "Private subnets in at least two availability zones"},
		"ClientSecurityGroupIds": {"Type": "List<AWS::EC2::SecurityGroup::Id>", "Description": fmt.Sprintf("The security groups that may connect, at most %d", slots(s.Network.ClientSecurityGroups))},
	}
	if s.direct() {
		all["DirectSecurityGroupIds"] = props{
			"Type":        "List<AWS::EC2::SecurityGroup::Id>",
			"Description": fmt.Sprintf("The security groups that may connect to the cluster itself, past the proxy, at most %d", slots(s.Network.DirectSecurityGroups)),
		}
	}
	for id, value := range map[string]string{
		"VpcId":                  s.Network.VPC,
		"SubnetIds":              strings.Join(s.Network.Subnets, ","),
		"ClientSecurityGroupIds": strings.Join(s.Network.ClientSecurityGroups, ","),
		"DirectSecurityGroupIds": strings.Join(s.Network.DirectSecurityGroups, ","),
	} {
		if value != "" && all[id] != nil {
			all[id]["Default"] = value
		}
	}
	return all
}

// override sets or removes one property.
func (t *template) override(o Override) error {
	r, ok := t.Resources[o.Resource]
	if !ok {
		return fmt.Errorf("there is no resource %q; there are %s", o.Resource, strings.Join(slices.Sorted(maps.Keys(t.Resources)), ", "))
	}
	value, err := plain(o.Value)
	if err != nil {
		return fmt.Errorf("the value for %s.%s cannot be written as JSON: %w", o.Resource, o.Property, err)
	}
	at := r.Properties
	path := strings.Split(o.Property, ".")
	for i, name := range path {
		if name == "" {
			return fmt.Errorf("the property %q has an empty part", o.Property)
		}
		if i == len(path)-1 {
			if value == nil {
				delete(at, name)
			} else {
				at[name] = value
			}
			break
		}
		next, ok := at[name].(props)
		if !ok {
			if at[name] != nil {
				return fmt.Errorf("%s.%s is no object; override it as a whole", o.Resource, strings.Join(path[:i+1], "."))
			}
			next = props{}
			at[name] = next
		}
		at = next
	}
	return nil
}

// plain turns a value into what encoding/json would read back.
func plain(v any) (any, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var out any
	err = json.Unmarshal(raw, &out)
	return out, err
}
