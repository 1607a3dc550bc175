package main

// This file is an execution environment: the function's process, which Lambda starts,
// freezes between events, thaws, and ends.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"syscall"
	"time"

	"github.com/aurorapgx/aurorapgx/examples/internal/lab"
)

const (
	initTimeout = 10 * time.Second // Lambda's limit for INIT

	// shutdownTimeout is what a function has after SIGTERM:
	// https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
	shutdownTimeout = 500 * time.Millisecond
)

type environment struct {
	api     *runtimeAPI
	cmd     *exec.Cmd
	log     bytes.Buffer // to be read when the process has ended
	exited  chan struct{}
	started time.Time
}

// start starts a function's process, with more in its environment than Lambda's own
// variables. It does not wait for INIT.
func start(l *lab.Lab, binary string, more map[string]string) (*environment, error) {
	api, err := newRuntimeAPI()
	if err != nil {
		return nil, err
	}
	e := &environment{api: api, cmd: exec.Command(binary), exited: make(chan struct{})}
	variables := map[string]string{
		"AWS_LAMBDA_RUNTIME_API": api.addr, "AWS_LAMBDA_FUNCTION_NAME": "orders", "AWS_EXECUTION_ENV": "AWS_Lambda_provided.al2023",
	}
	maps.Copy(variables, more)
	e.cmd.Env = l.Environ(variables)
	e.cmd.Stdout, e.cmd.Stderr = &e.log, &e.log
	e.started = time.Now()
	if err := e.cmd.Start(); err != nil {
		api.close()
		return nil, err
	}
	go func() {
		_ = e.cmd.Wait() // killed, as Lambda does
		close(e.exited)
	}()
	return e, nil
}

// ready waits for the end of INIT: the function asks for its first event.
func (e *environment) ready(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, initTimeout)
	defer cancel()
	err := e.api.idle(ctx)
	if err != nil {
		e.kill()
		err = fmt.Errorf("INIT: %w\n%s", err, e.log.String())
	}
	return time.Since(e.started), err
}

// invoke runs one event through the function and decodes its answer.
func (e *environment) invoke(ctx context.Context, payload, answer any) (time.Duration, error) {
	began := time.Now()
	body, err := e.api.invoke(ctx, payload)
	took := time.Since(began)
	if err != nil {
		return took, err
	}
	return took, json.Unmarshal(body, answer)
}

// freeze stops the process, and thaw lets it go on. Lambda freezes the whole virtual
// machine, the kernel with its sockets included: for that, see listener.go.
func (e *environment) freeze() error { return e.cmd.Process.Signal(syscall.SIGSTOP) }
func (e *environment) thaw() error   { return e.cmd.Process.Signal(syscall.SIGCONT) }

// terminate tells the function that it is about to be killed, which Lambda does only if
// the function has asked for it.
func (e *environment) terminate() error {
	if !e.api.wantsSIGTERM() {
		return errors.New("the function has not asked for SIGTERM")
	}
	return e.cmd.Process.Signal(syscall.SIGTERM)
}

// kill ends the process if it runs, and what served it.
func (e *environment) kill() {
	select {
	case <-e.exited:
	default:
		_ = e.cmd.Process.Kill()
		<-e.exited
	}
	e.api.close()
}
