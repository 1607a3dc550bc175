//go:build linux && (amd64 || arm64)

package proxytest

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"unsafe"
)

// quickConn is a TCP connection that reads and writes without telling the Go scheduler.
//
// The scheduler takes a goroutine that is in a system call for one that may stay there, and after
// 20 µs looks for another thread to go on with the rest. A proxy does little else than such calls,
// which take 10 µs each and never wait: the threads that were woken for nothing cost pgbench's
// tpcb-like a quarter of the proxy's CPU time. Waiting is still the runtime's, by way of [syscall.RawConn],
// and so are deadlines and Close.
type quickConn struct {
	*net.TCPConn
	raw         syscall.RawConn
	read, write transfer
}

// transfer is the system call that is under way in one direction.
type transfer struct {
	mu    sync.Mutex
	call  func(fd uintptr) (done bool) // for RawConn; it takes b, and leaves n and errno
	b     []byte
	n     int
	errno syscall.Errno
}

// quicken makes a quickConn of a TCP connection. Others stay as they are.
func quicken(conn net.Conn) net.Conn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return conn
	}
	c := &quickConn{TCPConn: tcp, raw: raw}
	c.read.call = c.read.through(syscall.SYS_RECVFROM)
	c.write.call = c.write.through(syscall.SYS_SENDTO)
	return c
}

// through makes the call of recvfrom or sendto, which have their parameters in common.
func (t *transfer) through(trap uintptr) func(fd uintptr) bool {
	return func(fd uintptr) bool {
		for {
			p := unsafe.Pointer(unsafe.SliceData(t.b)) //nolint:gosec // the kernel keeps no pointer beyond the call
			n, _, errno := syscall.RawSyscall6(trap, fd, uintptr(p), uintptr(len(t.b)), syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
			switch errno {
			case syscall.EINTR:
				continue
			case syscall.EAGAIN:
				return false
			case 0:
				t.n = int(n)
			}
			t.errno = errno
			return true
		}
	}
}

// once makes one call that transfers something. wait is how RawConn waits for one that can.
func (t *transfer) once(wait func(func(fd uintptr) bool) error, b []byte) (int, error) {
	t.b, t.n, t.errno = b, 0, 0
	err := wait(t.call)
	t.b = nil
	if err == nil && t.errno != 0 {
		err = t.errno
	}
	return t.n, err
}

func (c *quickConn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	c.read.mu.Lock()
	defer c.read.mu.Unlock()
	n, err := c.read.once(c.raw.Read, b)
	switch {
	case err != nil:
		return 0, c.failed("read", "recvfrom", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (c *quickConn) Write(b []byte) (written int, err error) {
	c.write.mu.Lock()
	defer c.write.mu.Unlock()
	for written < len(b) {
		n, err := c.write.once(c.raw.Write, b[written:])
		if err != nil {
			return written, c.failed("write", "sendto", err)
		}
		written += n
	}
	return written, nil
}

// failed is an error as [net.TCPConn] has it.
func (c *quickConn) failed(op, call string, err error) error {
	if errno, ok := err.(syscall.Errno); ok { //nolint:errorlint // once returns it bare
		return &net.OpError{Op: op, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError(call, errno)}
	}
	return err
}
