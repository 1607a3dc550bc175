// Package schemacheck holds our templates against AWS's resource provider schemas, the
// ones CloudFormation itself checks resources with. They come with the sources of
// https://github.com/aws-cloudformation/rain; the tests read them from the module
// cache.
package schemacheck

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	_ "github.com/aws-cloudformation/rain/cft/visitor" // the smallest package of the module that has the schemas
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Schemas are the provider schemas in a directory.
type Schemas struct {
	dir      string
	compiled map[string]*jsonschema.Schema
}

// Open finds the schemas in the module cache.
func Open() (*Schemas, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/aws-cloudformation/rain").Output()
	if err != nil {
		return nil, fmt.Errorf("the module with the schemas: %w", err)
	}
	return &Schemas{filepath.Join(strings.TrimSpace(string(out)), "internal/aws/cfn/schemas"), map[string]*jsonschema.Schema{}}, nil
}

// newer are properties that these schemas do not have, because they are newer or our
// own, with what they lift.
var newer = map[string]struct {
	properties  map[string]any
	notRequired []string
}{
	// End-to-end IAM: with it, Auth is optional.
	// https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/aws-resource-rds-dbproxy.html
	"AWS::RDS::DBProxy": {
		properties:  map[string]any{"DefaultAuthScheme": map[string]any{"type": "string", "enum": []any{"NONE", "IAM_AUTH"}}},
		notRequired: []string{"Auth"},
	},
	// What a custom resource hands to its function is free.
	"AWS::CloudFormation::CustomResource": {
		properties: map[string]any{"Statements": map[string]any{"type": "array", "minItems": 1, "items": map[string]any{"type": "string"}}},
	},
}

// Read returns the schema of a type as AWS published it.
func (s *Schemas) Read(typ string) (map[string]any, error) {
	parts := strings.Split(strings.ToLower(typ), "::")
	raw, err := os.ReadFile(filepath.Join(append([]string{s.dir}, parts...)...) + ".json")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", typ, err)
	}
	var schema map[string]any
	return schema, json.Unmarshal(raw, &schema)
}

func (s *Schemas) schema(typ string) (*jsonschema.Schema, error) {
	if known := s.compiled[typ]; known != nil {
		return known, nil
	}
	schema, err := s.Read(typ)
	if err != nil {
		return nil, err
	}
	schema["additionalProperties"] = false
	delete(schema, "$schema") // it is AWS's own dialect of draft 7
	delete(schema, "$id")
	if n, ok := newer[typ]; ok {
		properties, _ := schema["properties"].(map[string]any)
		for name, p := range n.properties {
			if properties[name] != nil {
				return nil, fmt.Errorf("%s.%s is in the schema now: take it off the list", typ, name)
			}
			properties[name] = p
		}
		required, _ := schema["required"].([]any)
		schema["required"] = slices.DeleteFunc(required, func(name any) bool { return slices.Contains(n.notRequired, fmt.Sprint(name)) })
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft7)
	c.UseRegexpEngine(compilePattern)
	if err := c.AddResource("schema.json", schema); err != nil {
		return nil, err
	}
	out, err := c.Compile("schema.json")
	if err != nil {
		return nil, fmt.Errorf("%s: %w", typ, err)
	}
	s.compiled[typ] = out
	return out, nil
}

// goPattern rewrites what AWS's patterns have and Go's do not: \Z, and a look back that
// forbids a dot at the end of a bucket's name, which our templates do not have.
var goPattern = strings.NewReplacer(`\Z`, `\z`, `(?<!\.)`, ``)

func compilePattern(pattern string) (jsonschema.Regexp, error) {
	return regexp.Compile(goPattern.Replace(pattern))
}

// Check validates the properties of one resource, as they are after CloudFormation
// has given the intrinsic functions their values.
func (s *Schemas) Check(typ string, properties map[string]any) error {
	schema, err := s.schema(typ)
	if err != nil {
		return err
	}
	err = schema.Validate(properties)
	if detail, ok := errors.AsType[*jsonschema.ValidationError](err); ok {
		return fmt.Errorf("%s: %w", typ, detail)
	}
	return err
}
