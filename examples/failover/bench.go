package main

// Where it happens: the cluster, and RDS Proxy in front of it.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/aurorapgx/aurorapgx/internal/pgtest/lab"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

type bench struct {
	settings settings
	out      io.Writer
	source   string
	cluster  *lab.Cluster
	proxy    *proxytest.Proxy
	listener *droppingListener
}

// startBench starts the cluster and the proxy. The caller closes the bench.
func startBench(ctx context.Context, out io.Writer, s settings) (_ *bench, err error) {
	b := &bench{settings: s, out: out}
	b.say("starting PostgreSQL and a replica ...")
	if b.cluster, err = lab.Start(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	conn, err := pgx.Connect(ctx, b.cluster.AppDSN(b.cluster.Writer()))
	if err != nil {
		return nil, err
	}
	_, err = conn.Exec(ctx, schema)
	if err == nil {
		err = conn.QueryRow(ctx, "select 'PostgreSQL ' || current_setting('server_version')").Scan(&b.source)
	}
	if err = errors.Join(err, conn.Close(ctx)); err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	b.listener = &droppingListener{Listener: l, conns: map[net.Conn]struct{}{}}
	b.proxy, err = proxytest.Start(context.WithoutCancel(ctx), b.cluster.AppDSN(b.cluster.Writer()),
		proxytest.WithListener(b.listener), proxytest.WithMaxConnections(3*s.workers))
	if err != nil {
		return nil, err
	}
	b.say("%s; %d transactions at a time of each client", b.source, s.workers)
	return b, nil
}

func (b *bench) close() error {
	var errs []error
	if b.proxy != nil {
		errs = append(errs, b.proxy.Close())
	}
	if b.cluster != nil {
		errs = append(errs, b.cluster.Close())
	}
	return errors.Join(errs...)
}

func (b *bench) say(format string, args ...any) {
	_, _ = fmt.Fprintf(b.out, format+"\n", args...)
}

// droppingListener can close all connections that it has accepted.
type droppingListener struct {
	net.Listener

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func (l *droppingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	tracked := &trackedConn{Conn: conn, of: l}
	l.conns[tracked] = struct{}{}
	return tracked, nil
}

func (l *droppingListener) dropAll() {
	l.mu.Lock()
	conns := l.conns
	l.conns = map[net.Conn]struct{}{}
	l.mu.Unlock()
	for conn := range conns {
		_ = conn.Close()
	}
}

type trackedConn struct {
	net.Conn

	of *droppingListener
}

func (c *trackedConn) Close() error {
	c.of.mu.Lock()
	delete(c.of.conns, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}
