package aurora

// What deploying a template over another one would do: which resources come, go, change in
// place, or are replaced.

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Effect is what a [Change] does to what is deployed.
type Effect string

// The effects, from harmless to harmful.
const (
	NoEffect Effect = "none"    // on resources; the template itself changes
	Create   Effect = "create"  // a resource is created
	Update   Effect = "update"  // a resource is changed in place
	Keep     Effect = "keep"    // a resource leaves the stack and stays
	Delete   Effect = "delete"  // a resource is deleted
	Replace  Effect = "replace" // a resource is created anew, and the old one deleted
)

// Change is one difference between two templates.
type Change struct {
	Resource string `json:"resource,omitempty"` // logical id; empty outside resources
	Type     string `json:"type,omitempty"`     // its CloudFormation type
	Path     string `json:"path,omitempty"`     // what differs, as "Properties.DBProxyName"; empty for a resource as a whole
	Before   any    `json:"before,omitempty"`
	After    any    `json:"after,omitempty"`
	Effect   Effect `json:"effect"`
	// Why says what is behind a replacement or a deletion, and what becomes of the data.
	Why string `json:"why,omitempty"`
	Doc string `json:"doc,omitempty"`
}

// Harmful reports whether something that exists goes away.
func (c Change) Harmful() bool { return c.Effect == Delete || c.Effect == Replace }

// Diff compares a deployed template with a new one. Both are JSON; what
// "aws cloudformation get-template" prints is taken as it is. A property that AWS can set
// only when a resource is created makes it a replacement, and so does a reference to a replaced
// resource from such a property. Changes of parameter values at deployment are not seen.
//
// Changes are ordered by resource, those outside resources last.
func Diff(deployed, next []byte) ([]Change, error) {
	old, err := readTemplate(deployed)
	if err != nil {
		return nil, fmt.Errorf("aurora: the deployed template: %w", err)
	}
	now, err := readTemplate(next)
	if err != nil {
		return nil, fmt.Errorf("aurora: the new template: %w", err)
	}
	var changes []Change
	for _, id := range union(old.Resources, now.Resources) {
		changes = append(changes, diffResource(id, old.Resources[id], now.Resources[id])...)
	}
	changes = append(changes, followReplacements(changes, old.Resources, now.Resources)...)
	slices.SortStableFunc(changes, func(a, b Change) int { return cmp.Compare(a.Resource, b.Resource) })
	for _, section := range union(old.rest, now.rest) {
		for _, d := range diffValues(section, old.rest[section], now.rest[section]) {
			c := Change{Path: d.path, Before: d.before, After: d.after, Effect: NoEffect}
			if group := movedGroup(d); group != "" {
				c.Why = group + " changes its place, and EC2 refuses the rule for the new one while there is that for the old: deployed with this value, the update fails. Append new groups, and write another one in the place of one that goes."
				c.Doc = docEC2Errors
			}
			changes = append(changes, c)
		}
	}
	return changes, nil
}

// movedGroup is a security group that has another place in one of our parameters than before.
func movedGroup(d difference) string {
	if d.path != "Parameters.ClientSecurityGroupIds.Default" && d.path != "Parameters.DirectSecurityGroupIds.Default" {
		return ""
	}
	before, _ := d.before.(string)
	after, _ := d.after.(string)
	old := strings.Split(before, ",")
	for i, group := range strings.Split(after, ",") {
		if at := slices.Index(old, group); at >= 0 && at != i {
			return group
		}
	}
	return ""
}

// readResource is a resource as a template of anybody's has it.
type readResource struct {
	Type                string
	Properties          map[string]any
	DeletionPolicy      string
	UpdateReplacePolicy string
	rest                map[string]any // all attributes but type and properties
}

type readTemplateResult struct {
	Resources map[string]*readResource
	rest      map[string]any // the other sections
}

// readTemplate reads a template, also one wrapped as get-template prints it.
func readTemplate(data []byte) (*readTemplateResult, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	var top map[string]any
	if err := dec.Decode(&top); err != nil {
		return nil, fmt.Errorf("it is no JSON (%w); \"aws cloudformation get-template --stack-name NAME\" has it as it was deployed", err)
	}
	if body, wrapped := top["TemplateBody"]; wrapped {
		if text, ok := body.(string); ok { // YAML, or JSON that was uploaded as text
			return readTemplate([]byte(text))
		}
		top, _ = body.(map[string]any)
	}
	resources, ok := top["Resources"].(map[string]any)
	if !ok {
		return nil, errors.New("it has no Resources: this is no CloudFormation template")
	}
	delete(top, "Resources")
	result := &readTemplateResult{Resources: map[string]*readResource{}, rest: top}
	for id, r := range resources {
		attributes, ok := r.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("resource %s is no object", id)
		}
		typ, _ := attributes["Type"].(string)
		properties, _ := attributes["Properties"].(map[string]any)
		deletion, _ := attributes["DeletionPolicy"].(string)
		replacement, _ := attributes["UpdateReplacePolicy"].(string)
		delete(attributes, "Type")
		delete(attributes, "Properties")
		result.Resources[id] = &readResource{typ, properties, deletion, replacement, attributes}
	}
	return result, nil
}

func union[V any](a, b map[string]V) []string {
	both := slices.Concat(slices.Collect(maps.Keys(a)), slices.Collect(maps.Keys(b)))
	slices.Sort(both)
	return slices.Compact(both)
}

func diffResource(id string, old, now *readResource) []Change {
	switch {
	case old == nil:
		return []Change{{Resource: id, Type: now.Type, Effect: Create}}
	case now == nil:
		c := Change{Resource: id, Type: old.Type, Effect: Delete, Why: whatRemains(old, deletionPolicy(old))}
		if strings.HasPrefix(old.DeletionPolicy, "Retain") {
			c.Effect = Keep
		}
		return []Change{c}
	case old.Type != now.Type:
		return []Change{{Resource: id, Type: now.Type, Path: "Type", Before: old.Type, After: now.Type, Effect: Replace, Why: whatRemains(old, replacePolicy(old, now))}}
	}
	var changes []Change
	for _, d := range diffValues("Properties", asAny(old.Properties), asAny(now.Properties)) {
		c := Change{Resource: id, Type: now.Type, Path: d.path, Before: d.before, After: d.after, Effect: Update}
		property, _, _ := strings.Cut(strings.TrimPrefix(d.path, "Properties."), ".")
		if slices.Contains(createOnly[now.Type], property) && !sameName(now.Type, property, d.before, d.after) {
			c.Effect, c.Doc = Replace, resourceDoc(now.Type)
			c.Why = strings.TrimSpace(property + " is set when the resource is created and cannot be changed. " + whatRemains(old, replacePolicy(old, now)))
		}
		changes = append(changes, c)
	}
	for _, d := range diffValues("", asAny(old.rest), asAny(now.rest)) {
		changes = append(changes, Change{Resource: id, Type: now.Type, Path: d.path, Before: d.before, After: d.after, Effect: NoEffect})
	}
	return changes
}

// deletionPolicy is what becomes of a resource that is gone from the template.
// https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-attribute-deletionpolicy.html
func deletionPolicy(r *readResource) string {
	if r.DeletionPolicy == "" && r.Type == "AWS::RDS::DBCluster" {
		return "Snapshot"
	}
	return cmp.Or(r.DeletionPolicy, "Delete")
}

// replacePolicy is what becomes of a resource that is replaced, for which DeletionPolicy has no say.
// The default is Delete, for clusters too. AWS does not document which of the two templates counts: it
// is taken to be the one that leaves less.
// https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-attribute-updatereplacepolicy.html
func replacePolicy(old, now *readResource) string {
	policies := []string{"Delete", "Snapshot", "Retain"}
	return policies[max(0, min(slices.Index(policies, old.UpdateReplacePolicy), slices.Index(policies, now.UpdateReplacePolicy)))]
}

// whatRemains says what becomes of the data in a resource that goes away under a policy.
func whatRemains(r *readResource, policy string) string {
	switch {
	case strings.HasPrefix(policy, "Retain"):
		return "The old one stays, outside the stack."
	case r.Type == "AWS::RDS::DBCluster" && policy == "Snapshot":
		return "Its data is lost to the application; a final snapshot is left."
	case r.Type == "AWS::RDS::DBCluster":
		return "All data in it is lost."
	case r.Type == "AWS::SecretsManager::Secret":
		return "The secret's values go with it."
	case r.Type == "AWS::RDS::DBProxy":
		return "Its endpoint changes, and clients are cut off until they have the new one."
	default:
		return ""
	}
}

// followReplacements finds the resources that have to be replaced because they name a replaced
// one in a property that cannot be changed.
func followReplacements(changes []Change, old, now map[string]*readResource) []Change {
	replaced := map[string]bool{}
	for _, c := range changes {
		if c.Effect == Replace {
			replaced[c.Resource] = true
		}
	}
	var more []Change
	for again := true; again; {
		again = false
		for _, id := range slices.Sorted(maps.Keys(now)) {
			if replaced[id] || old[id] == nil {
				continue
			}
			if c, ok := drawnAlong(id, old[id], now[id], replaced); ok {
				more, replaced[id], again = append(more, c), true, true
			}
		}
	}
	return more
}

func drawnAlong(id string, old, now *readResource, replaced map[string]bool) (Change, bool) {
	for _, property := range slices.Sorted(maps.Keys(now.Properties)) {
		if !slices.Contains(createOnly[now.Type], property) {
			continue
		}
		cause := ""
		walkReferences(now.Properties[property], func(target, _ string) {
			if replaced[target] {
				cause = target
			}
		})
		if cause != "" {
			return Change{
				Resource: id, Type: now.Type, Path: "Properties." + property, Effect: Replace, Doc: resourceDoc(now.Type),
				Before: old.Properties[property], After: now.Properties[property],
				Why: strings.TrimSpace(property + " refers to " + cause + ", which is replaced, and cannot be changed. " + whatRemains(old, replacePolicy(old, now))),
			}, true
		}
	}
	return Change{}, false
}

// difference is one place where two values differ.
type difference struct {
	path          string
	before, after any
}

// diffValues compares two values of a template. It goes into objects, but not into lists and not
// into intrinsic functions, which are shown as a whole.
func diffValues(path string, before, after any) []difference {
	old, oldOK := before.(map[string]any)
	now, nowOK := after.(map[string]any)
	if !oldOK || !nowOK || isIntrinsic(old) || isIntrinsic(now) {
		if equal(before, after) {
			return nil
		}
		return []difference{{path, before, after}}
	}
	var all []difference
	for _, key := range union(old, now) {
		inner := key
		if path != "" {
			inner = path + "." + key
		}
		all = append(all, diffValues(inner, old[key], now[key])...)
	}
	return all
}

func isIntrinsic(object map[string]any) bool {
	for key := range object {
		return len(object) == 1 && (key == "Ref" || key == "Condition" || strings.HasPrefix(key, "Fn::"))
	}
	return false
}

// equal compares JSON values, numbers by what they are worth.
func equal(a, b any) bool {
	if x, ok := a.(json.Number); ok {
		y, ok := b.(json.Number)
		xf, xErr := x.Float64()
		yf, yErr := y.Float64()
		return ok && (x == y || xErr == nil && yErr == nil && xf == yf)
	}
	if x, ok := a.([]any); ok {
		y, ok := b.([]any)
		return ok && slices.EqualFunc(x, y, equal)
	}
	if x, ok := a.(map[string]any); ok {
		y, ok := b.(map[string]any)
		return ok && maps.EqualFunc(x, y, equal)
	}
	return reflect.DeepEqual(a, b)
}

// asAny keeps a missing object from being compared as nil.
func asAny(object map[string]any) any {
	if object == nil {
		return map[string]any{}
	}
	return object
}

// resourceDoc is the page that lists a type's properties, and which of them replace.
func resourceDoc(typ string) string {
	return docResources + strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(typ, "AWS::"), "::", "-")) + ".html"
}

const docEC2Errors = "https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html" // InvalidPermission.Duplicate

const docResources = "https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-"
