package main

// This file is the cold start: an address that refuses connections for as long as one
// likes, as that of a proxy or a container that is still being started.

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// lateListener has its address from the start, and listens once it is opened.
type lateListener struct {
	addr   *net.TCPAddr
	opened chan struct{}
	closed chan struct{}

	mu       sync.Mutex
	isClosed bool
	real     net.Listener // set before opened is closed
}

// newLateListener picks a port where nothing listens. It stays below the range that
// systems take the ports of outgoing connections from: one of these could not be
// opened later.
func newLateListener() (*lateListener, error) {
	const low, high = 15000, 32000
	var err error
	for range 100 {
		addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: low + rand.IntN(high-low)}
		var l *net.TCPListener
		if l, err = net.ListenTCP("tcp", addr); err != nil {
			continue
		}
		if err = l.Close(); err != nil {
			continue
		}
		return &lateListener{addr: addr, opened: make(chan struct{}), closed: make(chan struct{})}, nil
	}
	return nil, fmt.Errorf("find a free port: %w", err)
}

// open begins to listen. It is called once.
func (l *lateListener) open() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isClosed {
		return net.ErrClosed
	}
	listener, err := net.ListenTCP("tcp", l.addr)
	if err != nil {
		return err
	}
	l.real = listener
	close(l.opened)
	return nil
}

func (l *lateListener) Accept() (net.Conn, error) {
	select {
	case <-l.opened:
		return l.real.Accept()
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *lateListener) Addr() net.Addr { return l.addr }

func (l *lateListener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isClosed {
		return nil
	}
	l.isClosed = true
	close(l.closed)
	if l.real == nil {
		return nil
	}
	return l.real.Close()
}
