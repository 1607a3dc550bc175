package main

// This file is the network of a frozen environment. Its kernel is frozen as well: what
// the proxy sends meanwhile, its goodbye included, is lost. The function finds out with
// the first thing it sends after the thaw, from a reset or from no answer at all.

import (
	"net"
	"sync"
	"time"
)

// loss is what a function finds of a connection that the proxy closed meanwhile.
type loss int

const (
	closed  loss = iota // the goodbye was heard
	reset               // the first packet is answered with a reset
	silence             // the first packet is not answered: a NAT device has forgotten the connection
)

// listener hands the proxy connections that can be cut off like that.
type listener struct {
	net.Listener
	quit chan struct{}
	once sync.Once
	wg   sync.WaitGroup

	mu   sync.Mutex
	open map[string]*conn // by the client's address
}

func newListener() (*listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &listener{Listener: l, quit: make(chan struct{}), open: map[string]*conn{}}, nil
}

func (l *listener) Accept() (net.Conn, error) {
	inner, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: inner, listener: l}
	l.mu.Lock()
	l.open[inner.RemoteAddr().String()] = c
	l.mu.Unlock()
	return c, nil
}

// clients are the addresses of the connections that are open.
func (l *listener) clients() map[string]bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	addresses := map[string]bool{}
	for address := range l.open {
		addresses[address] = true
	}
	return addresses
}

// lose decides what becomes of a connection of a client that has just been frozen. It
// reports whether there is one.
func (l *listener) lose(client string, how loss) bool {
	l.mu.Lock()
	c := l.open[client]
	l.mu.Unlock()
	if c == nil {
		return false
	}
	c.mu.Lock()
	c.how = how
	c.mu.Unlock()
	return true
}

// Close also ends the connections that are silent.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.quit) })
	err := l.Listener.Close()
	l.wg.Wait()
	return err
}

type conn struct {
	net.Conn
	listener *listener
	reading  sync.Mutex

	once sync.Once

	mu  sync.Mutex
	how loss
}

func (c *conn) fate() loss {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.how
}

func (c *conn) Read(p []byte) (int, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	return c.Conn.Read(p)
}

func (c *conn) Write(p []byte) (int, error) {
	if c.fate() != closed {
		return len(p), nil // into the void
	}
	return c.Conn.Write(p)
}

// CloseWrite is the proxy's goodbye.
func (c *conn) CloseWrite() error {
	if c.fate() != closed {
		return nil
	}
	return c.Conn.(*net.TCPConn).CloseWrite() //nolint:forcetypeassert // it comes from a TCP listener
}

func (c *conn) Close() error {
	c.listener.mu.Lock()
	delete(c.listener.open, c.RemoteAddr().String())
	c.listener.mu.Unlock()
	if c.fate() == closed {
		return c.Conn.Close()
	}
	c.once.Do(func() { c.listener.wg.Go(c.linger) })
	return nil
}

// linger waits for the client to send something, now that the proxy knows nothing of
// the connection any more.
func (c *conn) linger() {
	defer c.Conn.Close()
	_ = c.SetReadDeadline(time.Unix(1, 0)) // whoever reads for the proxy returns
	c.reading.Lock()
	defer c.reading.Unlock()
	_ = c.SetReadDeadline(time.Time{})
	first := make(chan struct{})
	c.listener.wg.Go(func() {
		_, _ = c.Conn.Read(make([]byte, 1))
		close(first)
	})
	select {
	case <-c.listener.quit:
		return
	case <-first:
	}
	if c.fate() == silence {
		<-c.listener.quit
		return
	}
	_ = c.Conn.(*net.TCPConn).SetLinger(0) //nolint:forcetypeassert // closing it resets it
}
