package lab

// Losing packets for real: a socket filter that lets nothing in. What arrives is dropped
// by the kernel before TCP sees it, so that nothing is acknowledged, no SYN answered
// and no keepalive probe. It needs no privilege.

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

const dropsPackets = true

func dropPackets(s syscall.Conn) error {
	return onSocket(s, func(fd int) error {
		nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
			&unix.SockFprog{Len: uint16(len(nothing)), Filter: &nothing[0]})
	})
}

func passPackets(s syscall.Conn) error {
	return onSocket(s, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
	})
}

// forgetSilently makes a socket one whose close says nothing to the peer. What the peer
// sends to it then is answered with a reset, since nobody knows of the connection.
func forgetSilently(s syscall.Conn) error {
	return onSocket(s, func(fd int) error {
		const repairOn = 1
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_REPAIR, repairOn)
	})
}

func onSocket(s syscall.Conn, do func(fd int) error) error {
	raw, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = do(int(fd)) })
	return errors.Join(err, inner)
}
