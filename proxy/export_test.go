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

// CatalogueEntry is an entry of the catalogue, for the page about it.
type CatalogueEntry struct{ Case, Step, Shows, Cause, Fix string }

// Catalogue is the whole of it.
func Catalogue() (entries []CatalogueEntry) {
	for _, e := range catalogue[noTrouble+1:] {
		entries = append(entries, CatalogueEntry{e.name, e.step, e.shows, e.cause, e.fix})
	}
	return entries
}
