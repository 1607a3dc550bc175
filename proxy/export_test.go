package proxy

import (
	"crypto/x509"
	"encoding/pem"
	"testing"
)

// AmazonRoots parses the roots that come with the package.
func AmazonRoots(t *testing.T) (certs []*x509.Certificate) {
	t.Helper()
	for rest := amazonRoots; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return certs
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		certs = append(certs, cert)
	}
}
