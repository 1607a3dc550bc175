package main

// A template's outputs, with CloudFormation's functions worked out.

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// resolveOutputs works out the outputs of a template, given what its references stand for: "Name"
// for Ref, "Name.Attribute" for Fn::GetAtt.
func resolveOutputs(template []byte, values map[string]string) (map[string]string, error) {
	var t struct {
		Outputs map[string]struct {
			Value any `json:"Value"`
		} `json:"Outputs"`
	}
	if err := json.Unmarshal(template, &t); err != nil {
		return nil, err
	}
	outputs := map[string]string{}
	for key, o := range t.Outputs {
		value, err := resolve(o.Value, values)
		if err != nil {
			return nil, fmt.Errorf("output %s: %w", key, err)
		}
		outputs[key] = fmt.Sprint(value)
	}
	return outputs, nil
}

var variable = regexp.MustCompile(`\$\{([^}]+)\}`)

// resolve returns a string, or a list of them for Fn::Split.
func resolve(v any, values map[string]string) (any, error) {
	object, ok := v.(map[string]any)
	if !ok {
		return v, nil
	}
	for function, argument := range object {
		args, _ := argument.([]any)
		switch function {
		case "Ref":
			return lookUp(fmt.Sprint(argument), values)
		case "Fn::GetAtt":
			return lookUp(fmt.Sprint(args[0])+"."+fmt.Sprint(args[1]), values)
		case "Fn::Sub":
			return substitute(fmt.Sprint(argument), values)
		case "Fn::Split":
			text, err := resolve(args[1], values)
			return strings.Split(fmt.Sprint(text), fmt.Sprint(args[0])), err
		case "Fn::Select":
			return selectFrom(args, values)
		}
	}
	return nil, fmt.Errorf("%v is not worked out here", v)
}

func lookUp(name string, values map[string]string) (string, error) {
	value, ok := values[name]
	if !ok {
		return "", fmt.Errorf("nothing is known of %s", name)
	}
	return value, nil
}

func substitute(text string, values map[string]string) (string, error) {
	var failed error
	text = variable.ReplaceAllStringFunc(text, func(name string) string {
		value, err := lookUp(name[2:len(name)-1], values)
		if err != nil {
			failed = err
		}
		return value
	})
	return text, failed
}

func selectFrom(args []any, values map[string]string) (string, error) {
	list, err := resolve(args[1], values)
	if err != nil {
		return "", err
	}
	parts, _ := list.([]string)
	i, err := strconv.Atoi(fmt.Sprint(args[0]))
	if err != nil || i < 0 || i >= len(parts) {
		return "", fmt.Errorf("there is no element %v in %v", args[0], list)
	}
	return parts[i], nil
}
