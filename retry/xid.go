package retry

// Settling by transaction id.

import (
	"context"
	"encoding/binary"
	"net"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// The transaction's id, and what identifies the life of the server that gave it out:
// its shared memory, to be exact. A crash of one session makes PostgreSQL start over with
// new shared memory, losing WAL that was not flushed, under the same start time; it
// also throws away its statistics, which therefore have a new reset time.
//
// In recovery there are no ids to be had, and no transaction that writes.
const (
	xidColumns = `case when not pg_catalog.pg_is_in_recovery() then pg_catalog.pg_current_xact_id() end, ` + incarnationColumns

	incarnationColumns = `extract(epoch from pg_catalog.pg_postmaster_start_time()), ` +
		`extract(epoch from pg_catalog.pg_stat_get_bgwriter_stat_reset_time())`

	learnSQL = `select x::text, s::text, r::text from (select ` + xidColumns + `) as learned (x, s, r)`

	// A transaction that waits for a synchronous standby is marked as committed already, and
	// pg_xact_status may say so. Only when others can see it, it is.
	askXIDSQL = `select pg_catalog.pg_is_in_recovery(), s::text, r::text, case
	when pg_catalog.pg_is_in_recovery() then null
	when pg_catalog.pg_visible_in_snapshot($1::text::pg_catalog.xid8, pg_catalog.pg_current_snapshot())
	then pg_catalog.pg_xact_status($1::text::pg_catalog.xid8)
	else 'in progress' end
from (select ` + incarnationColumns + `) as now (s, r)`
)

// byXID is the evidence that PostgreSQL keeps by itself.
type byXID struct{}

func (byXID) begin(ctx context.Context, db Beginner, o pgx.TxOptions) (pgx.Tx, claim, error) {
	if o.AccessMode == pgx.ReadOnly {
		tx, err := begin(ctx, db, o)
		return tx, claim{nothing: true}, err
	}
	if conn, ok := db.(*pgx.Conn); ok {
		return beginTapped(ctx, conn, o)
	}
	pool, ok := db.(interface {
		Acquire(ctx context.Context) (*pgxpool.Conn, error)
	})
	if !ok {
		tx, err := begin(ctx, db, o)
		return tx, claim{}, err
	}
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return nil, claim{}, err
	}
	tx, c, err := beginTapped(ctx, conn.Conn(), o)
	if err != nil {
		conn.Release()
		return nil, claim{}, err
	}
	return &heldTx{Tx: tx, conn: conn}, c, nil
}

// heldTx is a transaction on a connection of a pool's, as pgxpool's own.
type heldTx struct {
	pgx.Tx

	conn *pgxpool.Conn
}

func (t *heldTx) Commit(ctx context.Context) error {
	defer t.conn.Release()
	return t.Tx.Commit(ctx)
}

func (t *heldTx) Rollback(ctx context.Context) error {
	defer t.conn.Release()
	return t.Tx.Rollback(ctx)
}

// tap is a network connection that keeps what is read: see package proxy.
type tap interface {
	Tap()
	Untap() []byte
}

// beginTapped begins a transaction and, where the answer can be seen, learns its id
// from the same answer.
func beginTapped(ctx context.Context, conn *pgx.Conn, o pgx.TxOptions) (pgx.Tx, claim, error) {
	t := layer[tap](conn)
	if t == nil {
		tx, err := conn.BeginTx(ctx, o)
		return tx, claim{}, err
	}
	o.BeginQuery = beginAndLearn(o)
	t.Tap()
	tx, err := conn.BeginTx(ctx, o)
	answer := t.Untap()
	if err != nil {
		if !conn.IsClosed() && conn.PgConn().TxStatus() != 'I' { // BEGIN went well, what came behind it did not
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackTimeout)
			defer cancel()
			_, _ = conn.Exec(ctx, "rollback")
		}
		return nil, claim{}, err
	}
	c, _ := parseAnswer(answer)
	return tx, c, nil
}

const plainBegin = "begin; select " + xidColumns

// beginAndLearn is pgx's BEGIN for the options, and the question for the id.
func beginAndLearn(o pgx.TxOptions) string {
	if o.BeginQuery == "" && o.IsoLevel == "" && o.AccessMode == "" && o.DeferrableMode == "" {
		return plainBegin
	}
	var b strings.Builder
	if o.BeginQuery != "" {
		b.WriteString(o.BeginQuery)
	} else {
		b.WriteString("begin")
		if o.IsoLevel != "" {
			b.WriteString(" isolation level " + string(o.IsoLevel))
		}
		if o.AccessMode != "" {
			b.WriteString(" " + string(o.AccessMode))
		}
		if o.DeferrableMode != "" {
			b.WriteString(" " + string(o.DeferrableMode))
		}
	}
	b.WriteString(plainBegin[len("begin"):])
	return b.String()
}

// parseAnswer reads the answer to beginAndLearn: CommandComplete, RowDescription, a
// DataRow, CommandComplete, ReadyForQuery within a transaction. If it is anything else,
// there is no claim, and the id is asked for before COMMIT.
func parseAnswer(b []byte) (c claim, ok bool) {
	const header = 5
	seen := make([]byte, 0, 8)
	for len(b) > 0 {
		if len(b) < header {
			return claim{}, false
		}
		kind, length := b[0], int(binary.BigEndian.Uint32(b[1:]))+1
		if length < header || length > len(b) {
			return claim{}, false
		}
		body := b[header:length]
		b = b[length:]
		switch kind {
		case 'N', 'S', 'A': // notices, parameters and notifications come whenever they like
			continue
		case 'D':
			if c, ok = parseRow(body); !ok {
				return claim{}, false
			}
		case 'Z':
			ok = len(b) == 0 && len(body) == 1 && body[0] == 'T'
		}
		if seen = append(seen, kind); len(seen) == cap(seen) {
			return claim{}, false
		}
	}
	if !ok || string(seen) != "CTDCZ" {
		return claim{}, false
	}
	return c, true
}

// parseRow reads the DataRow of xidColumns.
func parseRow(b []byte) (c claim, ok bool) {
	const columns = 3
	if len(b) < 2 || binary.BigEndian.Uint16(b) != columns {
		return claim{}, false
	}
	b = b[2:]
	var values [columns]string
	for i := range values {
		if len(b) < 4 {
			return claim{}, false
		}
		n := int(int32(binary.BigEndian.Uint32(b)))
		if b = b[4:]; n > len(b) {
			return claim{}, false
		}
		if n > 0 {
			values[i], b = string(b[:n]), b[n:]
		}
	}
	return newClaim(values[0], values[1], values[2])
}

// newClaim puts a claim together; what PostgreSQL did not know is empty.
func newClaim(xid, started, reset string) (c claim, ok bool) {
	if xid == "" {
		return claim{nothing: true}, true
	}
	n, err := strconv.ParseUint(xid, 10, 64)
	return claim{xid: n, incarnation: incarnation(started, reset)}, err == nil
}

// incarnation names a life of a server, "" if that cannot be told.
func incarnation(started, reset string) string {
	if started == "" || reset == "" {
		return ""
	}
	return started + " " + reset
}

func (byXID) beforeCommit(ctx context.Context, c claim, run querier) (claim, error) {
	if c.xid != 0 || c.nothing {
		return c, nil
	}
	var xid, started, reset *string
	if err := run(ctx, learnSQL, nil, &xid, &started, &reset); err != nil {
		return c, err
	}
	c, _ = newClaim(deref(xid), deref(started), deref(reset))
	return c, nil
}

func (l byXID) inSQL(ctx context.Context, run querier) (claim, error) {
	return l.beforeCommit(ctx, claim{}, run)
}

func (byXID) ask(ctx context.Context, run querier, c claim) (committed bool, err error) {
	if c.xid == 0 {
		return false, unprovable("the transaction's id is not known")
	}
	var recovering bool
	var started, reset, status *string
	if err := run(ctx, askXIDSQL, []any{strconv.FormatUint(c.xid, 10)}, &recovering, &started, &reset, &status); err != nil {
		return false, err
	}
	if recovering {
		return false, errRecovery
	}
	same := c.incarnation != "" && c.incarnation == incarnation(deref(started), deref(reset))
	switch {
	case status == nil:
		return false, unprovable("the transaction is so old that the server has forgotten its outcome")
	case *status == "committed" && same:
		return true, nil
	case *status == "committed":
		return false, unprovable("the server crashed or was replaced since, so that the transaction it knows as committed under this id may be another one: a Ledger would know")
	case *status == "aborted":
		return false, nil
	case *status == "in progress" && same:
		return false, errInProgress
	case *status == "in progress": // another transaction under this id, or none yet: ours would show as committed
		return false, nil
	default:
		return false, unprovable("the server calls the transaction " + strconv.Quote(*status))
	}
}

func (byXID) called() string { return "xid" }

func (byXID) answered(context.Context, querier, claim) {}

func (byXID) explain(err error) error { return err }

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// layer finds the layer of conn's network connection that has T's methods, or returns
// T's zero value. Package proxy's connections have such, below what a user may have put
// over them.
func layer[T any](conn *pgx.Conn) (found T) {
	for nc := conn.PgConn().Conn(); nc != nil; {
		if t, ok := nc.(T); ok {
			return t
		}
		inner, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		nc = inner.NetConn()
	}
	return found
}
