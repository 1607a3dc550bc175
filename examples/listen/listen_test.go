package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/aurorapgx/aurorapgx/examples/internal/lab"
	"github.com/aurorapgx/aurorapgx/examples/internal/page"
)

func TestListen(t *testing.T) {
	var out bytes.Buffer
	err := run(t.Context(), &out)
	t.Logf("\n%s", out.String())
	if err != nil {
		t.Fatal(err)
	}
	page.Check(t, "go run ./listen", out.String())
	for _, want := range []string{"listener: [1 2 3]\n", "was back: [4 5]\n", "after that: [6]\n", "packs 7: [8]\n", "next look: [7]\n", " 0 pinned sessions\n", " 1 pinned sessions\n  pinned by: listen orders\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output does not say %q", want)
		}
	}
}

// A listener connects as often as it has to, whether anybody waits for the signal or not.
func TestSignalsDoNotWait(t *testing.T) {
	l, err := lab.Start(t.Context(), lab.Setup{Schema: schema})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	conn, err := pgx.Connect(t.Context(), l.DirectURL(l.Primary))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(t.Context()) }()
	p := newPacker(slog.New(slog.DiscardHandler))
	for range 2 * (cap(p.listening) + 1) { // if it waited, it would do so for ever
		if err := p.HandleBacklog(t.Context(), "orders", conn); err != nil {
			t.Fatal(err)
		}
	}
}

// lines hands on what is written.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	select {
	case l <- string(p):
	default:
	}
	return len(p), nil
}

// A listener that cannot connect says so.
func TestErrorsAreTold(t *testing.T) {
	t.Parallel()
	log := make(lines, 1)
	stop := newPacker(slog.New(slog.NewTextHandler(log, nil))).start(t.Context(), "postgres://app@localhost/app?sslmode=allow", nil, nil)
	if line := <-log; !strings.Contains(line, "sslmode") {
		t.Errorf("it says %s", line)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
