package proxy

import (
	"crypto/x509"
	"encoding/pem"
	"strings"
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

// Freeze makes a connection look as if the process had been frozen since it was last handed out.
func Freeze(t *testing.T, pc *pgconn.PgConn, d time.Duration) {
	t.Helper()
	freeze(t, &handedConnOf(pc).asked, d)
}

// freeze makes a time look as if the process had been frozen since: the wall clock has gone on and the
// monotonic clock has not. Package time has no way to make such a Time; one with both readings keeps the
// seconds of the first above its 30 bits of nanoseconds.
func freeze(t *testing.T, at *time.Time, d time.Duration) {
	t.Helper()
	before := *at
	if !strings.Contains(before.String(), " m=") { // the wall clock's reading alone
		*at = before.Add(-d)
		return
	}
	*(*uint64)(unsafe.Pointer(at)) -= uint64(d/time.Second) << 30
	if at.Sub(before) != 0 || at.Round(0).Sub(before.Round(0)) != -d {
		t.Fatalf("the clocks moved by %s and %s", at.Sub(before), at.Round(0).Sub(before.Round(0)))
	}
}
