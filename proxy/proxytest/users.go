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
	verifiers map[string]knownVerifier  // by user
	sessions  map[*clientSession]string // the user who has signed in
}

// knownVerifier is kept because it takes thousands of hashes to make.
type knownVerifier struct {
	*scramVerifier

	password string // that it is of; the user may have another by now
}

type userSecret struct {
	password string
	iam      bool // the client brings an IAM token, not the password
}

func newUserDirectory(c config, backend *pgconn.Config) *userDirectory {
	d := &userDirectory{
		mode: c.clientAuth, users: map[string]userSecret{},
		verifiers: map[string]knownVerifier{}, sessions: map[*clientSession]string{},
	}
	fallback := ""
	if backend != nil {
		fallback = backend.Password
		if _, named := c.passwords[backend.User]; !named {
			d.users[backend.User] = userSecret{password: fallback, iam: true}
		}
	}
	for name, password := range c.passwords {
		d.users[name] = userSecret{password: password, iam: c.iamUsers[name]}
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
	secret, ok = d.users[name]
	switch d.mode {
	case AuthIAM:
		secret.iam = true
	case AuthSCRAM:
		secret.iam = false
	case AuthPerUser:
	}
	return secret, ok
}

// verifier is for a user's sign-in with SCRAM.
func (d *userDirectory) verifier(name, password string) (*scramVerifier, error) {
	d.mu.Lock()
	known := d.verifiers[name]
	d.mu.Unlock()
	if known.scramVerifier != nil && known.password == password {
		return known.scramVerifier, nil
	}
	v, err := newSCRAMVerifier(password)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.verifiers[name] = knownVerifier{v, password}
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
// credentials for the role".
func (p *Proxy) RemoveUser(name string) {
	p.users.mu.Lock()
	defer p.users.mu.Unlock()
	delete(p.users.users, name)
}
