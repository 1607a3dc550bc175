//go:build unix

package pgtest

import (
	"context"
	"errors"
	"os"
	"syscall"
)

// lockFile waits for a lock that all processes of this machine share. The
// kernel takes it back from a process that dies with it.
func lockFile(ctx context.Context, name string) (unlock func(), err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = poll(ctx, func(context.Context) error {
		return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	})
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	// The file stays: were it removed, a process that waits for the old one and
	// a process that makes a new one would both have a lock.
	return func() { _ = f.Close() }, nil
}
