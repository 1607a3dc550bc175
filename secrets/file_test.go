package secrets_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/aurorapgx/aurorapgx/secrets"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFilesAreReadEachTime(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "secret")
	src := secrets.FromFile(path)
	for text, want := range map[string]secrets.Credentials{
		`{"username":"app","password":"correct-horse"}`:                  {User: "app", Password: password},
		"\n {\"username\":\"b\",\"password\":\"c\",\"port\":\"6432\"}\n": {User: "b", Password: "c"},
		"correct-horse":     {Password: password},
		"correct-horse\n":   {Password: password},
		"correct-horse\r\n": {Password: password},
		" a b\n\n":          {Password: " a b\n"},
	} {
		write(t, path, text)
		if c := get(t, src); c != want {
			t.Errorf("%q: %v", text, c)
		}
	}
	for _, text := range []string{"", "\n", `{"username":"app"}`, "a\x00b"} {
		write(t, path, text)
		if _, err := src.Credentials(t.Context()); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_, err := src.Credentials(t.Context())
	e, ok := errors.AsType[*secrets.Error](err)
	if !ok || !e.Temporary() || !errors.Is(err, fs.ErrNotExist) || strings.Count(err.Error(), path) != 1 {
		t.Errorf("a file that is gone: %v", err)
	}
	if secrets.FromFile("").Validate() == nil {
		t.Error("an empty path")
	}
}

// Kubernetes replaces a mounted secret by renaming a symbolic link. Whoever reads in
// between must not get the user of one version and the password of another.
func TestMountedDirectoriesAreReadAsAWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, n := range []string{"1", "2"} {
		version := filepath.Join(dir, "v"+n)
		if err := os.Mkdir(version, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(version, "username"), "user"+n)
		write(t, filepath.Join(version, "password"), "password"+n+"\n")
		write(t, filepath.Join(version, "host"), "db"+n+".example.com")
		write(t, filepath.Join(version, "port"), "543"+n)
		write(t, filepath.Join(version, "dbname"), "orders"+n)
	}
	mount := filepath.Join(dir, "mount")
	if err := os.Mkdir(mount, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"username", "password", "host", "port", "dbname"} {
		if err := os.Symlink(filepath.Join("..data", field), filepath.Join(mount, field)); err != nil {
			t.Fatal(err)
		}
	}
	point := func(version string) {
		next := filepath.Join(mount, "..next")
		if err := errors.Join(os.Symlink(filepath.Join(dir, version), next), os.Rename(next, filepath.Join(mount, "..data"))); err != nil {
			t.Error(err)
		}
	}
	point("v1")
	src := secrets.FromFile(mount)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				point([]string{"v1", "v2"}[i%2])
			}
		}
	})
	for range 2000 {
		s, err := src.Secret(t.Context())
		n := strings.TrimPrefix(s.User, "user")
		if err != nil || s.Password != "password"+n || s.Host != "db"+n+".example.com" || fmt.Sprint(s.Port) != "543"+n || s.Database != "orders"+n {
			t.Errorf("%v, %s:%d/%s: %v", s, s.Host, s.Port, s.Database, err)
			break
		}
	}
	close(stop)
	wg.Wait()
	for field, text := range map[string]string{"port": "x", "username": "", "password": "a\x00"} {
		write(t, filepath.Join(dir, "v1", field), text)
		point("v1")
		_, err := src.Secret(t.Context())
		e, ok := errors.AsType[*secrets.Error](err)
		if !ok || e.Field != field {
			t.Errorf("%s: %v", field, err)
		}
		write(t, filepath.Join(dir, "v1", field), "1")
	}
}

func TestPassfile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "pgpass")
	src := func(host string, port uint16, database, user string) secrets.Source {
		return secrets.FromPassfile(path, host, port, database, user)
	}
	write(t, path, "# comment\nlocalhost:5432:orders:app:one\n*:*:*:app:two:with\\:colons\\\\\n\\:\\:1:5432:orders:root:three\n")
	for _, tt := range []struct {
		src  secrets.Source
		want string
	}{
		{src("localhost", 5432, "orders", "app"), "one"},
		{src("localhost", 5433, "orders", "app"), `two:with:colons\`},
		{src("::1", 5432, "orders", "root"), "three"},
	} {
		if c := get(t, tt.src); c.Password != tt.want || c.User == "" {
			t.Errorf("got %q, want %q", c.Password, tt.want)
		}
	}
	_, err := src("localhost", 5432, "orders", "nobody").Credentials(t.Context())
	if err == nil || !strings.Contains(err.Error(), "localhost:5432:orders:nobody") {
		t.Errorf("no line: %v", err)
	}
	write(t, path, "*:*:*:*:changed\n")
	if c := get(t, src("localhost", 5432, "orders", "nobody")); c.Password != "changed" {
		t.Errorf("after a change: %q", c.Password)
	}
}

func ExampleFromFile() {
	dir, err := os.MkdirTemp("", "secret")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	path := filepath.Join(dir, "password")
	_ = os.WriteFile(path, []byte("correct-horse\n"), 0o600)
	src := secrets.FromFile(path)
	c, err := src.Credentials(context.Background())
	fmt.Println(c.Password, err)
	_ = os.WriteFile(path, []byte("new-horse\n"), 0o600)
	c, err = src.Credentials(context.Background())
	fmt.Println(c.Password, err)
	// Output:
	// correct-horse <nil>
	// new-horse <nil>
}
