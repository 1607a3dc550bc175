package secrets

// Secrets in files that something else keeps up to date: Kubernetes, the Secrets Store
// CSI driver, the AWS Secrets Manager Agent's exporters, an init container. A file is
// read for each new connection, which costs microseconds, so that there is no cache to go
// stale.

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// FromFile reads user name and password from path, anew for each connection. It is
// [Rotating]. The path may be
//
//   - a file with the JSON of [Parse], as the Secrets Store CSI driver mounts a secret
//     of AWS Secrets Manager;
//   - a directory with the files username and password, and if need be host, port and
//     dbname, as Kubernetes mounts a Secret;
//   - a file with nothing but the password, of the connection string's user, as Docker
//     mounts a secret.
//
// One newline at the end of a file does not count. Errors are [*Error].
func FromFile(path string) *File { return &File{path: path} }

// File is what [FromFile] returns. It is safe for concurrent use.
type File struct{ path string }

// Credentials reads the file.
func (f *File) Credentials(ctx context.Context) (Credentials, error) {
	s, err := f.Secret(ctx)
	return s.Credentials, err
}

// Secret reads the file, with what else it tells: host, port, database.
func (f *File) Secret(ctx context.Context) (Secret, error) {
	if ctx.Err() != nil {
		return Secret{}, context.Cause(ctx)
	}
	info, err := os.Stat(f.path)
	if err != nil {
		return Secret{}, fileError(f.path, err)
	}
	if info.IsDir() {
		return f.readDirectory()
	}
	text, err := readLine(f.path)
	if err != nil {
		return Secret{}, err
	}
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		return Parse(f.path, text)
	}
	return form{plain: true}.parse(f.path, text)
}

// Rejected has nothing to forget: the file is read each time.
func (f *File) Rejected(context.Context, Credentials) {}

// String names the file, for errors.
func (f *File) String() string { return "secret file " + strconv.Quote(f.path) }

// Validate reports a path that is empty. The file itself may still be to come.
func (f *File) Validate() error {
	if f.path == "" {
		return &Error{Secret: f.path, Problem: "the path is empty", Fix: "write the path of a file or directory"}
	}
	return nil
}

// readDirectory reads one version of the secret: Kubernetes replaces all files at once,
// by pointing the link ..data to another directory, and then removes the former one.
func (f *File) readDirectory() (Secret, error) {
	const attempts = 5
	for attempt := 1; ; attempt++ {
		dir, err := filepath.EvalSymlinks(filepath.Join(f.path, "..data"))
		if errors.Is(err, fs.ErrNotExist) {
			dir, err = filepath.EvalSymlinks(f.path)
		}
		if err != nil {
			return Secret{}, fileError(f.path, err)
		}
		s, err := f.readFields(dir)
		if errors.Is(err, fs.ErrNotExist) && attempt < attempts {
			continue
		}
		return s, err
	}
}

func (f *File) readFields(dir string) (Secret, error) {
	bad := func(field, problem, fix string) (Secret, error) {
		return Secret{}, &Error{Secret: f.path, Field: field, Problem: problem, Fix: fix}
	}
	var (
		s    Secret
		port string
	)
	for _, field := range []struct {
		name     string
		required bool
		into     *string
	}{{"username", true, &s.User}, {"password", true, &s.Password}, {"host", false, &s.Host}, {"port", false, &port}, {"dbname", false, &s.Database}} {
		text, err := readLine(filepath.Join(dir, field.name))
		switch {
		case err != nil && (field.required || !errors.Is(err, fs.ErrNotExist)):
			return Secret{}, err
		case field.required && text == "":
			return bad(field.name, "is empty", "expected a file "+field.name+" with the "+field.name+" in it")
		case strings.ContainsRune(text, 0):
			return bad(field.name, "contains a NUL byte", "PostgreSQL allows none")
		}
		*field.into = text
	}
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return bad("port", "is no port", "expected a number from 1 to 65535")
		}
		s.Port = uint16(n)
	}
	return s, nil
}

func readLine(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", fileError(path, err)
	}
	text := strings.TrimSuffix(string(raw), "\n")
	return strings.TrimSuffix(text, "\r"), nil
}

func fileError(path string, err error) error {
	reason := err
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		reason = pathErr.Err
	}
	return &Error{
		Secret: path, Problem: "cannot be read: " + reason.Error(), Fix: "check the mount and the permissions of this process",
		err: err, temporary: errors.Is(err, fs.ErrNotExist), // a mount may be late, or be replaced at this moment
	}
}

// FromPassfile reads the password from a file in the format of libpq's password file,
// anew for each connection: lines of host:port:database:user:password, of which the first
// four may be *, and the first line that fits decides. A colon or backslash in a field
// has a backslash before it; lines that begin with # are comments. It is [Rotating].
// Source: https://www.postgresql.org/docs/current/libpq-pgpass.html
func FromPassfile(path, host string, port uint16, database, user string) Source {
	return &passfile{path: path, user: user, want: [4]string{host, strconv.Itoa(int(port)), database, user}}
}

type passfile struct {
	path, user string
	want       [4]string // host, port, database, user
}

func (p *passfile) Credentials(ctx context.Context) (Credentials, error) {
	if ctx.Err() != nil {
		return Credentials{}, context.Cause(ctx)
	}
	raw, err := os.ReadFile(p.path)
	if err != nil {
		return Credentials{}, fileError(p.path, err)
	}
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimRight(line, "\r\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		if password, ok := p.match(splitPassfile(line)); ok {
			return Credentials{User: p.user, Password: password}, nil
		}
	}
	return Credentials{}, &Error{
		Secret: p.path, Problem: "has no line for " + strings.Join(p.want[:], ":"),
		Fix: "add one: host:port:database:user:password, with * for what may be anything",
	}
}

func (p *passfile) Rejected(context.Context, Credentials) {}

func (p *passfile) String() string { return "password file " + strconv.Quote(p.path) }

func (p *passfile) match(fields []string) (password string, ok bool) {
	if len(fields) != len(p.want)+1 {
		return "", false
	}
	for i, want := range p.want {
		if fields[i] != "*" && fields[i] != want {
			return "", false
		}
	}
	return fields[len(p.want)], true
}

// splitPassfile splits a line at its colons. As in libpq, the password is what follows
// the fourth.
func splitPassfile(line string) []string {
	var (
		fields []string
		field  strings.Builder
	)
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && i+1 < len(line):
			i++
			field.WriteByte(line[i])
		case c == ':' && len(fields) < 4:
			fields = append(fields, field.String())
			field.Reset()
		default:
			field.WriteByte(c)
		}
	}
	return append(fields, field.String())
}
