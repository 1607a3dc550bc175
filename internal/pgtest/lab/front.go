package lab

// The front of an instance: a relay that ends TLS and speaks enough of the protocol to
// interfere with logins. What follows a login passes as it is.

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

type front struct {
	listener *net.TCPListener
	backend  func() string
	tls      *tls.Config
	latency  atomic.Int64
	begun    atomic.Int64 // logins
	dialled  atomic.Int64
	under    atomic.Int64 // logins under way
	mostly   atomic.Int64 // the most there were
	wg       sync.WaitGroup

	dark atomic.Bool

	mu    sync.Mutex
	how   behaviour
	lit   chan struct{} // closed when dark ends
	links map[*link]struct{}
}

// behaviour is what the front does to logins. The zero value is to pass them on.
type behaviour struct {
	refuse        bool      // nothing listens
	startingUntil time.Time // 57P03
	logins        int64     // hang up above so many at a time
	resume        *resume   // hold them until it is done
	lie           int64     // every so many of those held
}

// resume is a paused instance's way back, which the first login begins.
type resume struct {
	length time.Duration
	once   sync.Once
	done   chan struct{}
	held   atomic.Int64
}

func newResume(d time.Duration) *resume { return &resume{length: d, done: make(chan struct{})} }

func (r *resume) begin() {
	r.once.Do(func() { time.AfterFunc(r.length, func() { close(r.done) }) })
}

// link is one client's connection.
type link struct {
	client *net.TCPConn
	server net.Conn
}

func newFront(tlsConfig *tls.Config, backend func() string) (*front, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // whose sockets take no filter
	l, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &front{listener: l.(*net.TCPListener), backend: backend, tls: tlsConfig, links: map[*link]struct{}{}, lit: make(chan struct{})} //nolint:forcetypeassert // tcp4
	f.wg.Go(f.accept)
	return f, nil
}

func (f *front) addr() string { return f.listener.Addr().String() }

// dial is the network between clients and the front. A host where nothing listens refuses;
// one in a black hole says nothing.
func (f *front) dial(ctx context.Context) (net.Conn, error) {
	f.dialled.Add(1)
	f.mu.Lock()
	refuse, lit := f.how.refuse, f.lit
	f.mu.Unlock()
	switch dark := f.dark.Load(); {
	case dark && !dropsPackets:
		select {
		case <-ctx.Done():
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
		case <-lit:
		}
	case refuse && !dark:
		return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: f.listener.Addr(), Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp4", f.addr())
}

func (f *front) accept() {
	for {
		conn, err := f.listener.AcceptTCP()
		if err != nil {
			return
		}
		l := &link{client: conn}
		f.mu.Lock()
		if f.dark.Load() { // it was in the queue when the light went out
			_ = dropPackets(conn)
		}
		f.links[l] = struct{}{}
		f.mu.Unlock()
		f.wg.Go(func() { f.serve(l) })
	}
}

func (f *front) serve(l *link) {
	defer f.forget(l)
	for n := f.under.Add(1); ; {
		most := f.mostly.Load()
		if n <= most || f.mostly.CompareAndSwap(most, n) {
			break
		}
	}
	client, first, err := f.login(l)
	f.under.Add(-1)
	if err != nil || client == nil {
		return
	}
	server, err := net.DialTimeout("tcp", f.backend(), 5*time.Second)
	if err != nil {
		_ = l.client.SetLinger(0)
		return
	}
	f.mu.Lock()
	l.server = server
	_, known := f.links[l]
	f.mu.Unlock()
	if !known {
		_ = server.Close()
		return
	}
	if _, err := server.Write(first); err != nil {
		return
	}
	var both sync.WaitGroup
	both.Go(func() {
		if err := f.pass(server, client); errors.Is(err, syscall.ECONNRESET) {
			_ = server.(*net.TCPConn).SetLinger(0) //nolint:forcetypeassert // dialled above
		}
		_ = server.Close()
	})
	both.Go(func() {
		if err := f.pass(client, server); errors.Is(err, syscall.ECONNRESET) {
			_ = l.client.SetLinger(0) // a server that crashed resets
		}
		_ = l.client.Close()
	})
	both.Wait()
}

// forget closes both ends of a link. A link that was cut is closed already.
func (f *front) forget(l *link) {
	f.mu.Lock()
	delete(f.links, l)
	f.mu.Unlock()
	_ = l.client.Close()
	if l.server != nil {
		_ = l.server.Close()
	}
}

// The codes in the place of a protocol version.
// https://www.postgresql.org/docs/current/protocol-message-formats.html
const (
	sslRequest    = 80877103
	cancelRequest = 80877102
	loginTimeout  = 2 * time.Minute
)

// login plays the server's part up to the startup message, and interferes as it is told. It
// returns the connection inside TLS and the message.
func (f *front) login(l *link) (net.Conn, []byte, error) {
	_ = l.client.SetDeadline(time.Now().Add(loginTimeout))
	code, _, err := readStartup(l.client)
	if err != nil {
		return nil, nil, err
	}
	if code != sslRequest {
		return nil, nil, refuse(l.client, "28000", "no pg_hba.conf entry for host \"10.0.9.9\", user \""+User+"\", database \""+Database+"\", no encryption")
	}
	if f.tooMany() {
		return nil, nil, io.EOF
	}
	if _, err := l.client.Write([]byte("S")); err != nil {
		return nil, nil, err
	}
	client := tls.Server(l.client, f.tls)
	if err := client.Handshake(); err != nil {
		return nil, nil, err
	}
	code, first, err := readStartup(client)
	if err != nil {
		return nil, nil, err
	}
	if code != cancelRequest {
		f.begun.Add(1)
		if err := f.interfere(client); err != nil {
			return nil, nil, err
		}
	}
	_ = l.client.SetDeadline(time.Time{})
	return client, first, nil
}

func (f *front) tooMany() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.how.logins > 0 && f.under.Load() > f.how.logins
}

func (f *front) interfere(client net.Conn) error {
	f.mu.Lock()
	how := f.how
	f.mu.Unlock()
	switch {
	case time.Now().Before(how.startingUntil):
		return refuse(client, "57P03", "the database system is starting up")
	case how.resume == nil:
		return nil
	}
	select {
	case <-how.resume.done:
		return nil
	default:
	}
	how.resume.begin()
	if n := how.resume.held.Add(1); how.lie > 0 && n%how.lie == 0 {
		return refuse(client, "28000", "no pg_hba.conf entry for host \"10.0.9.9\", user \""+User+"\", database \""+Database+"\", SSL encryption")
	}
	// A client that goes away in the meantime is noticed, or a resume would hold its socket.
	gone := make(chan struct{})
	f.wg.Go(func() {
		defer close(gone)
		_, _ = client.Read(make([]byte, 1)) // it has nothing to say before it is asked for a password
	})
	select {
	case <-gone:
		return io.EOF
	case <-how.resume.done:
		_ = client.SetReadDeadline(time.Unix(1, 0))
		<-gone
		return client.SetReadDeadline(time.Time{})
	}
}

// refuse ends a login with an error, and always fails.
func refuse(client net.Conn, code, message string) error {
	msg, err := (&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message}).Encode(nil)
	if err == nil {
		_, err = client.Write(msg)
	}
	if c, ok := client.(*tls.Conn); ok {
		_ = c.CloseWrite()
	}
	return errors.Join(fmt.Errorf("refused with %s", code), err)
}

func readStartup(r io.Reader) (code uint32, packet []byte, err error) {
	const header, most = 8, 10000
	var head [header]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	length := binary.BigEndian.Uint32(head[:])
	if length < header || length > most {
		return 0, nil, fmt.Errorf("a startup packet of %d bytes", length)
	}
	packet = make([]byte, length)
	_, err = io.ReadFull(r, packet[copy(packet, head[:]):])
	return binary.BigEndian.Uint32(packet[4:]), packet, err
}

// pass copies one direction, with the latency, until it ends. In a black hole nothing
// gets through.
func (f *front) pass(dst io.Writer, src io.Reader) error {
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if d := time.Duration(f.latency.Load()); d > 0 {
				time.Sleep(d)
			}
			f.awaitLight()
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err != nil {
			f.awaitLight() // neither FIN nor RST gets through
			return err
		}
	}
}

// awaitLight waits for the end of a black hole. By then the link is closed.
func (f *front) awaitLight() {
	if !f.dark.Load() {
		return
	}
	f.mu.Lock()
	lit := f.lit
	f.mu.Unlock()
	if f.dark.Load() {
		<-lit
	}
}

func (f *front) set(how behaviour) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.how = how
}

func (f *front) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.links)
}

func (f *front) blackHole() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dark.Store(true)
	_ = dropPackets(f.listener)
	for l := range f.links {
		_ = dropPackets(l.client)
	}
}

func (f *front) heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.how = behaviour{}
	if !f.dark.Load() {
		return
	}
	for l := range f.links { // a host that is back does not know them
		_ = l.client.SetLinger(0)
		f.drop(l)
	}
	_ = passPackets(f.listener)
	f.dark.Store(false)
	close(f.lit)
	f.lit = make(chan struct{})
}

func (f *front) halfOpen() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for l := range f.links {
		if err := forgetSilently(l.client); err != nil {
			return err
		}
		f.drop(l)
	}
	return nil
}

// cut ends all connections, with a reset or in order.
func (f *front) cut(reset bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for l := range f.links {
		if reset {
			_ = l.client.SetLinger(0)
		}
		f.drop(l)
	}
}

func (f *front) cutOne() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for l := range f.links {
		f.drop(l)
		return
	}
}

// drop closes a link. The caller holds the lock.
func (f *front) drop(l *link) {
	delete(f.links, l)
	_ = l.client.Close()
	if l.server != nil {
		_ = l.server.Close()
	}
}

func (f *front) close() {
	_ = f.listener.Close()
	f.heal()
	f.cut(true)
	f.wg.Wait()
}
