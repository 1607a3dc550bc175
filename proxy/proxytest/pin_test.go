package proxytest

import (
	"strings"
	"testing"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxStatementText-len("select ''"))
	tests := []struct {
		sql  string
		want ruleID
	}{
		{"", noRule}, {";;", noRule}, {"-- ping", noRule}, {"select 1", noRule}, {"begin", noRule}, {"commit; begin", noRule},
		{"SET search_path TO a, b", ruleSettings}, {"set session work_mem = 1", ruleSettings},
		{"set time zone 'UTC'", ruleSettings}, {"set role x", ruleSettings},
		{"set session authorization x", ruleSettings}, {"set session characteristics as transaction read only", ruleSettings},
		{"set names 'utf8'", ruleSettings}, {"reset all", ruleSettings}, {"RESET x", ruleSettings},
		{"set local work_mem = 1", noRule}, {"set transaction read only", noRule}, {"set constraints all deferred", noRule},
		{"select set_config('a', 'b', true)", ruleSetConfig}, {"select PG_CATALOG.Set_Config ('a', 'b', false)", ruleSetConfig},
		{`select "set_config"('a', 'b', false)`, ruleSetConfig}, {`select "SET_CONFIG"('a', 'b', false)`, noRule},
		{"select set_config from t", noRule}, {"select set_config/**/('a','b',true)", ruleSetConfig},
		{"prepare p as select 1", rulePrepare}, {"execute p(1)", rulePrepare}, {"deallocate all", rulePrepare},
		{"prepare transaction 'x'", noRule}, {"commit prepared 'x'", noRule}, {"discard all", ruleDiscard},
		{"listen c", ruleListen}, {"unlisten *", noRule}, {"notify c", noRule},
		{"declare c cursor for select 1", ruleCursor}, {"fetch all from c", noRule}, {"close all", noRule},
		{"load 'auto_explain'", ruleLoad},
		{"create temp table t (i int)", ruleTemporary}, {"create temporary view v as select 1", ruleTemporary},
		{"create local temp sequence s", ruleTemporary}, {"create or replace temp view v as select 1", ruleTemporary},
		{"create temp recursive view v as select 1", ruleTemporary},
		{"create table if not exists pg_temp.t (i int)", rulePgTemp}, {"create table temp_t (i int)", noRule},
		{"create table t (temp int)", noRule}, {"create view v as select 1 as temp", noRule},
		{"select 1 as x into temp t", ruleTemporary}, {"select 1 into local temporary t", ruleTemporary},
		{"select 1 into pg_temp.t", rulePgTemp}, {"select 1 into t", noRule}, {"insert into temp values (1)", noRule},
		{"insert into t values (nextval('s'))", ruleSequence}, {"select setval('s', 1)", ruleSequence},
		{"select currval('s'), lastval()", noRule},
		{"select pg_advisory_lock(1)", ruleLock}, {"select pg_advisory_lock_shared(1)", ruleLock},
		{"select pg_try_advisory_lock(1)", ruleLock}, {"select pg_try_advisory_lock_shared(1)", ruleLock},
		{"select pg_advisory_xact_lock(1), pg_try_advisory_xact_lock_shared(2)", noRule}, {"select pg_advisory_unlock(1)", noRule},
		{"begin; set x = 1", ruleSettings}, {"select ';set x = 1'", noRule}, {"select 1;\n/* a /* b */ */ set x = 1", ruleSettings},
		{"select $$; set x = 1$$", noRule}, {"select $a$ $$ ; set x = 1 $a$", noRule}, {"do $$ begin perform nextval('s'); end $$", noRule},
		{`select e'\'; set x = 1'`, noRule}, {`select '\'; set x = 1`, ruleSettings}, {`select ";set x"`, noRule},
		{"-- x\nset x = 1", ruleSettings}, {"/* unfinished set x", noRule}, {"select 'unfinished ; set x", noRule},
		{"update t set x = 1", noRule}, {"select $1::text", noRule}, {"(select nextval('s'))", ruleSequence},
		{"select u&'\\0041'; reset x", ruleSettings}, {"select a$b; reset x", ruleSettings},
		// Names and case.
		{`select U&"\0073et_config"('a', 'b', false)`, ruleSetConfig}, {`select u&"!0073et!+00005fconfig" uescape '!' ('a','b',true)`, ruleSetConfig},
		{"select pg_advisory_loc\u212a(1)", noRule}, {"\u017fet x = 1", noRule}, {`"set" x = 1`, noRule},
		{"select app.nextval('s')", noRule}, {"select pg_catalog . nextval('s')", ruleSequence}, {`select "pg_catalog"."nextval"('s')`, ruleSequence},
		{"select a.pg_catalog.nextval('s')", noRule}, {"drop function app.set_config(text), setval(int)", noRule},
		{"grant execute on function pg_catalog.setval(regclass, bigint) to app", noRule}, {"select x.nextval from x", noRule},
		// Strings that go on.
		{"select e'a'\n'\\'; set x = 1 --'", noRule}, {"select 'a' -- c\n  ';set x = 1'", noRule}, {"select 'a' ';set x = 1'", noRule},
		{"select 1from t; reset x", ruleSettings}, {"select 0x1F, 1_000; reset x", ruleSettings}, {"select 1into temp t", ruleTemporary},
		// Bodies.
		{"create function f() returns bigint language sql begin atomic select nextval('s'); select case when true then 1 end; end; reset x", ruleSettings},
		{"create or replace procedure p() begin atomic insert into t values (nextval('s')); end", noRule},
		{"create function f() returns int begin atomic select 1 as end, t.case; end; listen c", ruleListen},
		{"create function f() returns bigint return nextval('s'); listen c", ruleListen},
		{"create function f() returns bigint as 'select nextval(''s'')' language sql", noRule},
		{"create function f() returns int language sql set search_path to x as $$ set y = 1; $$", noRule},
		{"create trigger g before insert on t for each row execute function nextval()", noRule},
		{"create rule r as on insert to t do also (notify a; select nextval('s'))", ruleSequence},
		{"begin; select 1; end", noRule}, {"do 'begin set x = 1; end'", noRule}, {"call p(nextval('s'))", ruleSequence},
		// EXPLAIN and other commands around commands.
		{"explain analyze execute p(1)", rulePrepare}, {"explain (analyze, buffers) create temp table t as select 1", ruleTemporary},
		{"explain create temp table t as select 1", noRule}, {"explain verbose select nextval('s')", ruleSequence},
		{"explain (select nextval('s'))", ruleSequence}, {"explain (analyze) (select 1)", noRule}, {"explain (costs off) declare c cursor for select 1", noRule},
		{"create table t as execute p", rulePrepare}, {"with a as (insert into t values (nextval('s')) returning *) select * from a", ruleSequence},
		{"copy (select setval('s', 1)) to stdout", ruleSequence}, {"copy t from stdin", noRule}, {"prepare p as select 1; listen c", rulePrepare},
		{"create table t (id bigint default nextval('s'))", ruleSequence}, {"create table t (id bigserial)", noRule},
		// Temporary by name.
		{"create table temp (i int)", noRule}, {"create table temp.t (i int)", noRule}, {"create schema temp", noRule},
		{"create function pg_temp.f() returns int return 1", rulePgTemp}, {"create table pg_temp_3.t (i int)", rulePgTemp},
		{`create table "pg_temp".t (i int)`, rulePgTemp}, {"create table pg_temporal.t (i int)", noRule}, {"create type pg_temp.m as enum ('a')", rulePgTemp},
		{"select 1 into temp from t", noRule}, {"select 1 into temp", noRule}, {"select 1 into temporary table t", ruleTemporary},
		{"create temp view v as select 1", ruleTemporary}, {"create index on pg_temp.t (i)", rulePgTemp}, {"insert into pg_temp.t select 1", noRule},
		{"create table t (like pg_temp.u)", noRule}, {"create global temporary table t (i int)", ruleTemporary},
		// Settings by another way.
		{"update pg_settings set setting = 'x' where name = 'y'", rulePgSettings}, {"update only pg_catalog.pg_settings set setting = 'x'", rulePgSettings},
		{"alter role app set work_mem = '8MB'", noRule}, {"alter system set work_mem = '8MB'", noRule}, {"show search_path", noRule},
		{"set local role x", noRule}, {"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", ruleSettings},
		{"select '" + long + "'", noRule}, {"select '" + long + "x'", ruleLongText},
	}
	for _, tt := range tests {
		if got := (pinRules{}).judge(tt.sql); got != tt.want {
			t.Errorf("%.80s: got %q, want %q", tt.sql, rules[got].Name, rules[tt.want].Name)
		}
	}
	for _, sql := range []string{"begin; set local x = 1", "set transaction read only", "set constraints all deferred"} {
		if got := (pinRules{setLocalPins: true}).judge(sql); got != ruleSettings {
			t.Errorf("%s with the switch: %q", sql, rules[got].Name)
		}
	}
	if got := (pinRules{escapes: true}).judge(`select '\'; set x = 1 --'`); got != noRule {
		t.Errorf("standard_conforming_strings off: %q", rules[got].Name)
	}
}

func TestDigest(t *testing.T) {
	t.Parallel()
	tests := []struct{ sql, want string }{
		// As users show them from RDS Proxy's log.
		{`SET search_path = "public"; SET NAMES 'UTF8';`, "set search_path = $1; set names $2;"},
		{"SET search_path TO 'a','b',c", "set search_path to $1,$2,$3"},
		{"SET extra_float_digits = 3", "set extra_float_digits = $1"},
		{"SELECT pg_advisory_unlock_all();\nCLOSE ALL;\n\tUNLISTEN *; -- x\nRESET ALL;", "select pg_advisory_unlock_all(); close all; unlisten *; reset all;"},
		{"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
			"set session characteristics as transaction isolation level $1 uncommitted"},
		{`SELECT set_config('a', 'b', true), set_config('c', 'd', true); SELECT "t"."Key" FROM "t" WHERE "t"."key" = 'k' LIMIT 21`,
			`select set_config($1, $2, $3), set_config($4, $5, $6); select "t"."key" from "t" where "t"."key" = $7 limit $8`},
		// As PostgreSQL's normalisation has it.
		{"select set_config('jit', $1, false)", "select set_config($2, $1, $3)"},
		{"select  $2, 1.5e-3, E'\\'' /* y */", "select $2, $3, $4"},
		{"select null, x is null, x is not true, true", "select $1, x is null, x is not true, $2"},
		{"set time zone local; set time zone utc; set x to default; set role a; set a.b = -5",
			"set time zone local; set time zone $1; set x to default; set role $2; set a.b = $3"},
		{"set transaction isolation level serializable, read only", "set transaction isolation level $1, $2 only"},
		{"update t set x = \"Y\" where z = 1", `update t set x = "y" where z = $1`},
	}
	for _, tt := range tests {
		if got := (pinRules{}).digest(tt.sql); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.sql, got, tt.want)
		}
	}
}
