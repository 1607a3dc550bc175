package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aurorapgx/aurorapgx/aurora"
)

const envHelp = `
Prints the environment of a service that logs in as one of a stack's users: DATABASE_URL, and
what else there is to know. It holds no password and no token. The outputs come from a file, as
AWS prints them, or standard input:

  aws cloudformation describe-stacks --stack-name orders | aurorapgx env --user app
  aws ssm get-parameter --name /aurora/orders | aurorapgx env --user app

Lines are quoted for a shell: eval "$(...)" or "set -a; . FILE" reads them.
`

func runEnv(_ context.Context, p *program, args []string) error {
	f := p.flags("env", "[--user NAME] [--export] [--json] [FILE]", envHelp)
	asJSON := f.json()
	user := f.String("user", "", "the database user `NAME`; the spec's first if left out")
	export := f.Bool("export", false, `put "export" in front of each line`)
	files, err := f.parse(args, 1)
	if err != nil {
		return err
	}
	data, name, err := p.readFile(append(files, "-")[0])
	if err != nil {
		return err
	}
	h, err := readHandoff(data)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	env, err := h.Env(*user)
	if err != nil {
		return err
	}
	if *asJSON {
		return p.printJSON(env)
	}
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(env)) {
		line := key + "='" + strings.ReplaceAll(env[key], "'", `'\''`) + "'"
		if *export {
			line = "export " + line
		}
		lines = append(lines, line)
	}
	return printLines(p.stdout, lines...)
}

// stackOutput is an output as CloudFormation prints it.
type stackOutput struct {
	OutputKey   string `json:"OutputKey"`
	OutputValue string `json:"OutputValue"`
}

// readHandoff recognises what the AWS CLI prints of a stack's outputs or of its parameter, the
// outputs or the parameter's value alone, and a map of outputs.
func readHandoff(data []byte) (aurora.Handoff, error) {
	if err := checkSyntax(data); err != nil {
		return aurora.Handoff{}, err
	}
	var outputs []stackOutput
	if json.Unmarshal(data, &outputs) == nil {
		return fromOutputs(outputs)
	}
	var answer struct {
		Stacks []struct {
			Outputs []stackOutput `json:"Outputs"`
		} `json:"Stacks"`
		Outputs   json.RawMessage `json:"Outputs"`
		Parameter struct {
			Value string `json:"Value"`
		} `json:"Parameter"`
	}
	if json.Unmarshal(data, &answer) == nil {
		switch {
		case len(answer.Stacks) == 1:
			return fromOutputs(answer.Stacks[0].Outputs)
		case len(answer.Stacks) > 1:
			return aurora.Handoff{}, errors.New("there are several stacks in it; ask for one with --stack-name")
		case answer.Outputs != nil && json.Unmarshal(answer.Outputs, &outputs) == nil:
			return fromOutputs(outputs)
		case answer.Parameter.Value != "":
			return aurora.ParseHandoff([]byte(answer.Parameter.Value))
		}
	}
	var values map[string]string
	if json.Unmarshal(data, &values) == nil {
		return aurora.HandoffFromOutputs(values)
	}
	return aurora.ParseHandoff(data)
}

func fromOutputs(outputs []stackOutput) (aurora.Handoff, error) {
	values := map[string]string{}
	for _, o := range outputs {
		values[o.OutputKey] = o.OutputValue
	}
	return aurora.HandoffFromOutputs(values)
}
