package main

// This file prints what remains to be said when the work is done.

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

// report prints what the application, its pool and the proxy noticed. The workers
// have ended, so that every connection of the pool is idle.
func report(ctx context.Context, tl *timeline, l *lab, b *bank, f failover) {
	stat, stats := b.pool.Stat(), l.proxy.Stats()
	kept := 0
	for _, conn := range b.pool.AcquireAllIdle(ctx) {
		if f.clients[conn.Conn().PgConn().Conn().LocalAddr().String()] {
			kept++
		}
		conn.Release()
	}

	tl.section("what the application noticed")
	tl.noticed(b.record, f)

	tl.section("its pool (pgxpool.Stat)")
	tl.row("connections", "%d of at most %d, %d opened in all", stat.TotalConns(), stat.MaxConns(), stat.NewConnsCount())
	tl.row("acquires", "%d, of which %d had to wait, %s on average", stat.AcquireCount(), stat.EmptyAcquireCount(),
		average(stat.AcquireDuration(), stat.AcquireCount()))

	tl.section("the proxy")
	tl.row("client connections", "%d now, %d accepted, %d refused", stats.ClientConnections, stats.ClientConnectionsSetupSucceeded, stats.ClientConnectionsSetupFailedAuth)
	tl.row("IAM tokens", "%s, one for each connect", tokens(l.loginsSoFar()))
	tl.row("database connections", "%d of at most %d, %d opened in all", stats.DatabaseConnections, stats.MaxDatabaseConnectionsAllowed, stats.DatabaseConnectionsSetupSucceeded)
	tl.row("borrows", "%d, %s on average, %s the longest, %d timed out", stats.DatabaseConnectionsBorrowRequests,
		average(stats.DatabaseConnectionsBorrowLatency, stats.DatabaseConnectionsBorrowRequests),
		stats.DatabaseConnectionsBorrowLatencyMax.Round(time.Millisecond), stats.DatabaseConnectionsBorrowTimeouts)
	tl.row("statements", "%d, named statements prepared %d times, %d more on another database connection", stats.Statements, stats.NamedStatements, stats.Reparsed)
	tl.row("pinned sessions", "%s", pins(stats.PinnedSessions, l.proxy.Pins()))
	tl.row("failover", "%d of %d client connections survived it", kept, f.before.ClientConnections)
}

func (t *timeline) noticed(r *record, f failover) {
	r.mu.Lock()
	defer r.mu.Unlock()
	t.row("transfers", "%d made in %s, %d given up", len(r.ledger.done), r.ended.Round(100*time.Millisecond), r.abandoned)
	t.row("errors", "%d, after which %d attempts were known to be undone and %d to have taken effect", r.errors, len(r.ledger.undone), r.lost)
	for _, cause := range slices.Sorted(maps.Keys(r.causes)) {
		t.row("", "%d × %s", r.causes[cause], cause)
	}
	t.row("failover", "%d transactions were in flight and failed; %d had failed before it", r.errors-f.errors, f.errors)
	t.row("before the first commit", "%s (nothing listened for %s)", r.first.Round(time.Millisecond), coldFor)
	t.row("longest gap after it", "%s, at %.1fs (the outage was set to %s)", r.longest.length.Round(time.Millisecond), r.longest.from.Seconds(), outage)
	t.row("commits per "+slot.String(), "%s", sparkline(r.slots))
}

// verdict prints what the audit found, and returns what is wrong with it.
func (t *timeline) verdict(found books, r *record, wrong error) error {
	t.section("the money, asked of the new primary without the proxy")
	t.row("balances", "%d in %d accounts, opened with %d", found.total(), len(found.balances), accounts*openingBalance)
	t.row("transfers", "%d acknowledged, %d in the table", len(r.ledger.done), found.rows())
	t.row("failed attempts", "%d reported", len(r.ledger.undone))
	if wrong != nil {
		return fmt.Errorf("the books are wrong:\n%w", wrong)
	}
	t.printf("\nOK: every acknowledged transfer is there exactly once, no failed attempt is, and no money was lost or made.\n")
	return nil
}

func (t *timeline) section(title string) { t.printf("\n%s\n", title) }

func (t *timeline) row(name, format string, args ...any) {
	t.printf("  %-24s %s\n", name, fmt.Sprintf(format, args...))
}

func average(total time.Duration, n int64) time.Duration {
	return (total / time.Duration(max(n, 1))).Round(10 * time.Microsecond)
}

// tokens says how the client connections logged in.
func tokens(logins []proxytest.Login) string {
	verified, refused := 0, 0
	for _, login := range logins {
		switch {
		case login.Err != nil:
			refused++
		case login.Method == "IAM":
			verified++
		}
	}
	return fmt.Sprintf("%d verified, %d refused", verified, refused)
}

func pins(n int64, seen []proxytest.Pin) string {
	why := map[string]bool{}
	for _, pin := range seen {
		why[pin.Reason] = true
	}
	return strings.TrimSpace(fmt.Sprint(n, " ", strings.Join(slices.Sorted(maps.Keys(why)), " ")))
}

// sparkline draws one character for each number, by its share of the largest.
func sparkline(numbers []int) string {
	if len(numbers) == 0 {
		return ""
	}
	levels := []rune("▁▂▃▄▅▆▇█")
	most := max(slices.Max(numbers), 1)
	var b strings.Builder
	for _, n := range numbers {
		if n == 0 {
			b.WriteRune('·')
			continue
		}
		b.WriteRune(levels[n*(len(levels)-1)/most])
	}
	return b.String()
}
