package proxytest

// A database connection: opened with the registered secret and the client's startup parameters,
// then read by one goroutine for as long as it lives, on behalf of whoever borrows it.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

const (
	databaseWindow = 64 << 10
	terminateWait  = 100 * time.Millisecond
)

// dbConn is one database connection. The fields without a comment of their own do not change.
type dbConn struct {
	p        *Proxy
	id       uint64
	info     startupInfo
	target   *target
	born     time.Time
	conn     net.Conn
	statuses map[string]string
	done     chan struct{} // closed when its goroutine ends

	win  window // the goroutine's
	rest int    // the goroutine's: bytes of a message that are still to come, and to be passed on

	owner     atomic.Pointer[clientSession] // who borrows it
	prepared  map[string]*prepared          // the owner's: statements it has, by their name there
	useCount  uint64                        // the owner's
	giveUp    bool                          // the owner's: it must not go back to the pool
	inspector inspector                     // whose put it is
	idleSince time.Time                     // the pool's
	resetting resetting

	mu   sync.Mutex
	dead bool // its goroutine has given it up
	cut  bool // by a failover

	switchover bool // set with cut: it was a switchover
}

// open connects to the database. The caller holds a slot of the pool for it, and has to give it
// back on error.
func (cp *connPool) open(ctx context.Context, info startupInfo) (*dbConn, error) {
	cp.mu.Lock()
	t, epoch, down := cp.up(), cp.epoch, cp.down || cp.closed
	cp.nextID++
	id := cp.nextID
	cp.mu.Unlock()
	if t == nil || down {
		return nil, errNotReady
	}
	c := &cp.p.counters
	c.dbRequests.Add(1)
	hijacked, reader, baseline, err := cp.connect(ctx, t.cfg, info)
	if err != nil {
		c.dbFailed.Add(1)
		return nil, err
	}
	c.dbSucceeded.Add(1)
	db := &dbConn{
		p: cp.p, id: id, info: info, target: t, born: time.Now(), conn: hijacked.Conn, statuses: hijacked.ParameterStatuses,
		done: make(chan struct{}), prepared: map[string]*prepared{},
	}
	db.win = newWindow(reader, databaseWindow)
	db.inspector.baseline = baseline
	cp.mu.Lock()
	defer cp.mu.Unlock()
	gone := t.down || !slices.Contains(cp.targets, t)
	if cp.epoch != epoch || cp.down || cp.closed || gone { // a failover came in between, or the reader went
		db.terminate()
		return nil, errNotReady
	}
	cp.conns[db] = struct{}{}
	t.open++
	t.borrowed++
	cp.statuses[info.key] = db.statuses
	cp.statuses[""] = db.statuses
	cp.p.wg.Go(db.run)
	cp.p.log.databasef(slog.LevelInfo, id, "A TCP connection was established from the proxy at %s to the database at %s.",
		db.conn.LocalAddr(), db.conn.RemoteAddr())
	return db, nil
}

// connect signs in and runs the initialization query. What the database says from then on is to be
// read from reader, not from the connection: pgconn reads ahead in the background when one of its
// writes is slow, and goes on after the hijack with a read that has begun.
func (cp *connPool) connect(ctx context.Context, backend *pgconn.Config, info startupInfo) (_ *pgconn.HijackedConn, reader io.Reader, baseline sessionState, _ error) {
	cfg := backend.Copy()
	cfg.User, cfg.Database = info.user, info.database
	secret, _ := cp.p.users.find(info.user)
	cfg.Password = secret.password
	cfg.RuntimeParams = maps.Clone(info.params)
	if cp.p.cfg.dial != nil {
		cfg.DialFunc = cp.p.cfg.dial
	}
	dial := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return quicken(conn), nil
	}
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		reader = r
		return pgproto3.NewFrontend(r, w)
	}
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		if cp.p.waitsForSecret(err) {
			return nil, nil, nil, errStaleSecret
		}
		return nil, nil, nil, classifyConnectError(err)
	}
	if cp.p.cfg.initQuery != "" {
		if _, err := conn.Exec(ctx, cp.p.cfg.initQuery).ReadAll(); err != nil {
			_ = conn.Close(ctx)
			return nil, nil, nil, classifyConnectError(err)
		}
	}
	if baseline, err = cp.baselineState(ctx, conn); err != nil {
		_ = conn.Close(ctx)
		return nil, nil, nil, classifyConnectError(err)
	}
	hijacked, err := conn.Hijack()
	return hijacked, reader, baseline, err
}

// classifyConnectError tells errors that time may cure from those it will not. The message of the
// former keeps clear of pgconn's, which holds the connection string.
func classifyConnectError(err error) error {
	if pgErr, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pgErr.Code {
		case "57P03", "57P01", "57P02", "53300": // starting up, going down, full
			return fmt.Errorf("%s (SQLSTATE %s)", pgErr.Message, pgErr.Code)
		}
		return &databaseError{cause: pgErr}
	}
	if opErr, ok := errors.AsType[*net.OpError](err); ok {
		return opErr
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return context.DeadlineExceeded
	}
	if cause := errors.Unwrap(err); cause != nil {
		return cause
	}
	return err
}

// run reads the database connection until it ends.
func (db *dbConn) run() {
	defer close(db.done)
	for {
		err := db.win.fill()
		if err == nil {
			if s := db.owner.Load(); s != nil {
				err = s.relay(db)
			} else {
				err = db.ignore()
			}
		}
		if err != nil {
			db.lost()
			return
		}
	}
}

// ignore reads what a database says to nobody: notices, changed parameters, that it is going down.
func (db *dbConn) ignore() error {
	if in := db.inspector.running.Load(); in != nil {
		return db.readState(in)
	}
	if db.resetting.due.Load() > 0 {
		return db.readReset()
	}
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
		_, body, ok := parseHeader(db.win.bytes())
		if !ok {
			return errMessageLength
		}
		db.rest = headerLen + body
	}
	return nil
}

// own makes s the one who borrows the connection. It is false if the connection is gone.
func (db *dbConn) own(s *clientSession) bool {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.dead || db.cut {
		return false
	}
	db.owner.Store(s)
	return true
}

// lost ends the connection's life, and that of its borrower in most cases.
func (db *dbConn) lost() {
	db.mu.Lock()
	db.dead = true
	owner, cut := db.owner.Swap(nil), db.cut
	db.mu.Unlock()
	_ = db.conn.Close()
	db.endInspection()
	if owner != nil {
		owner.databaseLost(db, cut)
	}
	db.p.pool.drop(db)
}

// cutAll cuts connections and waits, for a while, for them to be gone.
func cutAll(conns []*dbConn) {
	for _, db := range conns {
		db.cutOff()
	}
	timeout := time.NewTimer(failoverWait)
	defer timeout.Stop()
	for _, db := range conns {
		select {
		case <-db.done:
		case <-timeout.C:
			return
		}
	}
}

// cutOff closes the connection as a failover does.
func (db *dbConn) cutOff() {
	db.mu.Lock()
	db.cut = true
	db.mu.Unlock()
	_ = db.conn.Close()
}

// terminate closes the connection in the way the protocol has for it, without waiting for anyone.
func (db *dbConn) terminate() {
	_ = db.conn.SetWriteDeadline(time.Now().Add(terminateWait))
	_, _ = db.conn.Write([]byte{'X', 0, 0, 0, 4})
	_ = db.conn.Close()
}
