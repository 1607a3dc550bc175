//go:build !linux

package lab

import (
	"errors"
	"syscall"
)

// Packets cannot be lost here without privileges. The front stops reading instead, and dials
// hang in Cluster.Dial.
const dropsPackets = false

func dropPackets(syscall.Conn) error { return nil }

func passPackets(syscall.Conn) error { return nil }

func forgetSilently(syscall.Conn) error {
	return errors.New("lab: half-open connections can be made on Linux only")
}
