// Otel runs a service with OpenTelemetry on, through a rotation of its password and the loss of
// its writer, and prints the metrics and spans:
//
//	go run ./otel
//
// service.go is to be copied, and quiet.go, if errors may quote what is nobody's business. What stands for AWS here: the cluster is two PostgreSQL servers
// behind Aurora's names, and Secrets Manager is package secretstest's. What a collector would get
// is kept in memory and printed.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/trace"

	examples "github.com/aurorapgx/aurorapgx/examples/internal/lab"
	"github.com/aurorapgx/aurorapgx/internal/pgtest/lab"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/secrets/secretstest"
)

const (
	secretName = "prod/orders"
	outage     = time.Second // until the reader is promoted
)

func main() { examples.Main("otel", run) }

func run(ctx context.Context, out io.Writer) (err error) {
	fmt.Fprintln(os.Stderr, "starting two PostgreSQL servers; the first run may have to pull or build an image ...")
	aurora, err := lab.Start(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, aurora.Close()) }()
	vault, err := secretstest.Start()
	if err != nil {
		return err
	}
	defer vault.Close()
	if err := deposit(vault, aurora); err != nil {
		return err
	}

	reader, keeper := metric.NewManualReader(), &spanKeeper{}
	meters := metric.NewMeterProvider(metric.WithReader(reader))
	tracers := trace.NewTracerProvider(trace.WithSyncer(withoutErrorTexts{keeper}))
	s, err := openService(ctx, "postgres://"+aurora.WriterHost()+"/"+lab.Database+"?secret="+secretName, meters, tracers,
		// What a service on AWS leaves out: its names, network, certificates and Secrets Manager are real.
		proxy.WithLookup(aurora.Lookup), proxy.WithDialer(aurora.Dial), proxy.WithRootCAs(aurora.CA()), proxy.WithAWSConfig(vault.Config()),
		proxy.WithRetirement(0)) // and old connections go at once, to be seen here
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := story(ctx, s, aurora, vault); err != nil {
		return err
	}
	if err := printMetrics(ctx, out, reader); err != nil {
		return err
	}
	return printSpans(out, keeper.all())
}

// deposit puts the application's user and password into the secret.
func deposit(vault *secretstest.Server, aurora *lab.Cluster) error {
	u, err := url.Parse(aurora.URL(aurora.WriterHost()))
	if err != nil {
		return errors.New("the laboratory's URL is malformed") // and has a password in it
	}
	password, _ := u.User.Password()
	value, err := json.Marshal(map[string]string{"username": u.User.Username(), "password": password})
	if err != nil {
		return err
	}
	vault.Put(secretName, string(value))
	return nil
}

// story is an order before, after the rotation, and while the writer is lost.
func story(ctx context.Context, s *service, aurora *lab.Cluster, vault *secretstest.Server) error {
	if _, err := s.pool.Exec(ctx, "create table orders (id text primary key)"); err != nil {
		return err
	}
	if err := s.placeOrder(ctx, "an order", "order-1", nil); err != nil {
		return err
	}
	if err := vault.Rotate(ctx, secretName, secretstest.Rotation{AdminDSN: aurora.AdminDSN()}); err != nil {
		return err
	}
	// The connection that is open works on. A second one is what meets the new password, and the next time
	// the first one goes.
	for range 2 {
		if err := s.two(ctx); err != nil {
			return err
		}
	}

	promoted, first := make(chan error, 1), true
	err := s.placeOrder(ctx, "an order during a failover", "order-2", func() error {
		if !first {
			return nil
		}
		first = false
		aurora.Writer().Drop() // before the server's own last words, which some sessions get and some do not
		if err := aurora.Writer().Kill(ctx); err != nil {
			return err
		}
		go func() {
			time.Sleep(outage)
			_, err := aurora.Promote(ctx)
			promoted <- err
		}()
		return nil
	})
	if first { // nobody was killed
		return err
	}
	return errors.Join(err, <-promoted)
}

// two has two requests at the same time, so that the pool needs two connections.
func (s *service) two(ctx context.Context) error {
	ctx, span := s.tracer.Start(ctx, "two requests at a time")
	defer span.End()
	var conns []interface{ Release() }
	defer func() {
		for _, conn := range conns {
			conn.Release()
		}
	}()
	for range 2 {
		conn, err := s.pool.Acquire(ctx)
		if err != nil {
			return err
		}
		conns = append(conns, conn)
	}
	return nil
}

// placeOrder is a request's work. meanwhile, if set, happens in the middle of it.
func (s *service) placeOrder(ctx context.Context, name, id string, meanwhile func() error) error {
	ctx, span := s.tracer.Start(ctx, name)
	defer span.End()
	return s.inTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if meanwhile != nil {
			if err := meanwhile(); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, "insert into orders values ($1)", id)
		return err
	})
}

// spanKeeper is an exporter that keeps the spans of this process in memory.
type spanKeeper struct {
	mu    sync.Mutex
	spans []trace.ReadOnlySpan
}

func (k *spanKeeper) ExportSpans(_ context.Context, spans []trace.ReadOnlySpan) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.spans = append(k.spans, spans...)
	return nil
}

func (k *spanKeeper) Shutdown(context.Context) error { return nil }

func (k *spanKeeper) all() []trace.ReadOnlySpan {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]trace.ReadOnlySpan(nil), k.spans...)
}
