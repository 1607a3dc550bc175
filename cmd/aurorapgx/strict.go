package main

// JSON that people write, read strictly: a field that does not exist is an error that says
// where it stands and which one was meant, and so is a value of the wrong type.

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

// decodeStrict reads one JSON value into the struct that into points to, over what is in there.
func decodeStrict(data []byte, into any) error {
	if err := checkSyntax(data); err != nil {
		return err
	}
	if err := checkFields(data, reflect.TypeOf(into).Elem(), ""); err != nil {
		return err
	}
	err := json.Unmarshal(data, into)
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		return fmt.Errorf("%s: %s is a %s here, not a JSON %s", position(data, wrong.Offset), cmp.Or(wrong.Field, "this"), typeName(wrong.Type), wrong.Value)
	}
	return err
}

// checkSyntax tells the line and column of a syntax error.
func checkSyntax(data []byte) error {
	var v json.RawMessage
	dec := json.NewDecoder(bytes.NewReader(data))
	err := dec.Decode(&v)
	if wrong := (*json.SyntaxError)(nil); errors.As(err, &wrong) {
		return fmt.Errorf("%s: %w", position(data, wrong.Offset), err)
	}
	if err != nil {
		return fmt.Errorf("no JSON: %w", err)
	}
	if rest := bytes.TrimLeft(data[dec.InputOffset():], " \t\r\n"); len(rest) > 0 {
		return fmt.Errorf("%s: something follows the JSON object", position(data, int64(len(data)-len(rest)+1)))
	}
	return nil
}

// position is where an offset stands, as editors count.
func position(data []byte, offset int64) string {
	before := data[:min(max(int(offset)-1, 0), len(data))]
	line := bytes.Count(before, []byte("\n")) + 1
	return fmt.Sprintf("line %d, column %d", line, len(before)-bytes.LastIndexByte(before, '\n'))
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// checkFields looks for fields that t does not have, in all of data.
func checkFields(data []byte, t reflect.Type, path string) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(unmarshaler) {
		return nil // it reads its own JSON
	}
	switch t.Kind() {
	case reflect.Struct:
		var object map[string]json.RawMessage
		if json.Unmarshal(data, &object) == nil { // else it is of another type, which decoding reports
			return checkObject(object, t, path)
		}
	case reflect.Slice, reflect.Array:
		var array []json.RawMessage
		_ = json.Unmarshal(data, &array) // the same
		for i, element := range array {
			if err := checkFields(element, t.Elem(), fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
	default: // scalars and maps have no fields
	}
	return nil
}

func checkObject(object map[string]json.RawMessage, t reflect.Type, path string) error {
	fields := jsonFields(t)
	var names []string
	for _, f := range fields {
		names = append(names, f.name)
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		i := slices.IndexFunc(fields, func(f jsonField) bool { return strings.EqualFold(f.name, name) })
		if i < 0 {
			where := "here"
			if path != "" {
				where = "in " + path
			}
			hint := didYouMean("", closest(name, names))
			if hint == "" {
				hint = "; there are " + strings.Join(names, ", ")
			}
			return fmt.Errorf("there is no field %q %s%s", name, where, hint)
		}
		inner := fields[i].name
		if path != "" {
			inner = path + "." + inner
		}
		if err := checkFields(object[name], fields[i].typ, inner); err != nil {
			return err
		}
	}
	return nil
}

type jsonField struct {
	name string
	typ  reflect.Type
}

// jsonFields are the fields of a struct as encoding/json names them, embedded ones included.
func jsonFields(t reflect.Type) []jsonField {
	var fields []jsonField
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.IsExported() || name == "-" || f.Anonymous && name == "" {
			continue
		}
		fields = append(fields, jsonField{cmp.Or(name, f.Name), f.Type})
	}
	return fields
}

// typeName is what a Go type is called in JSON.
func typeName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.String:
		return "string"
	case reflect.Slice, reflect.Array:
		return "list"
	case reflect.Struct, reflect.Map, reflect.Pointer:
		return "object"
	default:
		return "number"
	}
}
