// Aurorapgx plans, provisions and examines Aurora PostgreSQL Serverless behind RDS Proxy,
// from a shell. "aurorapgx help" lists its verbs.
//
// This file is the table of verbs and what all of them have in common: help, exit codes
// and where output goes. Each verb is a file of its own: it declares its flags with
// [program.flags], and is one line in the table below.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/aurorapgx/aurorapgx/aurora"
)

// verbs in the order of the help.
var verbs = []verb{
	{"validate", "find what is wrong with a spec, with reasons", runValidate},
	{"render", "print a spec's CloudFormation template", runRender},
	{"explain", "list a template's resources, and why each is there", runExplain},
	{"diff", "say what deploying a spec over a deployed template would do", runDiff},
	{"cost", "estimate a month: floor, expected, ceiling", runCost},
	{"budget", "divide the database's connections over tasks and functions", runBudget},
	{"sql", "print the SQL that creates users, schemas and grants", runSQL},
	{"env", "print a service's environment from a deployed stack's outputs", runEnv},
	{"check", "find out why a service cannot connect", runCheck},
	{"proxy", "run an RDS Proxy for tests in front of any PostgreSQL", runProxy},
	{"version", "print the version of this program", runVersion},
}

// A verb is one thing the program does. It writes its result to p.stdout and returns what
// kept it from doing so: a usageError for a wrong command line, anything else for the rest.
type verb struct {
	name    string
	summary string
	run     func(ctx context.Context, p *program, args []string) error
}

// Exit codes.
const (
	exitOK     = 0 // done
	exitFailed = 1 // not done, or done with a negative answer: an invalid spec, say
	exitUsage  = 2 // the command line makes no sense
)

// program is one run: all that it may read and write.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	terminal       bool // stdout is one
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	p := &program{os.Stdin, os.Stdout, os.Stderr, os.Getenv, isTerminal(os.Stdout)}
	code := p.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// run does what the command line says and returns the exit code.
func (p *program) run(ctx context.Context, args []string) int {
	err := p.dispatch(ctx, args)
	var wrong *usageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.As(err, &wrong):
		_, _ = fmt.Fprintf(p.stderr, "aurorapgx: %s\n%s\n", wrong.text, wrong.hint())
		return exitUsage
	case errors.Is(err, errAnswered):
		return exitFailed
	default:
		_, _ = fmt.Fprintf(p.stderr, "aurorapgx: %s\n", describe(err))
		return exitFailed
	}
}

// describe is an error's text; what is wrong with a spec is listed.
func describe(err error) string {
	if !errors.As(err, new(*aurora.FieldError)) {
		return strings.TrimPrefix(err.Error(), "aurora: ")
	}
	var text strings.Builder
	text.WriteString("the spec is not valid:")
	for _, one := range fieldErrors(err) {
		fmt.Fprintf(&text, "\n  - %s: %s (%s)", one.Field, one.Reason, one.Doc)
	}
	return text.String()
}

// errAnswered is a negative answer that has been printed in full.
var errAnswered = errors.New("the answer is negative")

func (p *program) dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return &usageError{text: "which verb?"}
	}
	name, args := args[0], args[1:]
	switch name {
	case "help":
		return p.help(ctx, args)
	case "-h", "-help", "--help":
		return p.help(ctx, nil)
	case "-version", "--version":
		name = "version"
	}
	v, err := findVerb(name)
	if err != nil {
		return err
	}
	return v.run(ctx, p, args)
}

func findVerb(name string) (verb, error) {
	names := make([]string, 0, len(verbs))
	for _, v := range verbs {
		if v.name == name {
			return v, nil
		}
		names = append(names, v.name)
	}
	if strings.ContainsAny(name, ":=") { // a connection string, with a password perhaps
		return verb{}, &usageError{text: `there is no verb of that name; did you mean "check"?`}
	}
	return verb{}, &usageError{text: fmt.Sprintf("there is no verb %q", name) + didYouMean("", closest(name, names))}
}

const helpText = `aurorapgx plans, provisions and examines Aurora PostgreSQL Serverless behind RDS Proxy.

Usage: aurorapgx VERB [flags]

`

const helpMore = `
"aurorapgx help VERB" tells what a verb does and lists its flags. Flags may stand
before and after other arguments, with one dash or two.

Exit codes: 0 done, 1 failed or the answer is negative (an invalid spec, a difference
that replaces the database), 2 the command line makes no sense. Colour appears on a
terminal only, and not if NO_COLOR is set (https://no-color.org).
`

// help prints what there is, or what one verb does.
func (p *program) help(ctx context.Context, args []string) error {
	if len(args) > 1 {
		return &usageError{text: "help takes one verb"}
	}
	if len(args) == 1 {
		v, err := findVerb(args[0])
		if err != nil {
			return err
		}
		return v.run(ctx, p, []string{"-help"})
	}
	st := p.style()
	_, err := io.WriteString(p.stdout, helpText)
	for _, v := range verbs {
		if err == nil {
			_, err = fmt.Fprintf(p.stdout, "  %s  %s\n", st.bold(fmt.Sprintf("%-8s", v.name)), v.summary)
		}
	}
	if err == nil {
		_, err = io.WriteString(p.stdout, helpMore)
	}
	return err
}
