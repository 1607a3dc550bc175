package proxytest

// The reset of a session: what a client left behind on a database connection goes before another
// client gets the connection.

import (
	"log/slog"
	"sync/atomic"
	"time"
)

// SessionReset says when a database connection is reset.
type SessionReset int

// When a database connection is reset; see [WithSessionReset].
const (
	ResetPinned  SessionReset = iota // when a session ends that was pinned to it
	ResetEvery                       // whenever a client gives it back
	ResetByClose                     // never: the connection of a pinned session is closed instead
)

// WithSessionReset sets when a database connection is reset (DISCARD ALL, then the initialization
// query). That RDS Proxy resets is known by a line in its log, "The database connection was released
// to the connection pool upon session reset."; that it does not after every transaction, by the page
// that warns of session state which functions change and the next client finds
// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-pinning.html). By which
// statements it resets is not documented. The default is [ResetPinned].
func WithSessionReset(r SessionReset) Option { return func(c *config) { c.reset = r } }

// resetTimeout is how long a reset may take before the connection is given up.
const resetTimeout = 5 * time.Second

// resetting counts the answers that are due to a reset.
type resetting struct {
	due    atomic.Int32 // ReadyForQuery messages; 0 if there is no reset
	failed bool         // the connection goroutine's
}

// release gives a connection back that nobody owns any more, reset if it has to be. It must not be
// called with a session's lock held.
func (db *dbConn) release(pinned bool) {
	if db.giveUp { // the reset could not tell its own answers
		db.p.log.databasef(slog.LevelInfo, db.id, "The database connection closed. Reason: A COPY failed on it in a way "+
			"that leaves open which of its answers was the last.")
		db.terminate() // its goroutine does the rest
		return
	}
	if db.p.cfg.reset == ResetEvery || pinned && db.p.cfg.reset == ResetPinned {
		db.reset()
		return
	}
	db.p.pool.put(db)
}

// reset begins a reset. The connection's goroutine, in readReset, finishes it.
func (db *dbConn) reset() {
	out := encodeQuery("DISCARD ALL")
	db.resetting.due.Store(1)
	if sql := db.p.cfg.initQuery; sql != "" {
		out = append(out, encodeQuery(sql)...)
		db.resetting.due.Store(2)
	}
	clear(db.prepared)
	_ = db.conn.SetDeadline(time.Now().Add(resetTimeout))
	_, _ = db.conn.Write(out) // an error is the goroutine's to see
}

func encodeQuery(sql string) []byte {
	return append(append(appendHeader(nil, 'Q', len(sql)+1), sql...), 0)
}

// readReset reads the answers to a reset, and puts the connection into the pool after the last.
func (db *dbConn) readReset() error {
	for db.win.len() > 0 {
		if db.rest > 0 {
			n := min(db.rest, db.win.len())
			db.win.r += n
			db.rest -= n
			continue
		}
		if db.win.len() < headerLen {
			return nil
		}
		kind, body, ok := parseHeader(db.win.bytes())
		switch {
		case !ok:
			return errMessageLength
		case kind == 'E':
			db.resetting.failed = true
		case kind == 'Z' && db.win.len() < headerLen+body:
			return nil
		}
		db.rest = headerLen + body
		if kind != 'Z' {
			continue
		}
		db.win.r += db.rest
		db.rest = 0
		if db.resetting.due.Add(-1) > 0 {
			continue
		}
		if db.resetting.failed {
			return errReset
		}
		_ = db.conn.SetDeadline(time.Time{})
		db.p.log.databasef(slog.LevelInfo, db.id, "The database connection was released to the connection pool upon session reset.")
		db.p.pool.put(db)
		return nil
	}
	return nil
}
