package main

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

func TestProxyLog(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	l := newProxyLog(&b, slog.LevelInfo)
	log := slog.New(l)
	log.Debug("too little")
	r := slog.NewRecord(time.Date(2024, 10, 12, 19, 20, 40, 5, time.FixedZone("", 7200)), slog.LevelWarn, "[proxyEndpoint=default] one\nline", 0)
	if err := l.Handle(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if want := "2024-10-12T17:20:40 [WARN] [proxyEndpoint=default] one line\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}

func TestGroupPins(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	pin := func(client uint64, rule, digest, file string, doubt string) proxytest.Pin {
		at = at.Add(time.Second)
		return proxytest.Pin{ClientConnection: client, Rule: rule, Digest: digest, Time: at, Caller: proxytest.Caller{File: file, Line: 1, Doubt: doubt}}
	}
	groups := groupPins([]proxytest.Pin{
		pin(1, "settings", "set a", "a.py", ""), pin(2, "listen", "listen x", "b.py", ""), pin(3, "settings", "set a", "a.py", "not looked for"), pin(4, "settings", "set a", "c.py", ""),
	}, []proxytest.ClientConnection{{ID: 1, Pinned: true}, {ID: 2}, {ID: 4, Pinned: true}})
	var got []string
	for _, g := range groups {
		got = append(got, strings.Join([]string{g.Rule, g.Caller, strings.Repeat("*", g.Times), strings.Repeat("!", g.Now)}, " "))
		if g.Instead == "" {
			t.Errorf("%s: nothing instead", g.Rule)
		}
	}
	if want := "settings c.py:1 * !|settings a.py:1 ** !|listen b.py:1 * "; strings.Join(got, "|") != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// What clients send is text on the page, and nothing else.
func TestStatusPageEscapes(t *testing.T) {
	t.Parallel()
	const evil = `<script>alert(1)</script>`
	var b strings.Builder
	err := statusTemplate.Execute(&b, statusPage{
		Host: "h", Pins: []*pinGroup{{Times: 2, Digest: evil, Caller: evil, User: evil}}, Strict: true,
		Leaks:   []proxytest.Leak{{Kind: "setting", Name: evil, Digests: []string{evil}}},
		Clients: []proxytest.ClientConnection{{User: evil, Application: evil}},
	})
	if err != nil || strings.Contains(b.String(), evil) || strings.Count(b.String(), "&lt;script&gt;") != 7 {
		t.Errorf("%v\n%s", err, b.String())
	}
}
