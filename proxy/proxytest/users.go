package proxytest

import (
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
)

// userDirectory holds the secrets: what RDS Proxy finds in Secrets Manager.
type userDirectory struct {
	mode ClientAuth

	mu        sync.Mutex
	users     map[string]userSecret
	fallback  *userSecret               // for users without a secret; nil if they are refused
	verifiers map[string]*scramVerifier // by user, of the last password
	sessions  map[*clientSession]string // the user who has signed in
}

type userSecret struct {
	password string
	iam      bool // the client brings an IAM token, not the password
	md5      bool // the client brings the password by MD5, not by SCRAM
}

func newUserDirectory(c config, backend *pgconn.Config) *userDirectory {
	d := &userDirectory{
		mode: c.clientAuth, users: map[string]userSecret{},
		verifiers: map[string]*scramVerifier{}, sessions: map[*clientSession]string{},
	}
	fallback := ""
	if backend != nil {
		fallback = backend.Password
		if _, named := c.passwords[backend.User]; !named {
			d.users[backend.User] = userSecret{password: fallback, iam: true}
		}
	}
	for name, password := range c.passwords {
		d.users[name] = userSecret{password: password, iam: c.iamUsers[name], md5: c.md5Users[name]}
	}
	if c.endToEndIAM {
		d.fallback = &userSecret{password: fallback, iam: true}
		d.mode = AuthIAM
	}
	for name := range c.iamUsers {
		if _, ok := d.users[name]; !ok {
			d.users[name] = userSecret{password: fallback, iam: true}
		}
	}
	return d
}

func (d *userDirectory) find(name string) (secret userSecret, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	secret, ok = d.secret(name)
	switch d.mode {
	case AuthIAM:
		secret.iam = true
	case AuthSCRAM:
		secret.iam, secret.md5 = false, false
	case AuthMD5:
		secret.iam, secret.md5 = false, true
	case AuthPerUser:
	}
	return secret, ok
}

// secret is a user's, or else the one for users without. mu is held.
func (d *userDirectory) secret(name string) (secret userSecret, ok bool) {
	secret, ok = d.users[name]
	if !ok && d.fallback != nil {
		return *d.fallback, true
	}
	return secret, ok
}

// verifier is for a user's sign-in with SCRAM.
func (d *userDirectory) verifier(name, password string) (*scramVerifier, error) {
	d.mu.Lock()
	v := d.verifiers[name]
	d.mu.Unlock()
	if v != nil && v.password == password {
		return v, nil
	}
	v, err := newSCRAMVerifier(password)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.verifiers[name] = v
	return v, nil
}

// SetUser changes the secret of a user, or adds one, as a rotation in Secrets Manager does: logins
// from now on are checked against the new password, connections that exist are left alone. A user
// that was known keeps its way to sign in; a new one uses SCRAM.
func (p *Proxy) SetUser(name, password string) {
	p.users.mu.Lock()
	defer p.users.mu.Unlock()
	secret := p.users.users[name]
	secret.password = password
	p.users.users[name] = secret
}

// RemoveUser makes the proxy forget a user's secret: further logins are refused with 28000 "no
// credentials for the role", unless [WithEndToEndIAM] asks for no secret.
func (p *Proxy) RemoveUser(name string) {
	p.users.mu.Lock()
	defer p.users.mu.Unlock()
	delete(p.users.users, name)
}
