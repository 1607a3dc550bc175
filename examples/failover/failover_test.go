package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// One crash and one of RDS Proxy's, from the cluster to the page.
func TestFailover(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	page := filepath.Join(t.TempDir(), "failover.html")
	if err := run(t.Context(), &out, settings{runs: 1, faults: "kill,proxy", html: page, workers: 4}); err != nil {
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
	for _, elsewhere := range []string{"<script", "src=", "href=", "url("} {
		if strings.Contains(string(html), elsewhere) {
			t.Errorf("the page has %q: it should need nothing from elsewhere", elsewhere)
		}
	}
}

func TestUnknownFault(t *testing.T) {
	t.Parallel()
	if _, err := choose("kill,flood"); err == nil || !strings.Contains(err.Error(), "flood") {
		t.Errorf("%v", err)
	}
}
