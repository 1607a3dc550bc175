package main

// Where a verb's Spec comes from: a stage, a file, or a file over a stage.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"

	"github.com/aurorapgx/aurorapgx/aurora"
)

// specHelp is the part of the help that verbs with a spec have in common.
const specHelp = `
The spec comes from --stage (development, early-production, growth or scale), from --spec,
a JSON file, or from both: what the file says then changes the stage. Field names are those
of aurora.Spec in lower camel case, times are texts like "30s" or "30d".`

type specFlags struct {
	stage, file *string
}

func (f *flags) spec() specFlags {
	return specFlags{
		f.String("stage", "", "take the spec from the stage `NAME`: "+strings.Join(stageNames(), ", ")),
		f.String("spec", "", "read the spec from `FILE`, JSON; - is standard input"),
	}
}

func stageNames() []string {
	var names []string
	for _, s := range aurora.Stages() {
		names = append(names, s.Name)
	}
	return names
}

// read puts the spec together. It is not validated.
func (s specFlags) read(f *flags) (aurora.Spec, error) {
	if *s.stage == "" && *s.file == "" {
		return aurora.Spec{}, f.wrong("which spec? Give --stage NAME, --spec FILE or both")
	}
	var spec aurora.Spec
	if *s.stage != "" {
		stage, err := aurora.StageByName(*s.stage)
		if err != nil {
			hint := didYouMean("", closest(*s.stage, stageNames()))
			return aurora.Spec{}, f.wrong("there is no stage %q; there are %s%s", *s.stage, strings.Join(stageNames(), ", "), hint)
		}
		spec = stage.Spec
	}
	if *s.file == "" {
		return spec, nil
	}
	data, name, err := f.p.readFile(*s.file)
	if err != nil {
		return aurora.Spec{}, err
	}
	if err := decodeSpec(data, &spec); err != nil {
		return aurora.Spec{}, fmt.Errorf("%s: %w", name, err)
	}
	return spec, nil
}

// readFile reads a file the user names, or standard input, and says what to call it in errors.
func (p *program) readFile(path string) (data []byte, name string, err error) {
	if path == "-" {
		data, err = io.ReadAll(p.stdin)
		return data, "standard input", err
	}
	data, err = os.ReadFile(path) //nolint:gosec // the file is the one the user names
	return data, path, err
}

// decodeSpec reads JSON over a spec. A list in the JSON takes the place of the spec's.
func decodeSpec(data []byte, spec *aurora.Spec) error {
	if err := checkSyntax(data); err != nil {
		return err
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(data, &object) != nil {
		return errors.New("the spec is no JSON object")
	}
	v := reflect.ValueOf(spec).Elem()
	if err := checkObject(object, v.Type(), ""); err != nil {
		return err
	}
	for i, f := range jsonFields(v.Type()) {
		for name := range object {
			if field := v.Field(i); strings.EqualFold(name, f.name) && field.Kind() == reflect.Slice {
				field.SetZero() // or encoding/json would fill in what the JSON leaves out of elements
			}
		}
	}
	err := json.Unmarshal(data, spec)
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		return fmt.Errorf("%s is a %s, not a JSON %s", wrong.Field, typeName(wrong.Type), wrong.Value)
	}
	return err
}
