package main

// This file is what the service answers.

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/retry"
)

// requestTimeout is longer than a failover takes, and shorter than what the caller and
// the load balancer wait (an Application Load Balancer: 60 s).
const requestTimeout = 30 * time.Second

// readTimeout is how long a request may take to come in, before that.
const readTimeout = 5 * time.Second

type api struct {
	pool      *pgxpool.Pool
	log       *slog.Logger
	connected atomic.Bool
	draining  atomic.Bool
}

func (a *api) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", a.ready)
	mux.HandleFunc("PUT /orders/{id}", a.place)
	return mux
}

// connect makes the first connection. A task that cannot have one, because of its role
// or its security group, never becomes ready, and the deployment is rolled back.
func (a *api) connect(ctx context.Context) {
	for ctx.Err() == nil {
		conn, err := a.pool.Acquire(ctx)
		if err == nil {
			conn.Release()
			a.connected.Store(true)
			return
		}
		a.log.Error("no connection", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// ready tells the load balancer whether to send requests. It does not ask the database:
// that answer would be the same for all tasks, and taking all of them out during a
// failover turns a wait into an outage.
func (a *api) ready(w http.ResponseWriter, _ *http.Request) {
	switch {
	case a.draining.Load():
		http.Error(w, "draining", http.StatusServiceUnavailable)
	case !a.connected.Load():
		http.Error(w, "no connection yet", http.StatusServiceUnavailable)
	}
}

type order struct {
	Item     string `json:"item"`
	Quantity int    `json:"quantity"`
}

// place takes an order under the id the caller gave it. To place it again changes
// nothing, so callers may ask again, and so may retry.Tx, even if the answer to a COMMIT
// was lost in a failover.
func (a *api) place(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
	defer cancel()
	var o order
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16)).Decode(&o); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	err := retry.Tx(retry.Idempotent(ctx), a.pool, func(tx pgx.Tx) error {
		placed, err := tx.Exec(ctx, "insert into orders (id, item, quantity) values ($1, $2, $3) on conflict (id) do nothing", r.PathValue("id"), o.Item, o.Quantity)
		if err != nil || placed.RowsAffected() == 0 {
			return err
		}
		_, err = tx.Exec(ctx, "insert into stock (item, sold) values ($1, $2) on conflict (item) do update set sold = stock.sold + excluded.sold", o.Item, o.Quantity)
		return err
	}, retry.WithPolicy(retry.Failover()))
	if err != nil {
		a.refuse(w, r, err)
		return
	}
	w.WriteHeader(http.StatusCreated)
}

// refuse answers with what the caller can do about it.
func (a *api) refuse(w http.ResponseWriter, r *http.Request, err error) {
	var server *pgconn.PgError
	if errors.As(err, &server) && server.Code[:2] == "23" { // a constraint
		http.Error(w, server.Message, http.StatusUnprocessableEntity)
		return
	}
	a.log.ErrorContext(r.Context(), "order not placed", "id", r.PathValue("id"), "verdict", retry.Classify(err).String(), "error", err)
	w.Header().Set("Retry-After", "1")
	http.Error(w, "not now; ask again under the same id", http.StatusServiceUnavailable)
}
