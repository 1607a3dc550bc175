package proxytest

// The pool of database connections: bounded as a whole, lent to the first who asked, shared only
// between sessions that asked for the same user, database and startup parameters.

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// databaseIdleTimeout is how long RDS Proxy keeps a database connection nobody uses, about
	// (https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/rds-proxy-connections.html).
	databaseIdleTimeout = 5 * time.Minute
	// learnTimeout bounds the one connection that is made to learn the parameters a login reports.
	learnTimeout = 2 * time.Second

	firstPause   = 20 * time.Millisecond // between attempts to connect to a database that is not there
	longestPause = 500 * time.Millisecond
)

var (
	errBorrowTimeout = errors.New("timed out waiting for a database connection")
	errNotReady      = errors.New("database is not ready")
	errNoReaders     = errors.New("there are no readers")
	errReset         = errors.New("the session could not be reset")
)

// databaseError is a refusal by the database that waiting would not cure.
type databaseError struct{ cause *pgconn.PgError }

func (e *databaseError) Error() string { return e.cause.Message }

type connPool struct {
	p   *Proxy
	max int

	mu       sync.Mutex
	targets  []*target // none: there is no database
	epoch    uint64    // grows with each failover
	down     bool
	closed   bool
	total    int // open, or being opened
	conns    map[*dbConn]struct{}
	idle     []*dbConn // the longest idle first
	waiters  []*waiter // the longest waiting first
	reaper   *time.Timer
	nextID   uint64
	statuses map[string]map[string]string // by startupInfo.key; "" for the latest of any
}

// waiter is a session that waits. It is granted a connection, or the right to open one.
type waiter struct {
	key   string
	grant chan *dbConn // capacity 1; nil is the right to open one
	none  chan struct{}
}

func newConnPool(p *Proxy, targets []*target, size int) *connPool {
	return &connPool{
		p: p, max: size, targets: targets,
		conns: map[*dbConn]struct{}{}, statuses: map[string]map[string]string{},
	}
}

// take lends a connection that is ready, if there is one and nobody else waits; or nil.
func (cp *connPool) take(key string) *dbConn {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	if len(cp.waiters) > 0 || cp.down || cp.closed {
		return nil
	}
	return cp.takeIdle(key)
}

// wait goes on with waiting until the end of ctx, and opens a connection when it is w's turn to.
// granted says that it is already.
func (cp *connPool) wait(ctx context.Context, w *waiter, granted bool, info startupInfo) (*dbConn, error) {
	pause := firstPause
	for attempt := 0; ; attempt++ {
		if !granted {
			select {
			case db := <-w.grant:
				if db != nil {
					return db, nil
				}
			case <-w.none:
				return nil, errNoReaders
			case <-ctx.Done():
				cp.withdraw(w)
				return nil, context.Cause(ctx)
			}
		}
		db, err := cp.open(ctx, info)
		if err == nil {
			return db, nil
		}
		cp.freeSlot()
		if _, ok := errors.AsType[*databaseError](err); ok {
			return nil, err
		}
		if attempt == 0 && !errors.Is(err, errNotReady) {
			cp.p.log.databasef(slog.LevelWarn, 0, "The proxy can't connect to the database and tries again. Reason: %v.", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		pause = min(2*pause, longestPause)
		granted = false
		if !cp.enqueue(w, true) {
			return nil, errNoReaders
		}
	}
}

// enqueue puts w in the queue, in front if it has been there before. It is false for a read-only
// endpoint without readers, where nobody waits.
func (cp *connPool) enqueue(w *waiter, again bool) bool {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	if cp.p.cfg.readOnly && len(cp.targets) == 0 {
		return false
	}
	if again {
		cp.waiters = append([]*waiter{w}, cp.waiters...)
	} else {
		cp.waiters = append(cp.waiters, w)
	}
	cp.dispatch()
	return true
}

// withdraw takes w out of the queue, or passes on what it was granted in the meantime.
func (cp *connPool) withdraw(w *waiter) {
	cp.mu.Lock()
	for i, other := range cp.waiters {
		if other == w {
			cp.waiters = append(cp.waiters[:i:i], cp.waiters[i+1:]...)
			cp.mu.Unlock()
			return
		}
	}
	cp.mu.Unlock()
	select {
	case db := <-w.grant:
		if db != nil {
			cp.put(db)
		} else {
			cp.freeSlot()
		}
	case <-w.none:
	}
}

// dispatch serves the queue as far as it goes. mu is held.
func (cp *connPool) dispatch() {
	for len(cp.waiters) > 0 && !cp.down && !cp.closed && cp.up() != nil {
		w := cp.waiters[0]
		db := cp.takeIdle(w.key)
		switch {
		case db != nil:
		case cp.total < cp.max:
			cp.total++
		case len(cp.idle) > 0:
			cp.evict(cp.idle[0])
			cp.total++
		default:
			return
		}
		cp.waiters = cp.waiters[1:]
		w.grant <- db
	}
}

// takeIdle takes the connection that was used last among those with this key, of the target with the
// fewest borrowed ones. mu is held.
func (cp *connPool) takeIdle(key string) *dbConn {
	best := -1
	for i, db := range slices.Backward(cp.idle) {
		if db.info.key == key && (best < 0 || db.target.borrowed < cp.idle[best].target.borrowed) {
			best = i
			if len(cp.targets) == 1 {
				break
			}
		}
	}
	if best < 0 {
		return nil
	}
	db := cp.idle[best]
	cp.idle = append(cp.idle[:best], cp.idle[best+1:]...)
	db.target.borrowed++
	return db
}

// failWaiters makes those who wait stop. mu is held.
func (cp *connPool) failWaiters() {
	for _, w := range cp.waiters {
		close(w.none)
	}
	cp.waiters = nil
}

// evict closes an idle connection. mu is held.
func (cp *connPool) evict(db *dbConn) {
	cp.dropLocked(db)
	db.terminate()
}

// put takes a connection back.
func (cp *connPool) put(db *dbConn) {
	if db.inspect() {
		return
	}
	cp.mu.Lock()
	defer cp.mu.Unlock()
	if _, ok := cp.conns[db]; !ok || cp.closed {
		return
	}
	db.target.borrowed--
	db.idleSince = time.Now()
	if life := cp.p.cfg.databaseLifetime; life > 0 && db.idleSince.Sub(db.born) >= life {
		cp.idle = append(cp.idle, db)
		cp.evict(db)
		cp.dispatch()
		return
	}
	cp.idle = append(cp.idle, db)
	cp.dispatch()
	if cp.reaper == nil && len(cp.idle) > 0 && cp.p.cfg.databaseIdle > 0 {
		cp.reaper = time.AfterFunc(cp.p.cfg.databaseIdle, cp.reap)
	}
}

// drop forgets a connection that is closed.
func (cp *connPool) drop(db *dbConn) {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	cp.dropLocked(db)
	cp.dispatch()
}

func (cp *connPool) dropLocked(db *dbConn) {
	if _, ok := cp.conns[db]; !ok {
		return
	}
	delete(cp.conns, db)
	cp.total--
	db.target.open--
	for i, other := range cp.idle {
		if other == db {
			cp.idle = append(cp.idle[:i], cp.idle[i+1:]...)
			return
		}
	}
	db.target.borrowed--
}

// freeSlot gives back the right to open a connection.
func (cp *connPool) freeSlot() {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	cp.total--
	cp.dispatch()
}

// reap closes what has been idle too long.
func (cp *connPool) reap() {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	cp.reaper = nil
	if cp.closed {
		return
	}
	now := time.Now()
	for len(cp.idle) > 0 && now.Sub(cp.idle[0].idleSince) >= cp.p.cfg.databaseIdle {
		cp.evict(cp.idle[0])
	}
	if len(cp.idle) > 0 {
		cp.reaper = time.AfterFunc(cp.p.cfg.databaseIdle-now.Sub(cp.idle[0].idleSince), cp.reap)
	}
}

func (cp *connPool) size() int64 {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	return int64(cp.total)
}

func (cp *connPool) close() {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	cp.closed = true
	if cp.reaper != nil {
		cp.reaper.Stop()
	}
	for db := range cp.conns {
		db.terminate()
	}
}

// parameterStatuses is what a login reports. A pool that never had a connection tries to get one
// first, as what it would report otherwise is only a guess at the server.
func (cp *connPool) parameterStatuses(ctx context.Context, info startupInfo) map[string]string {
	cp.mu.Lock()
	known, ok := cp.statuses[info.key]
	latest := cp.statuses[""]
	try := latest == nil && !cp.down && !cp.closed && cp.up() != nil && cp.total < cp.max
	if try {
		cp.total++
	}
	cp.mu.Unlock()
	if ok {
		return known
	}
	if try {
		ctx, cancel := context.WithTimeout(ctx, learnTimeout)
		defer cancel()
		if db, err := cp.open(ctx, info); err == nil {
			cp.put(db)
			return db.statuses
		}
		cp.freeSlot()
	}
	return guessStatuses(latest, info)
}

// guessStatuses is what a database would probably report for a login: as another login's, or as a
// PostgreSQL 17 with default settings would.
func guessStatuses(latest map[string]string, info startupInfo) map[string]string {
	statuses := maps.Clone(latest)
	if statuses == nil {
		statuses = map[string]string{
			"client_encoding": "UTF8", "DateStyle": "ISO, MDY", "default_transaction_read_only": "off",
			"in_hot_standby": "off", "integer_datetimes": "on", "IntervalStyle": "postgres",
			"scram_iterations": strconv.Itoa(scramIterations), "server_encoding": "UTF8",
			"server_version": "17.4", "standard_conforming_strings": "on", "TimeZone": "UTC",
		}
	}
	statuses["application_name"] = ""
	statuses["is_superuser"] = "off"
	statuses["session_authorization"] = info.user
	for name, value := range info.params {
		if _, reported := statuses[name]; reported {
			statuses[name] = value
		}
	}
	return statuses
}
