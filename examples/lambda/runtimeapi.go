package main

// This file is Lambda's side of the Runtime API and of the Extensions API, as far as a
// function in Go uses them: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html
// and https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html. A
// function that is told its address in AWS_LAMBDA_RUNTIME_API runs as it runs on Lambda.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// invocationTimeout is the function's Timeout.
const invocationTimeout = 10 * time.Second

// runtimeAPI serves one execution environment, which handles one event at a time.
type runtimeAPI struct {
	addr    string
	timeout time.Duration // of the next event
	server  *http.Server
	closed  chan struct{}
	once    sync.Once

	events  chan event
	results chan result
	asked   chan struct{} // gets a value for each /next: the environment has nothing to do

	mu        sync.Mutex
	extension bool // the function has registered an extension, and will get SIGTERM
	last      int  // request id
}

type event struct {
	id      string
	payload []byte
}

type result struct {
	id   string
	body []byte
	err  error
}

func newRuntimeAPI() (*runtimeAPI, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	api := &runtimeAPI{
		addr: l.Addr().String(), timeout: invocationTimeout, closed: make(chan struct{}),
		events: make(chan event), results: make(chan result, 1), asked: make(chan struct{}, 1),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", api.next)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/response", api.response)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/error", api.failure)
	mux.HandleFunc("POST /2020-01-01/extension/register", api.register)
	mux.HandleFunc("GET /2020-01-01/extension/event/next", api.wait)
	api.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = api.server.Serve(l) }() // ends with close
	return api, nil
}

func (a *runtimeAPI) close() {
	a.once.Do(func() { close(a.closed) })
	_ = a.server.Close()
}

// invoke hands the function an event and waits for what it answers. It returns when the
// function asks for the next event, which is when Lambda freezes it.
func (a *runtimeAPI) invoke(ctx context.Context, payload any) ([]byte, error) {
	body, err := json.Marshal(payload)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	a.last++
	id := fmt.Sprintf("request-%d", a.last)
	a.mu.Unlock()
	select {
	case a.events <- event{id, body}:
	case <-ctx.Done():
		return nil, fmt.Errorf("the function asks for no event: %w", context.Cause(ctx))
	}
	select {
	case r := <-a.results:
		if r.id != id {
			return nil, fmt.Errorf("answer to %s, want %s", r.id, id)
		}
		return r.body, errors.Join(r.err, a.idle(ctx))
	case <-ctx.Done():
		return nil, fmt.Errorf("no answer: %w", context.Cause(ctx))
	}
}

// idle waits until the function has asked for the next event.
func (a *runtimeAPI) idle(ctx context.Context) error {
	select {
	case <-a.asked:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("the function does not ask for an event: %w", context.Cause(ctx))
	}
}

func (a *runtimeAPI) next(w http.ResponseWriter, r *http.Request) {
	a.asked <- struct{}{}
	select {
	case e := <-a.events:
		h := w.Header()
		h.Set("Lambda-Runtime-Aws-Request-Id", e.id)
		h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(time.Now().Add(a.timeout).UnixMilli(), 10))
		h.Set("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:eu-west-1:123456789012:function:orders")
		_, _ = w.Write(e.payload)
	case <-r.Context().Done():
	case <-a.closed:
	}
}

func (a *runtimeAPI) response(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	a.results <- result{r.PathValue("id"), body, err}
	w.WriteHeader(http.StatusAccepted)
}

func (a *runtimeAPI) failure(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	a.results <- result{r.PathValue("id"), nil, errors.Join(fmt.Errorf("the function failed: %s", body), err)}
	w.WriteHeader(http.StatusAccepted)
}

func (a *runtimeAPI) register(w http.ResponseWriter, _ *http.Request) {
	a.mu.Lock()
	a.extension = true
	a.mu.Unlock()
	w.Header().Set("Lambda-Extension-Identifier", "internal-1")
	_, _ = io.WriteString(w, "{}")
}

// wait is for an extension that asked for no events: it gets none.
func (a *runtimeAPI) wait(_ http.ResponseWriter, r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-a.closed:
	}
}

func (a *runtimeAPI) wantsSIGTERM() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.extension
}
