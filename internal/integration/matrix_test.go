package integration

// The verdict matrix: each way to run a statement meets each way to fail, and the table
// tells afterwards whether the verdict was true.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
	"github.com/aurorapgx/aurorapgx/retry"
)

// operation is a row of the matrix. It inserts a row of the table once.
type operation struct {
	name     string
	run      func(ctx context.Context, c *cell) error
	from, to func(group) bool // the messages that carry it, if not those that execute the insert
	noArgs   bool             // it takes no arguments, or nothing else
	inTx     bool             // COMMIT comes later
	late     bool             // it is COMMIT
	begin    bool             // it is BEGIN, during which nothing runs that could fail
	retries  bool             // it is retry.Tx
}

var operations = []operation{
	{name: "Exec", run: func(ctx context.Context, c *cell) error {
		_, err := c.pool.Exec(ctx, c.insert(), c.args()...)
		return err
	}},
	{name: "Query", run: func(ctx context.Context, c *cell) error {
		rows, _ := c.pool.Query(ctx, c.insert()+" returning id", c.args()...)
		_, err := pgx.CollectRows(rows, pgx.RowTo[string])
		return err
	}},
	{name: "QueryRow", run: func(ctx context.Context, c *cell) error {
		return c.pool.QueryRow(ctx, c.insert()+" returning id", c.args()...).Scan(new(string))
	}},
	{name: "Batch", run: func(ctx context.Context, c *cell) error {
		var batch pgx.Batch
		batch.Queue("select 1")
		batch.Queue(c.insert(), c.args()...)
		batch.Queue("select 2")
		return c.pool.SendBatch(ctx, &batch).Close()
	}},
	{name: "CopyFrom", noArgs: true, from: query("copy "), to: copyDone, run: func(ctx context.Context, c *cell) error {
		_, err := c.pool.CopyFrom(ctx, pgx.Identifier{"matrix"}, []string{"id", "trouble"}, pgx.CopyFromRows([][]any{{c.id, c.trouble()}}))
		return err
	}},
	{name: "Begin", noArgs: true, inTx: true, begin: true, from: query("begin"), to: query("begin"), run: inTransaction},
	{name: "statement in tx", inTx: true, run: inTransaction},
	{name: "Commit", noArgs: true, late: true, from: query("commit"), to: query("commit"), run: inTransaction},
	{name: "retry.Tx: Begin", noArgs: true, inTx: true, begin: true, retries: true, from: query("begin"), to: query("begin"), run: inRetriedTransaction},
	{name: "retry.Tx: statement", inTx: true, retries: true, run: inRetriedTransaction},
	{name: "retry.Tx: Commit", noArgs: true, late: true, retries: true, from: query("commit"), to: query("commit"), run: inRetriedTransaction},
}

func inTransaction(ctx context.Context, c *cell) error {
	tx, err := c.pool.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := tx.Exec(ctx, c.insert(), c.args()...); err != nil {
		return err
	}
	return tx.Commit(ctx)
}

// inRetriedTransaction has its trouble in the first run only.
func inRetriedTransaction(ctx context.Context, c *cell) error {
	policy := retry.Policy{Attempts: 4, Base: time.Microsecond}
	return retry.Tx(ctx, c.pool, func(tx pgx.Tx) error {
		if c.runs++; c.runs == 1 && c.fault.readOnly {
			if _, err := tx.Exec(ctx, "set transaction read only"); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, c.insert(), c.args()...)
		return err
	}, retry.WithPolicy(policy))
}

// form is how the insert's values are given.
type form string

const (
	literal  form = "no args"
	withArgs form = "args"
	warm     form = "args, prepared before"
)

// cell is one field of the matrix, and what came of it.
type cell struct {
	op    *operation
	fault *fault
	form  form
	mode  pgx.QueryExecMode
	id    string
	pool  *pgxpool.Pool

	runs int
	err  error
	rows int // of the table, with its id
}

func (c *cell) String() string {
	return fmt.Sprintf("%s, %s, %s, %s", c.op.name, c.mode, c.form, c.fault.name)
}

func (c *cell) insert() string {
	if c.form == literal {
		return fmt.Sprintf("insert into matrix values ('%s', '%s')", c.id, c.trouble())
	}
	return "insert into matrix values ($1, $2)"
}

func (c *cell) args() []any {
	if c.form == literal {
		return nil
	}
	return []any{c.id, c.trouble()}
}

func (c *cell) trouble() string {
	switch {
	case c.runs > 1 || c.fault.row == "":
		return "none"
	case c.op.late:
		return c.fault.row + " late"
	default:
		return c.fault.row
	}
}

// exists says whether the cell makes sense.
func (c *cell) exists() bool {
	extended := c.form == withArgs || c.form == literal && slices.Contains([]string{"Query", "QueryRow", "Batch"}, c.op.name) || c.op.name == "CopyFrom"
	cached := c.mode == pgx.QueryExecModeCacheStatement || c.mode == pgx.QueryExecModeCacheDescribe
	alone := !cached && c.mode != pgx.QueryExecModeDescribeExec && c.op.name != "CopyFrom" // one round trip does it all
	switch {
	case c.op.noArgs && c.form != literal:
		return false
	case c.form == warm && (!cached || c.fault.readOnly): // what cannot be done cannot be done before
		return false
	case c.fault.prepare && (!extended || alone || c.op.late || c.op.begin):
		return false
	case c.op.begin && c.fault.place == nowhere:
		return c.fault.borrow
	case c.op.late && (c.fault.readOnly || c.fault.name == "40001 at the end"): // the insert fails, or it is 40001
		return false
	default:
		return true
	}
}

// mayBeInDoubt says whether COMMIT was sent when the fault came, or may have been. After
// a cut behind the insert's answer that is so if COMMIT was written before the cut was
// noticed.
func (c *cell) mayBeInDoubt() bool {
	behind := c.fault.place == afterward && c.op.inTx && !c.op.begin
	return c.fault.want == retry.Ambiguous && c.fault.place != afterward && c.op.late || behind
}

// mustSucceed says whether there was no failure, or one that retry.Tx can repair.
func (c *cell) mustSucceed() bool {
	if c.op.retries {
		return c.fault.want != retry.Permanent && !c.fault.ends && !c.fault.borrow && !c.mayBeInDoubt()
	}
	return c.fault.place == afterward && !c.op.inTx
}

// check holds the verdict against the table.
func (c *cell) check(t *testing.T) {
	t.Helper()
	verdict := retry.Classify(c.err)
	switch {
	case c.rows > 1:
		t.Errorf("%s: the row is there %d times: %v", c, c.rows, c.err)
	case c.err == nil && c.rows != 1:
		t.Errorf("%s: there was no error and there is no row", c)
	case c.err != nil && verdict != retry.Ambiguous && c.rows != 0:
		t.Errorf("%s: called %s, but the row is there: %v", c, verdict, c.err)
	case c.err != nil && c.mustSucceed():
		t.Errorf("%s: failed: %v", c, c.err)
	case c.err == nil && !c.op.retries && c.fault.place != afterward:
		t.Errorf("%s: nothing failed", c)
	case c.err != nil && c.fault.want != retry.Ambiguous && verdict != c.fault.want:
		t.Errorf("%s: called %s and not %s: %v", c, verdict, c.fault.want, c.err)
	}
	if c.op.retries && c.err != nil && c.runs > 1 {
		t.Errorf("%s: ran %d times, to no avail: %v", c, c.runs, c.err)
	}
	var inDoubt *retry.AmbiguousCommitError
	if errors.As(c.err, &inDoubt) && !c.mayBeInDoubt() {
		t.Errorf("%s: COMMIT is said to be in doubt: %v", c, c.err)
	}
}

// try performs one cell and looks at the table.
func (b *bench) try(c *cell) {
	b.t.Helper()
	c.pool = b.pool
	if c.fault.readOnly && !c.op.retries {
		c.pool = b.readOnly
	}
	if c.form == warm {
		w := cell{op: c.op, fault: &fault{}, form: warm, id: "warm", pool: c.pool}
		if err := c.op.run(b.t.Context(), &w); err != nil {
			b.t.Fatalf("%s: before it: %v", c, err)
		}
	}
	if c.fault.place != nowhere {
		b.relay.armed.Store(&ambush{at: c.target(), place: c.fault.place})
	}
	if c.fault.during != nil {
		b.interfere(c)
	} else {
		c.err = c.op.run(b.t.Context(), c)
	}
	if b.relay.armed.Swap(nil) != nil {
		b.t.Errorf("%s: the connection was not cut", c)
	}
	// A session may be at work long after its client is gone. It has ended when it has
	// read all there is to read, and then the table stays as it is.
	c.pool.Reset()
	waitFor(b.t, c.String()+": all sessions to end", func() bool {
		return b.count("from pg_stat_activity where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()") == 0
	})
	b.relay.severed.Store(false)
	c.rows = b.count("from matrix where id = $1", c.id)
}

// cellsOf are the cells of one execution mode.
func cellsOf(mode pgx.QueryExecMode, faults []fault) (cells []*cell) {
	for i := range operations {
		for j := range faults {
			for _, f := range []form{literal, withArgs, warm} {
				c := &cell{op: &operations[i], fault: &faults[j], form: f, mode: mode, id: fmt.Sprintf("row-%05d", len(cells)*10+int(mode))}
				if c.exists() {
					cells = append(cells, c)
				}
			}
		}
	}
	return cells
}

// withoutConnections tries cells at an RDS Proxy whose one connection is taken.
func withoutConnections(t *testing.T, mode pgx.QueryExecMode) []*cell {
	t.Helper()
	px, url, dsn := startProxy(t, proxytest.WithMaxConnections(1), proxytest.WithBorrowTimeout(time.Millisecond))
	b := &bench{t: t, mode: mode, control: control(t, dsn)}
	pool := newPool(t, url, signedBy(px), proxy.WithExecMode(mode), proxy.WithMaxConns(2))
	var holder pgx.Tx
	waitFor(t, "the proxy's connection", func() bool {
		var err error
		holder, err = pool.Begin(t.Context())
		return err == nil
	})
	for _, c := range cellsOf(mode, []fault{borrowTimeout}) {
		if c.op.inTx && !c.op.begin || c.op.late || c.form == warm {
			continue // a transaction that has begun has its connection
		}
		c.pool = pool
		c.err = c.op.run(t.Context(), c)
		b.cells = append(b.cells, c)
	}
	if err := holder.Rollback(t.Context()); err != nil {
		t.Error(err)
	}
	// Whatever waited inside the proxy would be run before this.
	waitFor(t, "the proxy's connection to be free", func() bool {
		_, err := pool.Exec(t.Context(), "select 1")
		return err == nil
	})
	for _, c := range b.cells {
		c.rows = b.count("from matrix where id = $1", c.id)
	}
	return b.cells
}

func TestMatrix(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var all []*cell
	add := func(cells []*cell) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, cells...)
	}
	start := time.Now()
	t.Run("modes", func(t *testing.T) {
		for mode := pgx.QueryExecModeCacheStatement; mode <= pgx.QueryExecModeSimpleProtocol; mode++ {
			t.Run(mode.String(), func(t *testing.T) {
				t.Parallel()
				b := newBench(t, mode)
				cells := cellsOf(mode, faults)
				for _, c := range cells {
					b.try(c)
				}
				add(cells)
			})
			t.Run(mode.String()+" without connections", func(t *testing.T) {
				t.Parallel()
				add(withoutConnections(t, mode))
			})
		}
	})
	for _, c := range all {
		c.check(t)
	}
	report(t, all, time.Since(start))
}

// tally counts cells.
type tally struct {
	cells, ok, notExecuted, rolledBack, permanent int
	doubtDone, doubtUndone                        int // ambiguous, and the row is there, or is not
	safe, wrong                                   int // what pgconn.SafeToRetry says yes to, and with the row there
}

func (n *tally) add(c *cell) {
	n.cells++
	verdict := retry.Classify(c.err)
	switch {
	case c.err == nil:
		n.ok++
	case verdict == retry.NotExecuted:
		n.notExecuted++
	case verdict == retry.RolledBack:
		n.rolledBack++
	case verdict == retry.Permanent:
		n.permanent++
	case c.rows > 0:
		n.doubtDone++
	default:
		n.doubtUndone++
	}
	if pgconn.SafeToRetry(c.err) {
		n.safe++
		if c.rows > 0 {
			n.wrong++
		}
	}
}

// report logs the matrix, summed up over execution modes and forms.
func report(t *testing.T, all []*cell, took time.Duration) {
	t.Helper()
	var total tally
	var buf bytes.Buffer
	w := tabwriter.NewWriter(&buf, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "operation\tfault\tcells\tno error\tnot executed\trolled back\tpermanent\tambiguous: done\tundone\tSafeToRetry: yes\tand wrong")
	line := func(op, fault string, n tally) {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", op, fault,
			n.cells, n.ok, n.notExecuted, n.rolledBack, n.permanent, n.doubtDone, n.doubtUndone, n.safe, n.wrong)
	}
	for _, op := range operations {
		for _, f := range append(slices.Clone(faults), borrowTimeout) {
			var n tally
			for _, c := range all {
				if c.op.name == op.name && c.fault.name == f.name {
					n.add(c)
					total.add(c)
				}
			}
			if n.cells > 0 {
				line(op.name, f.name, n)
			}
		}
	}
	line("all", "all", total)
	_ = w.Flush()
	t.Logf("%d cells in %s\n%s", len(all), took.Round(time.Millisecond), buf.String())
	t.Logf("of what is called ambiguous %d rows are there and %d are not", total.doubtDone, total.doubtUndone)
	if total.wrong == 0 {
		t.Error("pgconn.SafeToRetry was never wrong: upstream seems to have fixed it, and Classify might ask it now")
	}
}
