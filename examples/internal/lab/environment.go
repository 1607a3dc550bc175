package lab

// This file is the environment of a service on AWS, for this process and for others.

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Environment is what a task or a function finds: where its database is, and the
// credentials of its role. DIRECT_URL is the cluster endpoint beside the proxy's.
func (l *Lab) Environment() map[string]string {
	key := l.Proxy.Credentials()
	return map[string]string{
		"DATABASE_URL":          l.Proxy.URL(User, Database),
		"DIRECT_URL":            l.DirectURL(l.Primary) + "&application_name=direct",
		"AWS_REGION":            l.Proxy.Region(),
		"AWS_ACCESS_KEY_ID":     key.AccessKeyID,
		"AWS_SECRET_ACCESS_KEY": key.SecretAccessKey,
		"AWS_SESSION_TOKEN":     key.SessionToken,
		// Without these, the SDK reads the files in the home directory.
		"AWS_CONFIG_FILE":             os.DevNull,
		"AWS_SHARED_CREDENTIALS_FILE": os.DevNull,
	}
}

// Environ is the environment for a process of its own: nothing of this one's but
// PATH, HOME and the like, and what is given in addition.
func (l *Lab) Environ(more map[string]string) []string {
	env := l.Environment()
	maps.Copy(env, more)
	environ := slices.DeleteFunc(os.Environ(), func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return ofAService(name)
	})
	for _, name := range slices.Sorted(maps.Keys(env)) {
		environ = append(environ, name+"="+env[name])
	}
	return environ
}

// SetEnvironment gives this process that environment. What your shell has for AWS and
// PostgreSQL is out of the way until restore is called.
func (l *Lab) SetEnvironment() (restore func(), err error) {
	before := map[string]string{}
	for _, entry := range os.Environ() {
		if name, value, _ := strings.Cut(entry, "="); ofAService(name) {
			before[name] = value
		}
	}
	now := l.Environment()
	if err := replaceEnvironment(before, now); err != nil {
		return nil, errors.Join(err, replaceEnvironment(now, before))
	}
	return func() { _ = replaceEnvironment(now, before) }, nil // the same names as above
}

func ofAService(name string) bool {
	isPG := strings.HasPrefix(name, "PG") && !strings.HasPrefix(name, "PGTEST_")
	return isPG || strings.HasPrefix(name, "AWS_") || name == "DATABASE_URL" || name == "DIRECT_URL"
}

func replaceEnvironment(old, with map[string]string) error {
	var errs []error
	for name := range old {
		errs = append(errs, os.Unsetenv(name))
	}
	for name, value := range with {
		errs = append(errs, os.Setenv(name, value))
	}
	return errors.Join(errs...)
}

// Build builds one of the examples' programs, by its path below examples, and returns
// the binary's: with the race detector if this process has it.
func Build(ctx context.Context, dir, program string, flags ...string) (string, error) {
	binary := filepath.Join(dir, filepath.Base(program))
	args := []string{"build", "-o", binary}
	if RaceDetector {
		args = append(args, "-race")
	}
	args = append(append(args, flags...), "github.com/aurorapgx/aurorapgx/examples/"+program)
	cmd := exec.CommandContext(ctx, "go", args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return binary, nil
}
