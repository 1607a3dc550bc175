package proxy

import (
	"crypto/x509"
	"encoding/pem"
	"testing"
	"time"
	"unsafe"

	"github.com/jackc/pgx/v5/pgconn"
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

// Freeze makes a connection look as if the process had been frozen since it was last handed out: the
// wall clock has gone on and the monotonic clock has not. Package time has no way to make such a Time;
// one with both readings keeps the seconds of the first above its 30 bits of nanoseconds.
func Freeze(t *testing.T, pc *pgconn.PgConn, d time.Duration) {
	t.Helper()
	c := handedConnOf(pc)
	before := c.asked
	*(*uint64)(unsafe.Pointer(&c.asked)) -= uint64(d/time.Second) << 30
	if c.asked.Sub(before) != 0 || c.asked.Round(0).Sub(before.Round(0)) != -d {
		t.Fatalf("the clocks moved by %s and %s", c.asked.Sub(before), c.asked.Round(0).Sub(before.Round(0)))
	}
}
