package main

// This file is a task: the service's process, started and stopped as the ECS agent does
// it.

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/aurorapgx/aurorapgx/examples/internal/lab"
)

// The task definition. drainDelay fits the balancer, which asks every 100 ms: ALBs ask
// every 5 s or more seldom. A balancer that has not noticed by then sends requests on
// connections that are being closed.
const (
	drainDelay  = 2 * time.Second
	stopTimeout = time.Minute
)

type task struct {
	number             int
	addr               string
	pool               int
	started            time.Time
	readyIn, stoppedIn time.Duration

	cmd    *exec.Cmd
	log    *logWatch
	exited chan error
}

func startTask(ctx context.Context, number int, l *lab.Lab, binary string) (*task, error) {
	t := &task{
		number: number, started: time.Now(), exited: make(chan error, 1), cmd: exec.Command(binary),
		log: &logWatch{listening: make(chan listening, 1)},
	}
	t.cmd.Env = l.Environ(map[string]string{
		"PORT": "0", "DB_CONNECTIONS": strconv.Itoa(connections), "MAX_TASKS": strconv.Itoa(maxTasks),
		"DRAIN_DELAY": drainDelay.String(), "STOP_TIMEOUT": stopTimeout.String(),
	})
	t.cmd.Stderr = os.Stderr
	stdout, err := t.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := t.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		t.log.read(stdout)
		t.exited <- t.cmd.Wait()
		close(t.exited)
	}()
	select {
	case l := <-t.log.listening:
		t.addr, t.pool = l.Addr, l.Pool
		return t, nil
	case err := <-t.exited:
		return nil, fmt.Errorf("task %d ended: %w\n%s", number, err, t.log.text.String())
	case <-ctx.Done():
		t.kill()
		return nil, context.Cause(ctx)
	}
}

// terminate sends SIGTERM, and SIGKILL when the stop timeout is over. The channel tells
// how the task ended: nil for exit code 0.
func (t *task) terminate() <-chan error {
	ended := make(chan error, 1)
	began := time.Now()
	_ = t.cmd.Process.Signal(syscall.SIGTERM) // if it has ended by itself, exited says how
	go func() {
		select {
		case err := <-t.exited:
			t.stoppedIn = time.Since(began)
			if err != nil {
				err = fmt.Errorf("task %d: %w\n%s", t.number, err, t.log.text.String())
			}
			ended <- err
		case <-time.After(stopTimeout):
			_ = t.cmd.Process.Kill()
			ended <- fmt.Errorf("task %d was killed %s after SIGTERM", t.number, stopTimeout)
		}
	}()
	return ended
}

// kill ends what is left.
func (t *task) kill() { _ = t.cmd.Process.Kill() }

// healthcheck runs the container's health check.
func (t *task) healthcheck(ctx context.Context) error {
	_, port, err := net.SplitHostPort(t.addr)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, t.cmd.Path, "healthcheck")
	cmd.Env = append(slices.Clip(t.cmd.Env), "PORT="+port)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// logWatch reads a task's log and waits for the line that says where it listens.
type logWatch struct {
	text      bytes.Buffer // to be read when the task has ended
	listening chan listening
}

type listening struct {
	Msg  string `json:"msg"`
	Addr string `json:"addr"`
	Pool int    `json:"pool"`
}

func (w *logWatch) read(r io.Reader) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		var line listening
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "listening" {
			w.listening <- line
		}
		w.text.Write(append(lines.Bytes(), '\n'))
	}
}
