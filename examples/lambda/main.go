// Lambda runs a Lambda function here as Lambda would: its own binary, driven through
// the Runtime API, frozen, thawed and retired.
//
//	go run ./lambda
//	go run ./lambda -compare
//
// function/ is the function, to be copied; minimal/ is the shortest form of it. The
// rest plays Lambda: runtimeapi.go hands out events, environment.go starts, freezes and
// ends the process, listener.go is the network of a machine that is frozen. With
// -compare, compare.go measures the minimal function against handwritten/.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/aurorapgx/aurorapgx/examples/internal/lab"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

const (
	schema = `create table orders (id text primary key, item text not null,
		quantity int not null check (quantity > 0), placed timestamptz not null default now())`

	// What takes hours on Lambda takes seconds here: the proxy gives up idle clients
	// after idleClients and not after 30 minutes, and the function is frozen for frozenFor.
	idleClients = 8 * time.Second
	frozenFor   = 15 * time.Second
)

func main() {
	compare := flag.Bool("compare", false, "measure cold starts and binaries against a hand-written function")
	flag.Parse()
	if *compare {
		lab.Main("lambda", runComparison)
		return
	}
	lab.Main("lambda", run)
}

// order and receipt are the function's event and answer.
type order struct {
	ID       string `json:"id"`
	Item     string `json:"item"`
	Quantity int    `json:"quantity"`
}

type receipt struct {
	ID         string `json:"id"`
	Orders     int64  `json:"orders"`
	Invocation int    `json:"invocation"`
	Connects   int64  `json:"connects"`
}

// run is the life of three execution environments.
func run(ctx context.Context, out io.Writer) (err error) {
	network, err := newListener()
	if err != nil {
		return err
	}
	l, err := lab.Start(ctx, lab.Setup{Schema: schema, Proxy: []proxytest.Option{
		proxytest.WithListener(network), proxytest.WithIdleClientTimeout(idleClients),
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	dir, err := os.MkdirTemp("", "lambda")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary, err := lab.Build(ctx, dir, "lambda/function", "-tags", "lambda.norpc")
	if err != nil {
		return err
	}
	s := &story{lab: l, network: network, binary: binary, out: out}
	defer s.end()
	for _, act := range []func(context.Context) error{s.coldStart, s.reuse, s.freeze, s.retire} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return nil
}

// story has three environments, and knows the connection of each.
type story struct {
	lab          *lab.Lab
	network      *listener
	binary       string
	out          io.Writer
	orders       int
	environments []*environment
	clients      []string
}

var fates = []struct {
	how  loss
	what string
}{
	{closed, "goodbye heard"},
	{reset, "answered with a reset"},
	{silence, "not answered at all"},
}

func (s *story) printf(format string, args ...any) { _, _ = fmt.Fprintf(s.out, format, args...) }

func (s *story) coldStart(ctx context.Context) error {
	s.printf("cold start of %d environments\n", len(fates))
	for i := range fates {
		before := s.network.clients()
		e, err := start(s.lab, s.binary, nil)
		if err != nil {
			return err
		}
		s.environments = append(s.environments, e)
		took, err := e.ready(ctx)
		if err != nil {
			return err
		}
		for client := range s.network.clients() {
			if !before[client] {
				s.clients = append(s.clients, client)
			}
		}
		if len(s.clients) != i+1 {
			return fmt.Errorf("environment %d made %d connections in INIT, want 1", i+1, len(s.clients)-i)
		}
		s.printf("  %d  INIT in %s: process, pool, IAM token, TLS, login\n", i+1, took.Round(time.Millisecond))
	}
	return nil
}

func (s *story) reuse(ctx context.Context) error {
	s.printf("\nfour events each\n")
	for i, e := range s.environments {
		for range 4 {
			if err := s.place(ctx, i, e); err != nil {
				return err
			}
		}
	}
	s.printf("  IAM tokens signed so far: %d\n", len(s.lab.Logins()))
	return nil
}

// place runs an event through one of the environments.
func (s *story) place(ctx context.Context, i int, e *environment) error {
	s.orders++
	o := order{ID: fmt.Sprintf("order-%02d", s.orders), Item: "tea", Quantity: 1}
	var r receipt
	took, err := e.invoke(ctx, o, &r)
	if err != nil {
		return err
	}
	s.printf("  %d  event %d  %s: %2d orders of tea, %d connects so far, %s\n",
		i+1, r.Invocation, r.ID, r.Orders, r.Connects, took.Round(100*time.Microsecond))
	if r.Orders != int64(s.orders) {
		return fmt.Errorf("%d orders are there, want %d", r.Orders, s.orders)
	}
	return nil
}

// freeze stops all of them for as long as it takes the proxy to give them up.
func (s *story) freeze(ctx context.Context) error {
	for i, e := range s.environments {
		if err := e.freeze(); err != nil {
			return err
		}
		if !s.network.lose(s.clients[i], fates[i].how) {
			return fmt.Errorf("environment %d has lost its connection before it was frozen: this machine is too slow", i+1)
		}
	}
	s.printf("\nfrozen for %s; the proxy closes idle clients after %s\n", frozenFor, idleClients)
	timer := time.NewTimer(frozenFor)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	for len(s.network.clients()) != 0 { // the proxy says goodbye, and waits a little for an answer
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	s.printf("  client connections at the proxy: 0\n\nthawed, each with an event; its old connection is\n")
	for i, e := range s.environments {
		s.printf("  %d  %s\n", i+1, fates[i].what)
		thawed := time.Now()
		if err := e.thaw(); err != nil {
			return err
		}
		if err := s.place(ctx, i, e); err != nil {
			return fmt.Errorf("the first event after the freeze: %w", err)
		}
		logins := s.lab.Logins()
		if last := logins[len(logins)-1]; last.SignedAt.Before(thawed.Truncate(time.Second)) {
			return fmt.Errorf("environment %d came back with a token of %s", i+1, last.SignedAt)
		}
	}
	s.printf("  IAM tokens signed so far: %d\n", len(s.lab.Logins()))
	return nil
}

// retire ends them. They close their connections within the time they have, which the
// proxy would otherwise find out by itself.
func (s *story) retire(ctx context.Context) error {
	s.printf("\nretired: SIGTERM\n")
	for _, e := range s.environments {
		if err := e.terminate(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, shutdownTimeout)
	defer cancel()
	for s.lab.Proxy.Stats().ClientConnections != 0 {
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("after %s, when they are killed, the proxy still has %d client connections", shutdownTimeout, s.lab.Proxy.Stats().ClientConnections)
		}
	}
	s.printf("  client connections at the proxy: 0\n")
	s.printf("\n%d events, 0 errors, %d pinned sessions\n", s.orders, s.lab.Proxy.Stats().PinnedSessions)
	return nil
}

// end kills what still runs.
func (s *story) end() {
	for _, e := range s.environments {
		e.kill()
	}
}
