package proxy_test

// Each case of the catalogue, brought about.

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ssocreds"
	"github.com/aws/aws-sdk-go-v2/feature/rds/auth"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
	"github.com/aurorapgx/aurorapgx/secrets"
	"github.com/aurorapgx/aurorapgx/secrets/secretstest"
)

// provoked is a failure that a test brings about: what somebody has written, and the
// options with which the test leads it to its server.
type provoked struct {
	conn string
	opts []proxy.Option
}

// provocations bring about each case of the catalogue.
var provocations = map[string]func(t *testing.T) provoked{
	"connection-string": func(*testing.T) provoked {
		return provoked{conn: "postgres://app:" + password + "@localhost/orders/archive"}
	},
	"host-name": func(*testing.T) provoked {
		return provoked{conn: "postgres://app@app.proxy-abc.eu-west-1.rds.amazonaws.con/orders"}
	},
	"environment": func(t *testing.T) provoked {
		t.Setenv("PGOPTIONS", "-c statement_timeout=5s")
		return provoked{conn: "postgres://app@" + proxyHost + "/orders"}
	},
	"option": func(*testing.T) provoked {
		return provoked{"postgres://app:x@db.example.com/orders", []proxy.Option{proxy.WithMaxConns(0)}}
	},
	"tls-not-verified": func(*testing.T) provoked {
		return provoked{conn: "postgres://app@" + proxyHost + "/orders?sslmode=require"}
	},
	"root-certificates": func(*testing.T) provoked {
		return provoked{conn: "postgres://app@" + clusterHost + "/orders?sslrootcert=/nonexistent.pem"}
	},
	"proxy-protocol": func(*testing.T) provoked {
		return provoked{conn: "postgres://app@" + proxyHost + "/orders?sslnegotiation=direct"}
	},
	"iam-region": func(*testing.T) provoked {
		return provoked{"postgres://app@db.example.com/orders", []proxy.Option{proxy.WithIAM("")}}
	},
	"iam-forbidden": func(*testing.T) provoked {
		return provoked{conn: "postgres://app@" + proxyHost + "/orders?require_auth=scram-sha-256"}
	},
	"two-logins": func(*testing.T) provoked {
		return provoked{"postgres://app:" + password + "@" + proxyHost + "/orders", []proxy.Option{proxy.WithIAM("")}}
	},

	"dns-not-found": func(t *testing.T) provoked { return provoked{"postgres://app:x@db.example.com/orders", dns(t, 3)} },
	"dns-failed":    func(t *testing.T) provoked { return provoked{"postgres://app:x@db.example.com/orders", dns(t, 2)} },
	"dns-timeout":   func(t *testing.T) provoked { return provoked{"postgres://app:x@db.example.com/orders", dns(t, -1)} },
	"tcp-refused": func(t *testing.T) provoked {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		return provoked{conn: "postgres://app:" + password + "@" + l.Addr().String() + "/orders"}
	},
	"tcp-timeout": func(*testing.T) provoked {
		drop := func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return provoked{"postgres://app:x@10.0.0.1/orders", []proxy.Option{proxy.WithDialer(drop)}}
	},
	"tcp-no-route": func(*testing.T) provoked {
		noRoute := func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}
		}
		return provoked{"postgres://app:x@10.0.0.1/orders", []proxy.Option{proxy.WithDialer(noRoute)}}
	},
	"server-silent":  scriptedCase(silent),
	"login-hung-up":  scriptedCase(hangUp),
	"not-postgresql": scriptedCase(func(d *dialogue) { _, _ = d.conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) }),
	"deadline": scriptedCase(func(d *dialogue) {
		if _, err := d.startup(); err != nil {
			return
		}
		d.Send(&pgproto3.AuthenticationCleartextPassword{})
		_ = d.Flush()
		silent(d)
	}),
	"cancelled": func(*testing.T) provoked {
		giveUp := func(context.Context, string, string) (net.Conn, error) { return nil, context.Canceled }
		return provoked{"postgres://app:x@10.0.0.1/orders", []proxy.Option{proxy.WithDialer(giveUp)}}
	},
	"unreachable": scriptedCase(refuse("58030", "could not read block 0")),

	"tls-unsupported": func(t *testing.T) provoked {
		s := newScripted(t, func(d *dialogue) {
			if _, err := d.ReceiveStartupMessage(); err == nil {
				_, _ = d.conn.Write([]byte{'N'})
			}
		})
		return provoked{conn: s.dsn() + "?sslmode=verify-full"}
	},
	"tls-required":           scriptedCase(refuse("28000", "This RDS Proxy requires TLS connections.")),
	"tls-client-certificate": tlsCase(proxyHost, func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }),
	"tls-no-common-parameters": tlsCase(proxyHost, func(c *tls.Config) {
		c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	}),
	"certificate-name":            tlsCase("db.example.com", func(*tls.Config) {}),
	"certificate-expired":         tlsCase(proxyHost, dated(-2*time.Hour, -time.Hour)),
	"certificate-not-yet-valid":   tlsCase(proxyHost, dated(time.Hour, 2*time.Hour)),
	"certificate-authority-proxy": distrusted(proxyHost),
	"certificate-authority-rds":   distrusted(clusterHost),
	"certificate-authority": func(t *testing.T) provoked {
		return provoked{conn: newScripted(t, login).dsn() + "?sslmode=verify-full"}
	},

	"aws-credentials-missing": awsCase(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{}, errors.New("no EC2 IMDS role found")
	}),
	"aws-sso-expired": awsCase(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{}, &ssocreds.InvalidTokenError{Err: errors.New("expired")}
	}),
	"aws-credentials-timeout": awsCase(func(ctx context.Context) (aws.Credentials, error) {
		<-ctx.Done()
		return aws.Credentials{}, ctx.Err()
	}),
	"secret-not-found":   secretCase("none", secretstest.None),
	"secret-denied":      secretCase("prod/orders", secretstest.AccessDenied),
	"secret-unusable":    secretCase("broken", secretstest.None),
	"secret-unavailable": secretCase("prod/orders", secretstest.Throttled),
	"credentials-source": sourceCase(login, func(context.Context) (secrets.Credentials, error) {
		return secrets.Credentials{}, errors.New("the vault is sealed")
	}),
	"credentials-timeout": sourceCase(login, func(ctx context.Context) (secrets.Credentials, error) {
		<-ctx.Done()
		return secrets.Credentials{}, ctx.Err()
	}),
	"credentials-unfit": func(t *testing.T) provoked {
		s := newScripted(t, login)
		return provoked{"postgres://127.0.0.1:" + s.port() + "/orders", []proxy.Option{proxy.WithCredentials(secrets.Static("", password))}}
	},

	"password-rejected":   scriptedCase(refuse("28P01", `password authentication failed for user "app"`)),
	"role-unknown":        scriptedCase(refuse("28000", `role "app" does not exist`)),
	"role-may-not-log-in": scriptedCase(refuse("28000", `role "app" is not permitted to log in`)),
	"proxy-no-secret": func(t *testing.T) provoked {
		px := proxytest.NewProxy(t, "", proxytest.WithUser("other", password))
		return provoked{withPassword(px.URL("app", "orders")), nil}
	},
	"iam-wanted": func(t *testing.T) provoked {
		px := proxytest.NewProxy(t, "", proxytest.WithUser("app", password), proxytest.WithClientAuth(proxytest.AuthIAM))
		return provoked{withPassword(px.URL("app", "orders")), nil}
	},
	"proxy-without-iam":  kindCase(proxy.KindProxy, refuse("28000", "IAM authentication is not enabled: check DefaultAuthScheme of the proxy.")),
	"proxy-secret-stale": kindCase(proxy.KindProxy, refuse("XX000", `Request returned an error: FATAL: password authentication failed for user "app"`)),
	"rotation-unfinished": func(t *testing.T) provoked {
		s := newScripted(t, refuse("28P01", "password authentication failed"))
		path := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(path, []byte(password), 0o600); err != nil {
			t.Fatal(err)
		}
		return provoked{"postgres://app@127.0.0.1:" + s.port() + "/orders", []proxy.Option{proxy.WithCredentials(secrets.FromFile(path))}}
	},
	"rotation-alternating-users": func(t *testing.T) provoked {
		px := proxytest.NewProxy(t, "", proxytest.WithUser("other", password))
		return provoked{px.URL("", "orders"), []proxy.Option{proxy.WithCredentials(&alternating{})}}
	},
	"iam-throttled":   kindCase(proxy.KindProxy, refuse("53300", "The IAM authentication failed because of too many competing requests.")),
	"token-malformed": tokenCase(func(token string) string { return strings.Replace(token, "Action=", "Action=%zz", 1) }),
	"token-undated":   tokenCase(func(token string) string { return strings.Replace(token, "X-Amz-Date=", "X-Amz-Dat=", 1) }),
	"token-host":      tokenCase(func(token string) string { return "other." + token }),
	"token-user":      tokenCase(func(token string) string { return strings.Replace(token, "DBUser=app", "DBUser=root", 1) }),
	"token-expired":   tokenCase(func(token string) string { return redated(token, -time.Hour) }),
	"token-early":     tokenCase(func(token string) string { return redated(token, time.Hour) }),
	"token-region":    tokenCase(func(token string) string { return strings.Replace(token, "eu-west-1%2F", "us-east-1%2F", 1) }),
	"token-rejected-by-proxy": tokenCase(func(token string) string { // tampered with
		head, signature, _ := strings.Cut(token, "X-Amz-Signature=")
		return head + "X-Amz-Signature=" + strings.Repeat("0", len(signature))
	}),
	"token-rejected": func(t *testing.T) provoked {
		s := newScripted(t, refuse("28000", `PAM authentication failed for user "app"`))
		provider := credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", password, "")
		return provoked{
			"postgres://app@" + clusterHost + ":" + s.port() + "/orders",
			[]proxy.Option{trusted(t), proxy.WithLookup(loopback), proxy.WithAWSConfig(aws.Config{Credentials: provider})},
		}
	},

	"pg-hba":   scriptedCase(refuse("28000", `no pg_hba.conf entry for host "10.0.0.1", user "app", database "orders", no encryption`)),
	"resuming": kindCase(proxy.KindInstance, refuse("28000", `no pg_hba.conf entry for host "10.0.0.1", user "app", database "orders", SSL encryption`)),
	"client-settings": func(t *testing.T) provoked {
		p := scriptedCase(func(d *dialogue) {
			if _, err := d.startup(); err != nil {
				return
			}
			d.Send(&pgproto3.AuthenticationCleartextPassword{})
			_ = d.Flush()
			silent(d)
		})(t)
		p.conn += "?require_auth=scram-sha-256"
		return p
	},
	"startup-parameter":             kindCase(proxy.KindProxy, refuse("0A000", "Feature not supported: RDS Proxy currently doesn’t support the option statement_timeout.")),
	"startup-parameter-unknown":     scriptedCase(refuse("42704", `unrecognized configuration parameter "work_memory"`)),
	"startup-parameter-invalid":     scriptedCase(refuse("22023", `invalid value for parameter "TimeZone": "Mars/Phobos"`)),
	"database-not-found":            scriptedCase(refuse("3D000", `database "orders" does not exist`)),
	"connect-not-granted":           scriptedCase(refuse("42501", `permission denied for database "orders"`)),
	"too-many-connections":          scriptedCase(refuse("53300", "sorry, too many clients already")),
	"too-many-connections-reserved": scriptedCase(refuse("53300", "remaining connection slots are reserved for roles with the SUPERUSER attribute")),
	"too-many-connections-role":     scriptedCase(refuse("53300", `too many connections for role "app"`)),
	"too-many-connections-database": scriptedCase(refuse("53300", `too many connections for database "orders"`)),
	"proxy-rate":                    kindCase(proxy.KindProxy, refuse("53300", "Rate of connection to proxy exceeded 100.")),
	"starting-up":                   scriptedCase(refuse("57P03", "the database system is starting up")),
	"shutting-down":                 scriptedCase(refuse("57P03", "the database system is shutting down")),
	"out-of-resources":              scriptedCase(refuse("53200", "out of memory")),
	"proxy-internal":                kindCase(proxy.KindProxy, refuse("XX000", "Unknown error.")),
	"borrow-timeout": func(t *testing.T) provoked {
		px := proxytest.NewProxy(t, "", proxytest.WithUser("app", password), proxytest.WithBorrowTimeout(50*time.Millisecond))
		return provoked{withPassword(px.URL("app", "orders")), nil}
	},
	"borrow-waits": func(t *testing.T) provoked {
		px := proxytest.NewProxy(t, "", proxytest.WithUser("app", password))
		return provoked{withPassword(px.URL("app", "orders")), nil}
	},
	"writer-leads-to-reader": kindCase(proxy.KindWriter, func(d *dialogue) {
		if _, err := d.startup(); err != nil {
			return
		}
		d.Send(&pgproto3.AuthenticationOk{})
		d.Send(&pgproto3.ParameterStatus{Name: "in_hot_standby", Value: "on"})
		d.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		_ = d.Flush()
		d.serve()
	}),
	"unexpected": scriptedCase(refuse("0P000", "invalid role specification")),
}

// scriptedCase meets a local server that follows the script.
func scriptedCase(script func(*dialogue)) func(*testing.T) provoked {
	return func(t *testing.T) provoked { return provoked{conn: newScripted(t, script).dsn()} }
}

// kindCase meets one that is said to be of a kind.
func kindCase(kind proxy.Kind, script func(*dialogue)) func(*testing.T) provoked {
	return func(t *testing.T) provoked {
		return provoked{newScripted(t, script).dsn(), []proxy.Option{proxy.WithEndpointKind(kind), trusted(t)}}
	}
}

// withPassword puts the password into a URL of proxytest's.
func withPassword(url string) string {
	return strings.Replace(url, "app@", "app:"+password+"@", 1)
}

// dns is a real resolver that asks a server which answers each question with the code; -1 is
// silence.
func dns(t *testing.T, code int) []proxy.Option {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			question := make([]byte, 512)
			n, from, err := server.ReadFrom(question)
			if err != nil {
				return
			}
			if code >= 0 {
				question[2] |= 0x80 // an answer
				question[3] = byte(code)
				_, _ = server.WriteTo(question[:n], from)
			}
		}
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
	return []proxy.Option{proxy.WithLookup(resolver.LookupHost)}
}

// issued is a self-signed certificate for the names that the tests dial.
func issued(t *testing.T, notBefore, notAfter time.Time) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: notBefore, NotAfter: notAfter,
		DNSNames: []string{proxyHost, clusterHost}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// dated makes the certificate valid from and to these times from now.
func dated(from, to time.Duration) func(*tls.Config) {
	return func(c *tls.Config) { c.Time = func() time.Time { return time.Now().Add(from + (to-from)/2) } }
}

// tlsCase meets a server behind TLS of its own making, whose certificate is trusted.
func tlsCase(host string, change func(*tls.Config)) func(*testing.T) provoked {
	return func(t *testing.T) provoked {
		cfg := &tls.Config{}
		change(cfg)
		from, to := time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		if cfg.Time != nil {
			from, to = cfg.Time().Add(-30*time.Minute), cfg.Time().Add(30*time.Minute)
		}
		cert, authority := issued(t, from, to)
		cfg.Certificates = []tls.Certificate{cert}
		s := newScripted(t, func(d *dialogue) {
			if _, err := d.ReceiveStartupMessage(); err != nil {
				return
			}
			_, _ = d.conn.Write([]byte{'S'})
			secured := tls.Server(d.conn, cfg)
			if secured.Handshake() == nil {
				d.Backend = pgproto3.NewBackend(secured, secured)
				login(d)
			}
		})
		return provoked{
			"postgres://app:" + password + "@" + host + ":" + s.port() + "/orders",
			[]proxy.Option{proxy.WithLookup(loopback), proxy.WithRootCAs(authority)},
		}
	}
}

// distrusted is a host whose certificate nobody knows.
func distrusted(host string) func(*testing.T) provoked {
	return func(t *testing.T) provoked {
		s := newScripted(t, login)
		return provoked{"postgres://app:" + password + "@" + host + ":" + s.port() + "/orders", []proxy.Option{proxy.WithLookup(loopback)}}
	}
}

func awsCase(retrieve aws.CredentialsProviderFunc) func(*testing.T) provoked {
	return func(t *testing.T) provoked {
		s := newScripted(t, login)
		return provoked{
			"postgres://app@" + proxyHost + ":" + s.port() + "/orders",
			[]proxy.Option{trusted(t), proxy.WithLookup(loopback), proxy.WithAWSConfig(aws.Config{Credentials: retrieve})},
		}
	}
}

func secretCase(name string, fault secretstest.Fault) func(*testing.T) provoked {
	return func(t *testing.T) provoked {
		srv := secretstest.NewServer(t)
		srv.Put("prod/orders", `{"username":"app","password":"`+password+`"}`)
		srv.Put("broken", `{"username":"app","password":"`+password)
		srv.Fail(fault)
		s := newScripted(t, login)
		return provoked{
			"postgres://" + proxyHost + ":" + s.port() + "/orders?secret=" + name,
			[]proxy.Option{trusted(t), proxy.WithLookup(loopback), proxy.WithAWSConfig(srv.Config())},
		}
	}
}

func sourceCase(script func(*dialogue), source func(context.Context) (secrets.Credentials, error)) func(*testing.T) provoked {
	return func(t *testing.T) provoked {
		s := newScripted(t, script)
		return provoked{"postgres://app@127.0.0.1:" + s.port() + "/orders", []proxy.Option{proxy.WithCredentials(secrets.Func(source))}}
	}
}

// tokenCase meets an RDS Proxy with a token that was signed properly and then spoilt.
func tokenCase(spoil func(string) string) func(*testing.T) provoked {
	return func(t *testing.T) provoked {
		px := proxytest.NewProxy(t, "", proxytest.WithUser("app", password), proxytest.WithIAMUser("app"))
		source := secrets.Func(func(ctx context.Context) (secrets.Credentials, error) {
			host := net.JoinHostPort(px.Host(), fmt.Sprint(px.Port()))
			token, err := auth.BuildAuthToken(ctx, host, px.Region(), "app", credentials.StaticCredentialsProvider{Value: px.Credentials()})
			return secrets.Credentials{Password: spoil(token)}, err
		})
		return provoked{px.URL("app", "orders"), []proxy.Option{proxy.WithCredentials(source)}}
	}
}

var tokenDate = regexp.MustCompile(`X-Amz-Date=\d{8}T\d{6}Z`)

func redated(token string, by time.Duration) string {
	return tokenDate.ReplaceAllString(token, "X-Amz-Date="+time.Now().Add(by).UTC().Format("20060102T150405Z"))
}

// alternating is a source that names a different user each time.
type alternating struct{ asked int }

func (a *alternating) Credentials(context.Context) (secrets.Credentials, error) {
	a.asked++
	return secrets.Credentials{User: fmt.Sprintf("app%d", a.asked), Password: password}, nil
}

func (*alternating) Rejected(context.Context, secrets.Credentials) {}
