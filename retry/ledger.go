package retry

// Settling by a row that each transaction leaves in a table.

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Ledger is a table in the application's database in which transactions note that they
// were committed: see [SettleIn]. It is safe for concurrent use, and one per table and
// process is enough.
type Ledger struct {
	table string // quoted, with its schema
	name  string // bare

	mu       sync.Mutex
	answered []token // rows that nobody will ask for
}

// NewLedger names the table of a ledger, with its schema and written as in SQL: names
// in other than lower case stand in double quotes. The table has to exist before the
// first transaction: see [Ledger.SQL] and [Ledger.Create]. An error says that the name cannot be one.
func NewLedger(table string) (*Ledger, error) {
	const part = `([a-z_][a-z0-9_$]*|"(?:[^"\x00]|"")+")`
	m := regexp.MustCompile(`^` + part + `\.` + part + `$`).FindStringSubmatch(table)
	if m == nil {
		return nil, fmt.Errorf("retry: %q does not name a ledger's table: write schema.table, and put what is not in lower case in double quotes, as in app.commits or \"App\".commits", table)
	}
	var id pgx.Identifier
	for _, name := range m[1:] {
		if quoted, ok := strings.CutPrefix(name, `"`); ok {
			name = strings.ReplaceAll(strings.TrimSuffix(quoted, `"`), `""`, `"`)
		}
		id = append(id, name)
	}
	return &Ledger{table: id.Sanitize(), name: id[1]}, nil
}

// SQL is the statement that creates the table if it does not exist, for a migration.
// Who uses the ledger needs the rights to select, insert, update and delete.
func (l *Ledger) SQL() string {
	return "create table if not exists " + l.table + ` (
	token uuid primary key,
	committed boolean not null,
	at timestamptz not null default pg_catalog.clock_timestamp()
)`
}

// Execer runs statements: a *pgxpool.Pool, a *pgx.Conn or a pgx.Tx.
type Execer interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

// Create creates the table if it does not exist.
func (l *Ledger) Create(ctx context.Context, db Execer) error {
	if _, err := db.Exec(ctx, l.SQL()); err != nil {
		return fmt.Errorf("retry: create the ledger %s: %w", l.table, err)
	}
	return nil
}

// minPrune leaves a transaction time to be settled, and a COMMIT that is under way
// time to arrive.
const minPrune = time.Hour

// Prune deletes rows that are older than the given age, which must be at least an hour,
// and returns how many. A day is a good age, and a day a good interval. Rows whose
// COMMIT was answered are deleted anyway, some hundred at a time; Prune is for those
// that processes leave behind when they end, and for those of COMMITs that were lost.
func (l *Ledger) Prune(ctx context.Context, db Execer, olderThan time.Duration) (int64, error) {
	if olderThan < minPrune {
		return 0, fmt.Errorf("retry: rows of the ledger that are younger than %s may be asked for, and must stay: give Prune a longer time than %s", minPrune, olderThan)
	}
	tag, err := db.Exec(ctx, "delete from "+l.table+" where at < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $1)", olderThan.Seconds())
	if err != nil {
		return 0, fmt.Errorf("retry: prune the ledger %s: %w", l.table, err)
	}
	return tag.RowsAffected(), nil
}

// SettleIn makes [Tx] and [SQLTx] find out what became of a COMMIT whose answer was lost,
// by a row in the ledger that the transaction itself inserts right before COMMIT. If the row is
// there, the transaction was committed, and Tx returns nil. If it is not, Tx inserts it in
// the transaction's place: from then on that cannot be committed any more, even if its
// COMMIT should still arrive, because its own row would be the second of its key. Then Tx runs
// it again, as the policy allows.
//
// This is exact whatever happens to the server, failovers included, as far as the
// database keeps what it has committed. An [*AmbiguousCommitError] is left when the database cannot
// be asked before ctx or the budget ends: see [WithSettleBudget]; or when the process was frozen for so
// long, as in Lambda, that [Ledger.Prune] may have deleted the row.
//
// What it costs: no round trip, as the row is inserted in the same message as COMMIT (in
// SQLTx, whose COMMIT cannot be changed, one before it); the row itself; and one DELETE
// for every 256 transactions, in a transaction of its own that one of the callers waits for.
// Every transaction writes the row, also one that has only read: declare those
// read-only ([pgx.ReadOnly]); they write none, and are run again when their COMMIT is lost. Under SERIALIZABLE a
// conflict that shows at that row costs the connection, because pgx closes it when
// its COMMIT fails before it began.
//
// In a savepoint the option does nothing: the outer transaction's COMMIT is what counts.
func SettleIn(l *Ledger) TxOption { return func(c *txConfig) { c.settle.by = byLedger{l} } }

// token identifies a transaction. It comes from the system's source of randomness and not from
// a counter, because processes are cloned with their memory.
type token [16]byte

func (t token) String() string {
	var b [36]byte
	hex.Encode(b[:], t[:4])
	hex.Encode(b[9:], t[4:6])
	hex.Encode(b[14:], t[6:8])
	hex.Encode(b[19:], t[8:10])
	hex.Encode(b[24:], t[10:])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

// byLedger is the evidence that a Ledger keeps.
type byLedger struct{ *Ledger }

func (l byLedger) insert(t token) string {
	return "insert into " + l.table + " (token, committed) values ('" + t.String() + "', true)"
}

func (l byLedger) begin(ctx context.Context, db Beginner, o pgx.TxOptions) (pgx.Tx, claim, error) {
	if o.AccessMode == pgx.ReadOnly {
		tx, err := begin(ctx, db, o)
		return tx, claim{nothing: true}, err
	}
	c := newToken()
	commit := "commit"
	if o.CommitQuery != "" {
		commit = o.CommitQuery
	}
	o.CommitQuery = l.insert(c.token) + "; " + commit
	tx, err := begin(ctx, db, o)
	return tx, c, err
}

func newToken() (c claim) {
	_, _ = rand.Read(c.token[:]) // never fails
	return c
}

// dated notes when COMMIT is sent, by the wall clock: a process may be frozen before it asks.
func (c claim) dated() claim {
	c.sent = time.Now().Round(0)
	return c
}

// maxAge is how long after COMMIT a row that is not there proves something. Prune may have
// deleted it later, and clocks are not quite the same everywhere.
const maxAge = minPrune - 5*time.Minute

const errPruned = unprovable("so much time has passed since COMMIT was sent that its row may have been pruned")

func (byLedger) called() string { return "ledger" }

// beforeCommit sends nothing: COMMIT brings the row along.
func (byLedger) beforeCommit(_ context.Context, c claim, _ querier) (claim, error) {
	return c.dated(), nil
}

func (l byLedger) inSQL(ctx context.Context, run querier) (claim, error) {
	c := newToken().dated()
	return c, run(ctx, l.insert(c.token), nil)
}

// ask looks for the transaction's row, and puts one in its place if there is none. It
// waits for the transaction if that is in progress. What it finds is as durable as
// its own commit, which comes after.
func (l byLedger) ask(ctx context.Context, run querier, c claim) (committed bool, err error) {
	if time.Since(c.sent) > maxAge {
		return false, errPruned
	}
	err = run(ctx, "insert into "+l.table+" as noted (token, committed) values ($1::text::pg_catalog.uuid, false) "+
		"on conflict (token) do update set committed = noted.committed returning committed", []any{c.token.String()}, &committed)
	switch {
	case err != nil && isHopeless(err):
		return false, l.explain(err)
	case err == nil && !committed && time.Since(c.sent) > maxAge: // the process was frozen on the way there
		return false, errPruned
	default:
		return committed, err
	}
}

// prune is how many rows are deleted at a time.
const prune = 256

// answered deletes rows that have done their duty, when they are enough to be worth it. It is
// done in a transaction of its own, where it takes part in nobody's conflicts.
func (l byLedger) answered(ctx context.Context, run querier, c claim) {
	if c.nothing {
		return
	}
	tokens := l.add(c.token)
	if tokens == nil {
		return
	}
	var list strings.Builder
	for i, t := range tokens {
		list.WriteByte("{,"[min(i, 1)])
		list.WriteString(t.String())
	}
	list.WriteByte('}')
	ctx, cancel := context.WithTimeout(ctx, rollbackTimeout)
	defer cancel()
	// If it fails, the rows are left to Prune.
	_ = run(ctx, "delete from "+l.table+" where token = any($1::text::pg_catalog.uuid[])", []any{list.String()})
}

// add notes a row that can go, and returns those whose turn it is.
func (l *Ledger) add(t token) []token {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.answered = append(l.answered, t); len(l.answered) < prune {
		return nil
	}
	full := l.answered
	l.answered = make([]token, 0, prune)
	return full
}

// explain says what to do about a table that is not as it should be. The mark on err
// stays the outermost.
func (l byLedger) explain(err error) error {
	e, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	mine := strings.Contains(e.Message, l.name)
	var advice string
	switch {
	case e.Code == "3F000", mine && e.Code == "42P01", mine && e.Code == "42703", e.Code == "42P10":
		advice = "is missing, or is another kind of table: create it with (*Ledger).Create"
	case e.Code == "42501":
		advice = "needs the rights to select, insert, update and delete"
	case e.Code == "25006":
		advice = "cannot be written here: declare transactions that only read as such, with pgx.ReadOnly"
	default:
		return err
	}
	v, reason := classify(err)
	return mark(fmt.Errorf("retry: the ledger %s %s: %w", l.table, advice, err), v, reason)
}
