// Service is an HTTP service for ECS: it takes orders, and stops without losing one.
//
//	service              serves
//	service healthcheck  asks the one in the same container whether it lives
package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/aurorapgx/aurorapgx/proxy"
)

func main() {
	logger := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	cfg, err := readConfig(os.Getenv)
	if err == nil && len(os.Args) == 2 && os.Args[1] == "healthcheck" {
		err = healthcheck(cfg.port)
	} else if err == nil {
		err = serve(cfg, logger)
	}
	if err != nil {
		logger.Error("exit", "error", err)
		os.Exit(1)
	}
}

// serve runs until SIGTERM, and then until every request has its answer.
func serve(cfg config, logger *slog.Logger) error {
	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	pool, err := proxy.NewPool(context.Background(), cfg.databaseURL, proxy.WithMaxConns(cfg.poolSize), proxy.WithLogger(logger))
	if err != nil {
		return err
	}
	defer pool.Close()
	listener, err := net.Listen("tcp", net.JoinHostPort("", cfg.port))
	if err != nil {
		return err
	}
	logger.Info("listening", "addr", listener.Addr().String(), "pool", cfg.poolSize)

	a := &api{pool: pool, log: logger}
	server := &http.Server{
		Handler: a.routes(), ReadTimeout: readTimeout,
		IdleTimeout: 2 * time.Minute, // longer than a load balancer keeps a connection, which is 60 s
	}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	go a.connect(stopped)
	select {
	case err := <-failed:
		return err
	case <-stopped.Done():
	}
	return a.drain(cfg, server)
}

// drain stops the service in the order that loses nothing: first it tells the load
// balancer, and goes on serving until that has taken notice; then it lets the requests
// come to their end; then it closes the pool (which is serve's to do).
func (a *api) drain(cfg config, server *http.Server) error {
	began := time.Now()
	a.draining.Store(true)
	time.Sleep(cfg.drainDelay)
	ctx, cancel := context.WithDeadline(context.Background(), began.Add(cfg.stopTimeout-stopMargin))
	defer cancel()
	err := server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, server.Close()) // ends their contexts, and so their transactions
	}
	a.log.Info("drained", "after", time.Since(began).Round(time.Millisecond).String(), "error", err)
	return err
}

// healthcheck is what the container's health check runs: there is no curl in the image.
func healthcheck(port string) error {
	client := http.Client{Timeout: 2 * time.Second}
	resp, err := client.Get("http://" + net.JoinHostPort("127.0.0.1", port) + "/livez")
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}
