package proxytest

// The proxy's certificate: an RSA leaf from a CA that exists for this proxy only. The leaf is RSA
// because RDS Proxy offers RSA cipher suites only, so that a client whose TLS settings leave no
// RSA suite fails here too
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy.howitworks.html).

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

type certificates struct {
	ca   *x509.Certificate
	leaf tls.Certificate
	file string // PEM of the CA, in a directory of its own
}

func newCertificates(host string) (*certificates, error) {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("CA key: %w", err)
	}
	now := time.Now()
	caTemplate := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "aurorapgx proxytest CA"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.AddDate(1, 1, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, caTemplate, caTemplate, &caKey.PublicKey, caKey)
	if err != nil {
		return nil, fmt.Errorf("CA certificate: %w", err)
	}
	ca, err := x509.ParseCertificate(caDER)
	if err != nil {
		return nil, fmt.Errorf("CA certificate: %w", err)
	}
	leafKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	leafTemplate := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "proxytest"},
		NotBefore:    caTemplate.NotBefore,
		NotAfter:     caTemplate.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{host, "localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if ip := net.ParseIP(host); ip != nil {
		leafTemplate.DNSNames = []string{"localhost"}
		leafTemplate.IPAddresses = append(leafTemplate.IPAddresses, ip)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leafTemplate, ca, &leafKey.PublicKey, caKey)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	c := &certificates{ca: ca, leaf: tls.Certificate{Certificate: [][]byte{leafDER, caDER}, PrivateKey: leafKey}}
	return c, c.writeFile()
}

func (c *certificates) writeFile() error {
	dir, err := os.MkdirTemp("", "proxytest-")
	if err != nil {
		return fmt.Errorf("CA file: %w", err)
	}
	c.file = filepath.Join(dir, "ca.pem")
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.ca.Raw})
	if err := os.WriteFile(c.file, data, 0o600); err != nil {
		_ = c.remove()
		return fmt.Errorf("CA file: %w", err)
	}
	return nil
}

func (c *certificates) remove() error { return os.RemoveAll(filepath.Dir(c.file)) }

func (c *certificates) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.ca)
	return pool
}

// serverConfig has no post-quantum key exchange: RDS Proxy negotiates none, and a client that
// offers nothing else cannot connect (same page as above). The TLS 1.2 suites are RSA ones by
// virtue of the key.
func (c *certificates) serverConfig() *tls.Config {
	return &tls.Config{
		Certificates:     []tls.Certificate{c.leaf},
		MinVersion:       tls.VersionTLS12,
		CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521},
	}
}
