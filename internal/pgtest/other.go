//go:build !unix

package pgtest

import (
	"context"
	"errors"
	"os"
	"time"
)

// Not for servers of its own installation, but with Docker or PGTEST_DSN the
// tests run on Windows as well.

func installedLauncher(func(string) string) launcher {
	return func(context.Context) (*site, error) {
		return nil, errors.New("not on this operating system")
	}
}

// lockFile makes do with a file that is there or not; one that was left behind
// by a process that died counts for as long as a build may take.
func lockFile(ctx context.Context, name string) (unlock func(), err error) {
	err = poll(ctx, func(context.Context) error {
		if info, err := os.Stat(name); err == nil && time.Since(info.ModTime()) > buildTimeout {
			_ = os.Remove(name)
		}
		f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		return f.Close()
	})
	return func() { _ = os.Remove(name) }, err
}
