package main

// This file is the application: a service that moves money. Of the library it uses
// the pool, which is pgx's own, and the retry package.

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/retry"
)

const (
	workers = 16 // transfers at a time; more than the pool has connections

	accounts       = 100
	openingBalance = 1000
)

// schema is what the application works on. The id of a transfer is not declared
// unique, so that a transfer made twice would show and not be refused.
const schema = `
	create table account (id int primary key, balance bigint not null);
	create table transfer (id bigint not null, attempt int not null, source int not null, target int not null, amount bigint not null);
	create index on transfer (id);
	insert into account select id, %d from generate_series(1, %d) id;`

// order is a transfer that somebody wants, under the id by which it can be found
// again, like the idempotency key of a request.
type order struct {
	id             int64
	source, target int
	amount         int64
}

type bank struct {
	pool   *pgxpool.Pool
	record *record
	lastID atomic.Int64
	closed chan struct{}
	wg     sync.WaitGroup
}

func newBank(pool *pgxpool.Pool) *bank {
	return &bank{pool: pool, record: newRecord(), closed: make(chan struct{})}
}

// open starts the workers. They end with close, or with ctx.
func (b *bank) open(ctx context.Context) {
	for range workers {
		b.wg.Go(func() {
			for ctx.Err() == nil {
				select {
				case <-b.closed:
					return
				default:
				}
				if err := b.transfer(ctx, b.nextOrder()); err != nil {
					b.record.gaveUp()
				}
			}
		})
	}
}

// close lets the workers finish the transfers they are at, and waits for them.
func (b *bank) close() {
	close(b.closed)
	b.wg.Wait()
	b.record.end()
}

func (b *bank) nextOrder() order {
	source := 1 + rand.IntN(accounts)
	target := 1 + (source+rand.IntN(accounts-1))%accounts // any account but source
	return order{id: b.lastID.Add(1), source: source, target: target, amount: 1 + rand.Int64N(10)}
}

// transfer carries out an order exactly once. An attempt that failed is made again
// when it is certain to have left nothing behind, and not otherwise. (That a connect
// fails is none of its concern: the pool goes on trying by itself.)
func (b *bank) transfer(ctx context.Context, o order) error {
	attempt := 0
	return retry.Do(ctx, retry.Policy{Attempts: 5}, func(ctx context.Context) error {
		attempt++
		this := attemptID{o.id, attempt}
		sentCommit, err := b.try(ctx, o, attempt)
		if err == nil {
			b.record.acknowledged(this)
			return nil
		}
		b.record.failed()
		if !sentCommit { // then PostgreSQL undoes it
			b.record.undone(this, "in the transaction", err)
			return retry.Mark(err, retry.RolledBack)
		}
		happened, lookErr := b.happened(ctx, o)
		switch {
		case lookErr != nil:
			b.record.unknown(this, err)
			return retry.Mark(errors.Join(err, lookErr), retry.Ambiguous) // never tried again
		case happened:
			b.record.confirmed(this, err)
			return nil
		default:
			b.record.undone(this, "at COMMIT, which did not take effect", err)
			return retry.Mark(err, retry.RolledBack)
		}
	})
}

// try makes one attempt at an order. After an error, sentCommit says whether COMMIT
// may have reached the database; if so, it may have taken effect.
func (b *bank) try(ctx context.Context, o order, attempt int) (sentCommit bool, err error) {
	err = pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
		if err := lockAccounts(ctx, tx, o); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "update account set balance = balance - $2 where id = $1", o.source, o.amount); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "update account set balance = balance + $2 where id = $1", o.target, o.amount); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "insert into transfer (id, attempt, source, target, amount) values ($1, $2, $3, $4, $5)",
			o.id, attempt, o.source, o.target, o.amount); err != nil {
			return err
		}
		sentCommit = true // by BeginFunc, when this returns nil
		return nil
	})
	return sentCommit, err
}

// lockAccounts takes the rows in the order of their ids, so that two transfers never
// wait for each other.
func lockAccounts(ctx context.Context, tx pgx.Tx, o order) error {
	_, err := tx.Exec(ctx, "select from account where id in ($1, $2) order by id for update", o.source, o.target)
	return err
}

// happened finds out what became of a transfer whose COMMIT was not answered. It
// locks the same rows first: a COMMIT that is still under way holds them, so that
// "not there" is a final answer. To look changes nothing, so looking is repeated
// whatever the error.
func (b *bank) happened(ctx context.Context, o order) (found bool, err error) {
	err = retry.Do(ctx, retry.Policy{Attempts: 5}, func(ctx context.Context) error {
		err := pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
			if err := lockAccounts(ctx, tx, o); err != nil {
				return err
			}
			return tx.QueryRow(ctx, "select exists (select from transfer where id = $1)", o.id).Scan(&found)
		})
		return retry.Mark(err, retry.NotExecuted)
	})
	if err != nil {
		return false, fmt.Errorf("look up transfer %d: %w", o.id, err)
	}
	return found, nil
}
