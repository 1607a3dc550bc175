package main

// This file is what the application noticed: every success, every error, and when.
// The audit holds the ledger in it against the database.

import (
	"context"
	"errors"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/aurorapgx/aurorapgx/proxy"
)

// attemptID names one attempt at one transfer.
type attemptID struct {
	transfer int64
	attempt  int
}

// ledger is what the application believes about its attempts.
type ledger struct {
	done    []attemptID // made, as the database said at once or when asked again
	undone  []attemptID // reported failed: not made
	unknown []attemptID // COMMIT not answered, and nobody could be asked
}

// slot is the grain in which commits are counted.
const slot = 250 * time.Millisecond

// record is filled by the workers.
type record struct {
	mu     sync.Mutex
	start  time.Time
	ended  time.Duration
	slots  []int // commits in each
	errors int   // attempts that failed
	causes map[string]int
	ledger ledger

	lost        int // COMMITs without an answer that had happened
	abandoned   int // transfers given up
	first, last time.Duration
	longest     gap
	waiting     []chan time.Time // told about the next commit
}

// gap is a time without a commit.
type gap struct{ from, length time.Duration }

func newRecord() *record {
	return &record{start: time.Now(), causes: map[string]int{}}
}

func (r *record) acknowledged(a attemptID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.commit(a)
}

// failed counts an attempt at the moment it fails. What became of it is told by one
// of the three below, when that is known.
func (r *record) failed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errors++
}

// confirmed is a transfer whose COMMIT failed and which is there nevertheless.
func (r *record) confirmed(a attemptID, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.because("at COMMIT, which took effect", err)
	r.lost++
	r.commit(a)
}

func (r *record) undone(a attemptID, where string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.because(where, err)
	r.ledger.undone = append(r.ledger.undone, a)
}

func (r *record) unknown(a attemptID, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.because("at COMMIT, outcome unknown", err)
	r.ledger.unknown = append(r.ledger.unknown, a)
}

func (r *record) gaveUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.abandoned++
}

// end closes the record, with the gap that was open.
func (r *record) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = time.Since(r.start)
	r.endGap(r.ended)
}

// nextCommit gets the time of the first commit from now on.
func (r *record) nextCommit() <-chan time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := make(chan time.Time, 1)
	r.waiting = append(r.waiting, next)
	return next
}

// commit and the two below are called with the lock held.
func (r *record) commit(a attemptID) {
	r.ledger.done = append(r.ledger.done, a)
	now := time.Now()
	since := now.Sub(r.start)
	for len(r.slots) <= int(since/slot) {
		r.slots = append(r.slots, 0)
	}
	r.slots[since/slot]++
	if r.first == 0 {
		r.first, r.last = since, since
	}
	r.endGap(since)
	r.last = since
	for _, next := range r.waiting {
		next <- now
	}
	r.waiting = nil
}

func (r *record) endGap(now time.Duration) {
	if length := now - r.last; r.first > 0 && length > r.longest.length {
		r.longest = gap{r.last, length}
	}
}

func (r *record) because(where string, err error) {
	r.causes[causeOf(err)+", "+where]++
}

// totals is for the timeline: commits and errors up to now.
func (r *record) totals() (commits, errs int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.ledger.done), r.errors
}

// causeOf is an error in a few words, the same for all errors of a kind.
func causeOf(err error) string {
	var (
		server  *pgconn.PgError
		connect *proxy.ConnectError
	)
	switch {
	case errors.As(err, &connect):
		return "connect: " + connect.Cause.Error()
	case errors.As(err, &server):
		return "SQLSTATE " + server.Code + " (" + server.Message + ")"
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return "the application's own deadline"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed (" + io.ErrUnexpectedEOF.Error() + ")"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection reset"
	default:
		return err.Error()
	}
}
