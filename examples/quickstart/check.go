package main

// This file is the verdict. It asks the database itself, past pool and proxy, and
// holds the answer against what the application believes.

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// books are what the database has.
type books struct {
	balances  map[int]int64 // by account
	transfers []entry
}

// entry is a row of the table transfer.
type entry struct {
	ID             attemptID
	Source, Target int
	Amount         int64
}

func (b books) rows() int { return len(b.transfers) }

func (b books) total() (sum int64) {
	for _, balance := range b.balances {
		sum += balance
	}
	return sum
}

// audit reads the books.
func audit(ctx context.Context, dsn string) (_ books, err error) {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return books{}, err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	found := books{balances: map[int]int64{}}
	var (
		id      int
		balance int64
		e       entry
	)
	rows, err := conn.Query(ctx, "select id, balance from account")
	if err != nil {
		return books{}, err
	}
	if _, err = pgx.ForEachRow(rows, []any{&id, &balance}, func() error {
		found.balances[id] = balance
		return nil
	}); err != nil {
		return books{}, err
	}
	rows, err = conn.Query(ctx, "select id, attempt, source, target, amount from transfer")
	if err != nil {
		return books{}, err
	}
	_, err = pgx.ForEachRow(rows, []any{&e.ID.transfer, &e.ID.attempt, &e.Source, &e.Target, &e.Amount}, func() error {
		found.transfers = append(found.transfers, e)
		return nil
	})
	return found, err
}

// check returns everything that is wrong, nil if nothing is: the money is all there,
// each balance follows from the transfers, each acknowledged transfer was made exactly
// once, and no attempt that was reported failed has left anything.
func check(found books, believed *ledger) error {
	var wrong []error
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }

	if want := int64(accounts * openingBalance); found.total() != want {
		complain("the balances add up to %d, not to %d", found.total(), want)
	}
	checkBalances(found, complain)

	made := map[int64]int{}      // rows by transfer
	there := map[attemptID]int{} // rows by attempt
	for _, e := range found.transfers {
		made[e.ID.transfer]++
		there[e.ID]++
	}
	for _, a := range believed.done {
		if made[a.transfer] != 1 || there[a] != 1 {
			complain("transfer %d, acknowledged at attempt %d, was made %d times, by that attempt %d times", a.transfer, a.attempt, made[a.transfer], there[a])
		}
	}
	for _, a := range believed.undone {
		if there[a] != 0 {
			complain("transfer %d was reported failed at attempt %d, which made it", a.transfer, a.attempt)
		}
	}
	for _, a := range believed.unknown {
		complain("the application could not find out what became of transfer %d, attempt %d", a.transfer, a.attempt)
	}
	if len(found.transfers) != len(believed.done) {
		complain("%d transfers are in the table, %d were acknowledged", len(found.transfers), len(believed.done))
	}
	if len(believed.done) == 0 {
		complain("no transfer was made at all")
	}
	return errors.Join(firstFew(wrong)...)
}

// checkBalances replays the transfers.
func checkBalances(found books, complain func(string, ...any)) {
	want := map[int]int64{}
	for id := 1; id <= accounts; id++ {
		want[id] = openingBalance
	}
	for _, e := range found.transfers {
		want[e.Source] -= e.Amount
		want[e.Target] += e.Amount
	}
	if len(found.balances) != accounts {
		complain("there are %d accounts, not %d", len(found.balances), accounts)
	}
	for id, balance := range found.balances {
		if balance != want[id] {
			complain("account %d has %d, its transfers make %d", id, balance, want[id])
		}
	}
}

// firstFew keeps a long list of errors readable.
func firstFew(errs []error) []error {
	const few = 10
	if len(errs) <= few {
		return errs
	}
	return append(errs[:few:few], fmt.Errorf("and %d more", len(errs)-few))
}
