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
	errPoolClosed    = errors.New("the pool is closed")
)

// databaseError is a refusal by the database that waiting would not cure.
type databaseError struct{ cause *pgconn.PgError }

func (e *databaseError) Error() string { return e.cause.Message }

type connPool struct {
	p        *Proxy
	max      int
	patience time.Duration // at most the borrow timeout

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
	looker   *time.Timer // set while there is a waiter who was not told to look
	nextID   uint64
	statuses map[string]map[string]string // by startupInfo.key; "" for the latest of any
}

// waiter is a session that waits for offers. It is in the queue until it has one that is not to look.
type waiter struct {
	key    string
	offers chan offer // for two: to look, and what comes at last
	since  time.Time
	looked bool // it was told to look
}

// offer is what a waiter is told: that it has a connection, that it may open one (as the zero value),
// that there is none to wait for, or that it has waited for so long that it had better look whether
// its client still does.
type offer struct {
	db   *dbConn
	err  error
	look bool
}

// patience is how long a session waits for a connection before it looks after its client: looking
// takes a goroutine that reads, which costs more than most waits.
const patience = 100 * time.Millisecond

func newConnPool(p *Proxy, targets []*target, size int) *connPool {
	return &connPool{
		p: p, max: size, targets: targets, patience: min(patience, p.cfg.borrowTimeout),
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
		for !granted {
			select {
			case o := <-w.offers:
				if o.db != nil || o.err != nil {
					return o.db, o.err
				}
				granted = !o.look
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
		if err := cp.enqueue(w, true); err != nil {
			return nil, err
		}
	}
}

// enqueue puts w in the queue, in front if it has been there before. It fails for a read-only endpoint
// without readers, where nobody waits.
func (cp *connPool) enqueue(w *waiter, again bool) error {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	switch {
	case cp.closed:
		return errPoolClosed
	case cp.p.cfg.readOnly && len(cp.targets) == 0:
		return errNoReaders
	}
	if again {
		cp.waiters = append([]*waiter{w}, cp.waiters...)
	} else {
		cp.waiters = append(cp.waiters, w)
	}
	cp.dispatch()
	if len(cp.waiters) > 0 && !w.looked && cp.looker == nil {
		cp.looker = time.AfterFunc(cp.patience, cp.tellToLook)
	}
	return nil
}

// tellToLook tells those who have waited for long.
func (cp *connPool) tellToLook() {
	cp.mu.Lock()
	defer cp.mu.Unlock()
	cp.looker = nil
	now := time.Now()
	for _, w := range cp.waiters {
		if w.looked {
			continue
		}
		if rest := cp.patience - now.Sub(w.since); rest > 0 {
			cp.looker = time.AfterFunc(rest, cp.tellToLook)
			return
		}
		w.looked = true
		w.offers <- offer{look: true}
	}
}

// withdraw takes w out of the queue, or passes on what it was offered in the meantime.
func (cp *connPool) withdraw(w *waiter) {
	cp.mu.Lock()
	if i := slices.Index(cp.waiters, w); i >= 0 {
		cp.waiters = slices.Delete(cp.waiters, i, i+1)
		select {
		case <-w.offers: // to look
		default:
		}
		cp.mu.Unlock()
		return
	}
	cp.mu.Unlock()
	o := <-w.offers
	if o.look {
		o = <-w.offers
	}
	switch {
	case o.db != nil:
		cp.put(o.db)
	case o.err == nil:
		cp.freeSlot()
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
		w.offers <- offer{db: db}
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
func (cp *connPool) failWaiters(err error) {
	for _, w := range cp.waiters {
		w.offers <- offer{err: err}
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
	cp.failWaiters(errPoolClosed)
	for _, timer := range []*time.Timer{cp.reaper, cp.looker} {
		if timer != nil {
			timer.Stop()
		}
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
