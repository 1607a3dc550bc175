package integration

// The bank: money moves while the primary is killed, its synchronous standby promoted, and
// connections are cut between COMMIT and its answer. Afterwards the books are compared
// with what the workers were told.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/internal/pgtest"
	"github.com/aurorapgx/aurorapgx/proxy"
	"github.com/aurorapgx/aurorapgx/retry"
)

const (
	bankWorkers  = 16
	bankAccounts = 200
	bankBalance  = 1000
)

// outcome is what a worker was told of a transfer.
type outcome int

const (
	done outcome = iota
	failed
	inDoubt
)

// bank is one run.
type bank struct {
	t      *testing.T
	pool   *pgxpool.Pool
	relay  *frameRelay
	dsn    string // past the relay, to the current primary
	option []retry.TxOption

	primary, standby *pgtest.Server

	transfers atomic.Int64 // done so far
	easy      atomic.Bool  // while the next standby is built, which needs the machine more
	cuts      atomic.Int64
	outcomes  [bankWorkers]map[int64]outcome
	doubts    [bankWorkers][]error
	attempts  [4]atomic.Int64 // by settlement
	longest   atomic.Int64    // transfer that was done in the end, in ns
}

// TestBank runs the bank with settling off, by transaction id, and in a ledger. BANK_FAILOVERS
// sets the failovers of all three; by itself the ledger's run has 20 and the others fewer.
func TestBank(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name      string
		failovers int
		settle    func(*bank) []retry.TxOption
	}{
		{"in a ledger", 20, func(b *bank) []retry.TxOption { return []retry.TxOption{retry.SettleIn(ledger(b.t, b.pool))} }},
		{"by xid", 4, func(*bank) []retry.TxOption { return []retry.TxOption{retry.SettleCommits()} }},
		{"off", 4, func(*bank) []retry.TxOption { return nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if n, err := strconv.Atoi(os.Getenv("BANK_FAILOVERS")); err == nil {
				tt.failovers = n
			}
			b := openBank(t)
			b.option = append(tt.settle(b), retry.WithPolicy(b.policy()))
			start := time.Now()
			b.run(tt.failovers)
			left := b.audit()
			t.Logf("%d failovers and %d cuts in %s: %d transfers done, the slowest in %s; COMMITs lost: %d settled as committed, %d as rolled back, %d left in doubt",
				tt.failovers, b.cuts.Load(), time.Since(start).Round(time.Second), b.transfers.Load(), time.Duration(b.longest.Load()).Round(time.Millisecond),
				b.attempts[retry.SettledCommitted].Load(), b.attempts[retry.SettledRolledBack].Load(), len(left))
			reasons := map[string]int{}
			for _, err := range left {
				if doubt, ok := errors.AsType[*retry.AmbiguousCommitError](err); ok && doubt.Unsettled != nil {
					reasons[doubt.Unsettled.Error()]++
				}
			}
			for reason, n := range reasons {
				t.Logf("left in doubt %d times: %s", n, reason)
			}
			switch {
			case tt.name == "in a ledger" && len(left) > 0:
				t.Errorf("the ledger left %d COMMITs in doubt", len(left))
			case tt.name == "off" && len(left) == 0:
				t.Error("nothing was in doubt, so that this run proves nothing")
			case tt.name != "off" && b.attempts[retry.SettledCommitted].Load()*b.attempts[retry.SettledRolledBack].Load() == 0:
				t.Error("not both of committed and rolled back were there to be settled")
			}
		})
	}
}

func openBank(t *testing.T) *bank {
	t.Helper()
	b := &bank{t: t, primary: pgtest.Run(t, pgtest.WithSetting("wal_level", "replica"))}
	if err := createRole(t.Context(), b.primary); err != nil {
		t.Fatal(err)
	}
	b.dsn = database(t, b.primary)
	var err error
	if b.standby, err = b.primary.Standby(t.Context(), pgtest.WithSynchronous()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.standby.Close(); err != nil {
			t.Error(err)
		}
	})
	b.relay, _ = newFrameRelay(t, b.dsn)
	u, _ := url.Parse(b.dsn)
	u.Host = b.relay.listener.Addr().String()
	b.pool = newPool(t, u.String(), proxy.WithMaxConns(bankWorkers))
	// There is no key on transfer, so that one that is made twice is there twice.
	exec(t, b.pool, `create table account (id int primary key, balance bigint not null);
		create table transfer (id bigint not null, source int not null, target int not null, amount int not null)`)
	exec(t, b.pool, "insert into account select i, $1 from generate_series(1, $2) i", bankBalance, bankAccounts)
	chance := func(g group) place {
		if g.kinds != "Q" || !bytes.HasSuffix(g.bytes, []byte("commit\x00")) {
			return nowhere
		}
		n := rand.IntN(100)
		if n < 4 {
			b.cuts.Add(1)
			return [...]place{before, received, unheard, unheard}[n]
		}
		return nowhere
	}
	b.relay.chance.Store(&chance)
	return b
}

func (b *bank) policy() retry.Policy {
	p := retry.Failover()
	p.OnAttempt = func(_ context.Context, a retry.Attempt) { b.attempts[a.Settlement].Add(1) }
	return p
}

// run lets the workers work through so many failovers.
func (b *bank) run(failovers int) {
	b.t.Helper()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for w := range bankWorkers {
		b.outcomes[w] = map[int64]outcome{}
		wg.Go(func() { b.work(w, stop) })
	}
	for range failovers {
		begun := time.Now()
		b.await(300)
		worked := time.Now()
		b.failOver()
		b.t.Logf("worked for %s, failed over and built the next standby in %s", worked.Sub(begun).Round(time.Millisecond), time.Since(worked).Round(time.Millisecond))
	}
	b.await(300)
	close(stop)
	wg.Wait()
}

// await waits for some transfers more.
func (b *bank) await(n int64) {
	b.t.Helper()
	upTo := b.transfers.Load() + n
	for begun := time.Now(); b.transfers.Load() < upTo; time.Sleep(5 * time.Millisecond) {
		if time.Since(begun) > time.Minute || b.t.Context().Err() != nil {
			b.t.Fatalf("only %d of %d transfers within a minute", b.transfers.Load()+n-upTo, n)
		}
	}
}

// failOver kills the primary under load, promotes the standby, and makes the one that was
// killed the next standby. Only a standby that is synchronous may be promoted next.
func (b *bank) failOver() {
	b.t.Helper()
	ctx := b.t.Context()
	if err := b.primary.Kill(ctx); err != nil {
		b.t.Fatal(err)
	}
	if err := b.standby.Promote(ctx); err != nil {
		b.t.Fatal(err)
	}
	b.primary, b.standby = b.standby, b.primary
	b.dsn = on(b.dsn, b.primary)
	u, _ := url.Parse(b.dsn)
	b.relay.backend.Store(&u.Host)
	b.easy.Store(true)
	defer b.easy.Store(false)
	if err := b.standby.Follow(ctx, b.primary, pgtest.WithSynchronous()); err != nil {
		b.t.Fatal(err)
	}
}

var errInsufficient = errors.New("insufficient funds")

func (b *bank) work(worker int, stop <-chan struct{}) {
	ctx := b.t.Context()
	for i := int64(worker) * 1_000_000; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		if b.easy.Load() {
			time.Sleep(100 * time.Millisecond)
		}
		begun := time.Now()
		err := retry.Tx(ctx, b.pool, move(ctx, i), b.option...)
		switch {
		case err == nil:
			b.outcomes[worker][i] = done
			b.transfers.Add(1)
			b.longest.Store(max(b.longest.Load(), int64(time.Since(begun))))
		case errors.As(err, new(*retry.AmbiguousCommitError)):
			b.outcomes[worker][i] = inDoubt
			b.doubts[worker] = append(b.doubts[worker], err)
		default:
			b.outcomes[worker][i] = failed
			if !errors.Is(err, errInsufficient) {
				b.t.Errorf("transfer %d: %v", i, err)
			}
		}
	}
}

// move moves money, and finds out late, one time in fifty, that there is none.
func move(ctx context.Context, id int64) func(pgx.Tx) error {
	source, target, amount := rand.IntN(bankAccounts)+1, rand.IntN(bankAccounts)+1, rand.IntN(100)
	return func(tx pgx.Tx) error {
		var batch pgx.Batch
		batch.Queue("insert into transfer values ($1, $2, $3, $4)", id, source, target, amount)
		batch.Queue("update account set balance = balance - $2 where id = $1", source, amount)
		batch.Queue("update account set balance = balance + $2 where id = $1", target, amount)
		if err := tx.SendBatch(ctx, &batch).Close(); err != nil {
			return err
		}
		if id%50 == 0 {
			return errInsufficient
		}
		return nil
	}
}

// audit compares the books with what the workers were told, and returns what was left
// in doubt.
func (b *bank) audit() (left []error) {
	b.t.Helper()
	conn, err := pgx.Connect(b.t.Context(), b.dsn)
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close(b.t.Context())
	rows, _ := conn.Query(b.t.Context(), "select id, count(*) from transfer group by id")
	there := map[int64]int{}
	var id int64
	var n int
	if _, err := pgx.ForEachRow(rows, []any{&id, &n}, func() error { there[id] = n; return nil }); err != nil {
		b.t.Fatal(err)
	}
	for w, outcomes := range b.outcomes {
		left = append(left, b.doubts[w]...)
		for id, told := range outcomes {
			n := there[id]
			delete(there, id)
			if told == done && n != 1 || told == failed && n != 0 || n > 1 {
				b.t.Errorf("transfer %d was reported as %s and is there %d times", id, [...]string{"done", "failed", "in doubt"}[told], n)
			}
		}
	}
	if len(there) > 0 {
		b.t.Errorf("%d transfers that nobody knows of", len(there))
	}
	var sum, wrong int64
	err = conn.QueryRow(b.t.Context(), fmt.Sprintf(`select (select sum(balance) from account), (select count(*) from account a where balance <> %d
		- (select coalesce(sum(amount), 0) from transfer where source = a.id) + (select coalesce(sum(amount), 0) from transfer where target = a.id))`, bankBalance)).Scan(&sum, &wrong)
	if err != nil {
		b.t.Fatal(err)
	}
	if sum != bankBalance*bankAccounts || wrong > 0 {
		b.t.Errorf("the balances sum up to %d of %d, and %d are wrong", sum, bankBalance*bankAccounts, wrong)
	}
	return left
}
