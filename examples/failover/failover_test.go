package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/aurorapgx/aurorapgx/examples/internal/page"
)

// One crash and one of RDS Proxy's, from the cluster to the page.
func TestFailover(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	folder := t.TempDir()
	page := filepath.Join(folder, "failover.html")
	if err := run(t.Context(), &out, settings{runs: 1, faults: "kill,proxy", html: page, svg: folder, workers: 4}); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	t.Log(out.String())
	html, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range append(clientNames, "writes accepted", "<svg", "Writer crashes (SIGKILL)") {
		if !strings.Contains(string(html), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, fault := range []string{"kill", "proxy"} {
		requireXML(t, filepath.Join(folder, fault+".svg"))
	}
	for _, elsewhere := range []string{"<script", "src=", "href=", "url("} {
		if strings.Contains(string(html), elsewhere) {
			t.Errorf("the page has %q: it should need nothing from elsewhere", elsewhere)
		}
	}
}

// requireXML holds a drawing to what browsers ask of one in a file of its own.
func requireXML(t *testing.T, file string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = f.Close() }()
	for d := xml.NewDecoder(f); ; {
		switch _, err := d.Token(); {
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			t.Errorf("%s: %v", file, err)
			return
		}
	}
}

// The command of the README.
func TestReadme(t *testing.T) { // not parallel: it is about time
	var out bytes.Buffer
	if err := run(t.Context(), &out, settings{runs: 1, faults: "kill", workers: 8}); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	version := regexp.MustCompile(`PostgreSQL [^;\n]*;`)
	page.Check(t, "go run ./failover -faults kill -html ''", version.ReplaceAllString(out.String(), "PostgreSQL 15;"))
}

func TestUnknownFault(t *testing.T) {
	t.Parallel()
	if _, err := choose("kill,flood"); err == nil || !strings.Contains(err.Error(), "flood") {
		t.Errorf("%v", err)
	}
}
