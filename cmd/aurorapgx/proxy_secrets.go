package main

// Passwords, the access key and the CA file: where they come from, and how files are written. None
// of them is ever printed.

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

// proxyUser is a database user who may sign in to the proxy.
type proxyUser struct {
	Name         string `json:"name"`
	Auth         string `json:"auth"`         // scram (also if empty), md5 or iam
	Password     string `json:"password"`     // of the database, too
	PasswordFrom string `json:"passwordFrom"` // where it is, instead
}

func (u *proxyUser) check() string {
	switch {
	case u.Name == "":
		return `has no name; write {"name": "app", "passwordFrom": "env:APP_PASSWORD"}`
	case u.Auth != "" && u.Auth != "scram" && u.Auth != "md5" && u.Auth != "iam":
		return fmt.Sprintf("(%s) has auth %q; write scram, md5 or iam", u.Name, u.Auth)
	case u.Password != "" && u.PasswordFrom != "":
		return fmt.Sprintf("(%s) has both password and passwordFrom; leave one out", u.Name)
	case u.PasswordFrom != "":
		if kind, rest, ok := strings.Cut(u.PasswordFrom, ":"); !ok || rest == "" || kind != "env" && kind != "file" {
			return fmt.Sprintf("(%s) has a password from what is neither env:VARIABLE nor file:PATH; a password itself may not stand there", u.Name)
		}
	case u.Password == "" && u.Auth != "iam":
		return fmt.Sprintf("(%s) has no password; say where it is, as env:VARIABLE or file:PATH", u.Name)
	}
	return ""
}

// options reads the password. Without one of its own, the proxy signs in to the database with that
// of the backend's DSN.
func (u *proxyUser) options(getenv func(string) string) ([]proxytest.Option, error) {
	var opts []proxytest.Option
	password := u.Password
	if u.PasswordFrom != "" {
		var err error
		if password, err = readSecret(u.PasswordFrom, getenv); err != nil {
			return nil, fmt.Errorf("user %s: %w", u.Name, err)
		}
	}
	if password != "" {
		opts = append(opts, proxytest.WithUser(u.Name, password))
	}
	switch u.Auth {
	case "md5":
		opts = append(opts, proxytest.WithMD5User(u.Name))
	case "iam":
		opts = append(opts, proxytest.WithIAMUser(u.Name))
	}
	return opts, nil
}

// readSecret reads env:VARIABLE or file:PATH. A line feed at a file's end is none of the password.
func readSecret(source string, getenv func(string) string) (string, error) {
	kind, name, _ := strings.Cut(source, ":")
	if kind == "env" {
		if v := getenv(name); v != "" {
			return v, nil
		}
		return "", fmt.Errorf("the environment variable %s is not set; set it to the password", name)
	}
	data, err := os.ReadFile(name) //nolint:gosec // the file is the one the user names
	if err != nil {
		return "", err
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if password == "" {
		return "", fmt.Errorf("%s is empty; write the password into it", name)
	}
	return password, nil
}

// userFlag is one of the flags that name users.
type userFlag struct {
	users *[]proxyUser
	auth  string
}

func (f *userFlag) String() string { return "" }

// Set reads NAME=SOURCE; a user whom the file has as well is the flag's. What is wrong with it is
// left to check, as package flag would print the text, and somebody may have put a password there.
func (f *userFlag) Set(text string) error {
	name, source, _ := strings.Cut(text, "=")
	u := proxyUser{Name: name, Auth: f.auth, PasswordFrom: source}
	for i := range *f.users {
		if (*f.users)[i].Name == name {
			(*f.users)[i] = u
			return nil
		}
	}
	*f.users = append(*f.users, u)
	return nil
}

// accessKey is the key that IAM tokens are signed with, and where it is.
type accessKey struct {
	credentials aws.Credentials
	file        string // of the kind that AWS's tools read; "" if it came from the environment
	remove      func() error
}

const keyFilePrefix = "file:"

func checkKeySource(source string) string {
	if path, ok := strings.CutPrefix(source, keyFilePrefix); source == "" || source == "env" || ok && path != "" {
		return ""
	}
	return "is neither env nor file:PATH; a key itself may not stand there"
}

// accessKey finds or makes the key.
func (s *proxySettings) accessKey(ctx context.Context, getenv func(string) string) (*accessKey, error) {
	k := &accessKey{remove: func() error { return nil }}
	path, inFile := strings.CutPrefix(s.AccessKey, keyFilePrefix)
	switch {
	case s.AccessKey == "env":
		k.credentials = aws.Credentials{
			AccessKeyID: getenv("AWS_ACCESS_KEY_ID"), SecretAccessKey: getenv("AWS_SECRET_ACCESS_KEY"), SessionToken: getenv("AWS_SESSION_TOKEN"),
		}
		if k.credentials.AccessKeyID == "" || k.credentials.SecretAccessKey == "" {
			return nil, errors.New("accessKey env: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or leave the setting out for a random key")
		}
		return k, nil
	case inFile:
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) { //nolint:gosec // the file is the one the user names
			return readKeyFile(ctx, path)
		}
		k.file = path
	default:
		dir, err := os.MkdirTemp("", "aurorapgx-proxy-")
		if err != nil {
			return nil, fmt.Errorf("access key: %w", err)
		}
		k.file, k.remove = filepath.Join(dir, "credentials"), func() error { return os.RemoveAll(dir) }
	}
	k.credentials = aws.Credentials{AccessKeyID: "AKIA" + rand.Text()[:16], SecretAccessKey: rand.Text() + rand.Text()[:14]}
	text := fmt.Sprintf("# The access key of an aurorapgx proxy: AWS does not know it.\n[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n",
		k.credentials.AccessKeyID, k.credentials.SecretAccessKey)
	if err := writeWhole(k.file, []byte(text), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("access key: %w", err), k.remove())
	}
	return k, nil
}

// readKeyFile reads the default profile of a credentials file.
func readKeyFile(ctx context.Context, path string) (*accessKey, error) {
	profile, err := config.LoadSharedConfigProfile(ctx, "default", func(o *config.LoadSharedConfigOptions) {
		o.CredentialsFiles, o.ConfigFiles = []string{path}, []string{}
	})
	if err != nil || !profile.Credentials.HasKeys() {
		return nil, fmt.Errorf("accessKey: %s has no access key in a profile [default]; write aws_access_key_id and aws_secret_access_key there, or remove the file to have one made", path)
	}
	return &accessKey{credentials: profile.Credentials, file: path, remove: func() error { return nil }}, nil
}

// writeWhole writes a file under another name first, so that nobody reads half of it.
func writeWhole(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".aurorapgx-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path) //nolint:gosec // the file is the one the user names
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name())) //nolint:gosec // the same
	}
	return nil
}

// isOwnCA knows a file that writeCAFile has written.
func isOwnCA(data []byte) bool {
	block, _ := pem.Decode(data)
	if block == nil {
		return false
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	return err == nil && cert.Subject.CommonName == caCommonName
}
