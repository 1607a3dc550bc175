package main

// What a service needs for OpenTelemetry: an observer, which the pool and transactions get, and
// otelpgx beside it for single statements.

import (
	"context"
	"errors"

	"github.com/exaring/otelpgx"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	otelaurora "github.com/aurorapgx/aurorapgx/otel"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

type service struct {
	pool     *pgxpool.Pool
	tracer   trace.Tracer
	observer *otelaurora.Observer
	stop     func() error
}

func openService(ctx context.Context, url string, meters metric.MeterProvider, tracers trace.TracerProvider, opts ...proxy.Option) (*service, error) {
	s := &service{
		tracer:   tracers.Tracer("orders"),
		observer: otelaurora.NewObserver(otelaurora.WithMeterProvider(meters), otelaurora.WithTracerProvider(tracers)),
	}
	statements := otelpgx.NewTracer(otelpgx.WithMeterProvider(meters), otelpgx.WithTracerProvider(tracers))
	var err error
	s.pool, err = proxy.NewPool(ctx, url, append(opts, proxy.WithObserver(s.observer), proxy.WithTracer(statements))...)
	if err != nil {
		return nil, err
	}
	if s.stop, err = s.observer.ObservePool(s.pool); err != nil {
		s.pool.Close()
		return nil, err
	}
	return s, nil
}

// inTx runs fn in a transaction, again if a failover has undone it. The context that fn gets has the
// transaction's span in it.
func (s *service) inTx(ctx context.Context, fn func(ctx context.Context, tx pgx.Tx) error) error {
	return retry.TxContext(ctx, s.pool, fn, retry.WithPolicy(retry.Failover()), retry.WithObserver(s.observer))
}

func (s *service) close() error {
	s.pool.Close()
	return errors.Join(s.stop())
}
