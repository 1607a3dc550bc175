package proxytest

import (
	"strings"
	"testing"
)

func TestPinReason(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxStatementText-len("select ''"))
	tests := []struct{ sql, want string }{
		{"", ""}, {";;", ""}, {"-- ping", ""}, {"select 1", ""}, {"begin", ""}, {"commit; begin", ""},
		{"SET search_path TO a, b", reasonSettings}, {"set session work_mem = 1", reasonSettings},
		{"set time zone 'UTC'", reasonSettings}, {"set role x", reasonSettings},
		{"set session authorization x", reasonSettings}, {"set session characteristics as transaction read only", reasonSettings},
		{"set names 'utf8'", reasonSettings}, {"reset all", reasonSettings}, {"RESET x", reasonSettings},
		{"set local work_mem = 1", ""}, {"set transaction read only", ""}, {"set constraints all deferred", ""},
		{"select set_config('a', 'b', true)", reasonSettings}, {"select PG_CATALOG.Set_Config ('a', 'b', false)", reasonSettings},
		{`select "set_config"('a', 'b', false)`, reasonSettings}, {`select "SET_CONFIG"('a', 'b', false)`, ""},
		{"select set_config from t", ""}, {"select set_config/**/('a','b',true)", reasonSettings},
		{"prepare p as select 1", reasonPrepare}, {"execute p(1)", reasonPrepare}, {"deallocate all", reasonPrepare},
		{"prepare transaction 'x'", ""}, {"commit prepared 'x'", ""}, {"discard all", reasonDiscard},
		{"listen c", reasonListen}, {"unlisten *", ""}, {"notify c", ""},
		{"declare c cursor for select 1", reasonCursor}, {"fetch all from c", ""}, {"close all", ""},
		{"load 'auto_explain'", reasonLoad},
		{"create temp table t (i int)", reasonTemporary}, {"create temporary view v as select 1", reasonTemporary},
		{"create local temp sequence s", reasonTemporary}, {"create or replace temp view v as select 1", reasonTemporary},
		{"create temp recursive view v as select 1", reasonTemporary},
		{"create table if not exists pg_temp.t (i int)", reasonTemporary}, {"create table temp_t (i int)", ""},
		{"create table t (temp int)", ""}, {"create view v as select 1 as temp", ""},
		{"select 1 as x into temp t", reasonTemporary}, {"select 1 into local temporary t", reasonTemporary},
		{"select 1 into pg_temp.t", reasonTemporary}, {"select 1 into t", ""}, {"insert into temp values (1)", ""},
		{"insert into t values (nextval('s'))", reasonSequence}, {"select setval('s', 1)", reasonSequence},
		{"select currval('s'), lastval()", ""},
		{"select pg_advisory_lock(1)", reasonLock}, {"select pg_advisory_lock_shared(1)", reasonLock},
		{"select pg_try_advisory_lock(1)", reasonLock}, {"select pg_try_advisory_lock_shared(1)", reasonLock},
		{"select pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(2)", ""}, {"select pg_advisory_unlock(1)", ""},
		{"begin; set x = 1", reasonSettings}, {"select ';set x = 1'", ""}, {"select 1;\n/* a /* b */ */ set x = 1", reasonSettings},
		{"select $$; set x = 1$$", ""}, {"select $a$ $$ ; set x = 1 $a$", ""}, {"do $$ begin perform nextval('s'); end $$", ""},
		{`select e'\'; set x = 1'`, ""}, {`select '\'; set x = 1`, reasonSettings}, {`select ";set x"`, ""},
		{"-- x\nset x = 1", reasonSettings}, {"/* unfinished set x", ""}, {"select 'unfinished ; set x", ""},
		{"update t set x = 1", ""}, {"select $1::text", ""}, {"(select nextval('s'))", reasonSequence},
		{"select u&'\\0041'; reset x", reasonSettings}, {"select a$b; reset x", reasonSettings},
		{"select '" + long + "'", ""}, {"select '" + long + "x'", reasonTooLong},
	}
	for _, tt := range tests {
		if got := (pinRules{}).reason(tt.sql); got != tt.want {
			t.Errorf("%.80s: got %q, want %q", tt.sql, got, tt.want)
		}
	}
	if got := (pinRules{setLocalPins: true}).reason("begin; set local x = 1"); got != reasonSettings {
		t.Errorf("SET LOCAL with the switch: %q", got)
	}
}

func TestDigest(t *testing.T) {
	t.Parallel()
	tests := []struct{ sql, want string }{
		{`SET search_path = "public"; SET NAMES 'UTF8';`, "set search_path = $1; set names $2;"},
		{"SELECT pg_advisory_unlock_all();\nCLOSE ALL;\n\tUNLISTEN *; -- x\nRESET ALL;", "select pg_advisory_unlock_all(); close all; unlisten *; reset all;"},
		{"set search_path to 'a','b','c'", "set search_path to $1,$2,$3"},
		{"select  $2, 1.5e-3, E'\\'' /* y */", "select $1, $2, $3"},
	}
	for _, tt := range tests {
		if got := digest(tt.sql); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.sql, got, tt.want)
		}
	}
}

func FuzzLexer(f *testing.F) {
	for _, seed := range []string{
		"select 1", "'a''b' e'\\' \"q\" $a$ $b$ $a$ $1 --c\n/* /* */ */ 1.5e-3 u&\"x\"", "set x = 'y", "\x00\xff$", "1..10", "e'\\",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		l := lexer{text: sql}
		end := 0
		for range len(sql) + 1 {
			tok := l.next()
			if tok.start < end || tok.end < tok.start || tok.end > len(sql) || (tok.kind != tokenEnd && tok.end == tok.start) {
				t.Fatalf("token %+v after %d in %q", tok, end, sql)
			}
			if end = tok.end; tok.kind == tokenEnd {
				break
			}
		}
		if tok := l.next(); tok.kind != tokenEnd {
			t.Fatalf("%q does not end", sql)
		}
		reason := pinRules{}.reason(sql)
		if len(sql) < 1000 {
			if got := (pinRules{}).reason("/* c */" + sql); got != reason {
				t.Errorf("%q: %q, behind a comment %q", sql, reason, got)
			}
			if got := (pinRules{}).reason("select 1;" + sql); got != reason {
				t.Errorf("%q: %q, behind a statement %q", sql, reason, got)
			}
		}
		digest(sql)
	})
}
