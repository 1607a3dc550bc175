package aurora

// What refers to what inside a template.

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// attributes are what Fn::GetAtt can ask of our resources.
var attributes = map[string][]string{
	"AWS::RDS::DBCluster":         {"Endpoint.Address", "ReadEndpoint.Address", "DBClusterArn", "DBClusterResourceId", "MasterUserSecret.SecretArn"},
	"AWS::RDS::DBProxy":           {"Endpoint", "DBProxyArn"},
	"AWS::RDS::DBProxyEndpoint":   {"Endpoint", "DBProxyEndpointArn"},
	"AWS::RDS::DBInstance":        {"Endpoint.Address", "DBInstanceArn"},
	"AWS::EC2::SecurityGroup":     {"GroupId"},
	"AWS::IAM::Role":              {"Arn"},
	"AWS::Lambda::Function":       {"Arn"},
	"AWS::Logs::LogGroup":         {"Arn"},
	"AWS::SecretsManager::Secret": {"Id"},
}

var placeholder = regexp.MustCompile(`\$\{([^!}][^}]*)\}`)

// checkReferences finds references to what is not there, and circles.
func (t *template) checkReferences(p *problems) {
	edges := map[string][]string{}
	for _, id := range slices.Sorted(maps.Keys(t.Resources)) {
		r := t.Resources[id]
		seen := func(target, attribute string) {
			t.checkReference(p, id, target, attribute)
			if t.Resources[target] != nil {
				edges[id] = append(edges[id], target)
			}
		}
		v, _ := plain(r.Properties) // lint has done so before
		walkReferences(v, seen)
		checkFunctions(p, id, v)
		for _, target := range r.DependsOn {
			seen(target, "")
		}
		if r.Condition != "" && t.Conditions[r.Condition] == nil {
			p.add(id+".Condition", RuleReference, "there is no condition %q", r.Condition)
		}
	}
	for id, o := range t.Outputs {
		v, _ := plain(o.Value)
		walkReferences(v, func(target, attribute string) { t.checkReference(p, "Outputs."+id, target, attribute) })
	}
	if circle := findCircle(edges); circle != nil {
		p.add(circle[0], RuleReference, "the template goes in a circle: %s", strings.Join(circle, " needs "))
	}
}

func (t *template) checkReference(p *problems, from, target, attribute string) {
	r := t.Resources[target]
	switch {
	case r == nil && attribute == "" && (t.Parameters[target] != nil || strings.HasPrefix(target, "AWS::")):
	case r == nil:
		p.add(from, RuleReference, "it refers to %q, which the template does not have", target)
	case attribute != "" && !slices.Contains(attributes[r.Type], attribute):
		p.add(from, RuleReference, "it asks %s for %q, which a %s does not have", target, attribute, r.Type)
	}
}

// checkFunctions finds intrinsic functions that CloudFormation would refuse, need a
// transform, or cannot be followed here.
func checkFunctions(p *problems, from string, v any) {
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			checkFunctions(p, from, one)
		}
	case props:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if (key == "Ref" || strings.HasPrefix(key, "Fn::")) && (len(v) != 1 || !wellFormed(key, v[key])) {
				p.add(from, RuleReference, "%s is used in a way that cannot be checked; write Ref, Fn::GetAtt, Fn::Sub, Fn::Join, Fn::Select or Fn::Split as documented", key)
			}
			checkFunctions(p, from, v[key])
		}
	}
}

func wellFormed(function string, arg any) bool {
	args := list(arg)
	text, isText := arg.(string)
	first, second := "", any(nil)
	if len(args) == 2 {
		first, _ = args[0].(string)
		second = args[1]
	}
	switch function {
	case "Ref":
		return isText
	case "Fn::GetAtt":
		name, _ := second.(string)
		return isText && strings.Contains(text, ".") || first != "" && name != ""
	case "Fn::Sub":
		return isText || first != "" && object(second) != nil
	case "Fn::Join":
		return len(args) == 2 && (len(list(second)) > 0 || len(object(second)) == 1)
	case "Fn::Split":
		_, given := second.(string)
		return first != "" && (given || len(object(second)) == 1)
	case "Fn::Select":
		n, err := strconv.Atoi(first)
		return err == nil && n >= 0 && (n < len(list(second)) || len(object(second)) == 1)
	}
	return false
}

// walkReferences calls seen for every Ref, Fn::GetAtt and ${...} in v.
func walkReferences(v any, seen func(target, attribute string)) {
	switch v := v.(type) {
	case []any:
		for _, one := range v {
			walkReferences(one, seen)
		}
	case props:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			switch value := v[key]; key {
			case "Ref":
				seen(fmt.Sprint(value), "")
			case "Fn::GetAtt":
				if parts := list(value); len(parts) == 2 {
					seen(fmt.Sprint(parts[0]), fmt.Sprint(parts[1]))
				} else {
					target, attribute, _ := strings.Cut(fmt.Sprint(value), ".")
					seen(target, attribute)
				}
			case "Fn::Sub":
				text, own := value, props(nil)
				if parts := list(value); len(parts) == 2 {
					text, own = parts[0], object(parts[1])
					walkReferences(parts[1], seen)
				}
				for _, m := range placeholder.FindAllStringSubmatch(fmt.Sprint(text), -1) {
					if target, attribute, _ := strings.Cut(m[1], "."); own[m[1]] == nil {
						seen(target, attribute)
					}
				}
			default:
				walkReferences(value, seen)
			}
		}
	}
}

// findCircle returns the way round, the first one again at the end, or nil.
func findCircle(edges map[string][]string) []string {
	const open, done = 1, 2
	state := map[string]int{}
	var path []string
	var visit func(id string) []string
	visit = func(id string) []string {
		switch state[id] {
		case done:
			return nil
		case open:
			return append(path[slices.Index(path, id):], id)
		}
		state[id] = open
		path = append(path, id)
		for _, next := range edges[id] {
			if circle := visit(next); circle != nil {
				return circle
			}
		}
		path = path[:len(path)-1]
		state[id] = done
		return nil
	}
	for _, id := range slices.Sorted(maps.Keys(edges)) {
		if circle := visit(id); circle != nil {
			return circle
		}
	}
	return nil
}
