package integration

// The lexer of the pin rules against PostgreSQL's own: is a piece of text a statement, or is it within
// something?

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/aurorapgx/aurorapgx/proxy/proxytest"
)

// lexerTexts have a place, <>, where a statement is put in.
var lexerTexts = []string{
	"select 1<>", "select 'x<>y'", "select 'it''s<>'", `select '\'<>`, `select '\\'<>`, `select e'\'<>'`, `select e'\\'<>`, `select E'\\\'<>'`,
	"select 'a'\n'<>'", "select 'a' -- c\n'<>'", "select 'a' -- c\n -- d\n '<>'", "select 'a'\n<>", "select e'a'\n'\\'<>'", "select 'a'\n'\\'<>",
	"select U&'a<>'", `select U&'\0061<>'`, "select n'a<>'", "select b'1'<>", "select x'1F'<>", "select 1.5e-3<>", "select 1.<>", "select .5<>",
	"select $$<>$$", "select $a$<>$a$", "select $a$ $$<>$a$", "select $a$ $b$<>$b$ $a$", "select $a$x$a$<>", "select $a$ $a <>$a$", "select $_1$<>$_1$",
	"select 1 as a$b<>", "select 1 as a$$b<>", "select 1 as é<>", `select 1 as "a<>"`, `select 1 as "a""b<>"`, `select 1 as "a""b"<>`, `select 1 as U&"a<>"`,
	`select 1 as U&"a!0062" uescape '!'<>`, "select 1 -- <>", "select 1 -- c\n<>", "select 1 -- c\r<>", "select 1 --<>\n", "select 1 /* <> */", "select 1 /* c */<>",
	"select 1 /* /* */ <> */", "select 1 /* /* */ */<>", "select 1 /* -- */<>", "select 1 -- /* \n<>", "select '/*'<>", "select 1 /* ' */<>", "select 1 - -1<>",
	"select 1 *-- c\n 2<>", "select 1 +/* c */ 2<>", "(select 1)<>", "select (select 1)<>", "select array[1, 2]<>", "select '{1,2}'::int[]<>", "<>", ";;<>", "\t\n\f<>",
	"create or replace function lex_f() returns int begin atomic select 1<>select 2; end",
	"create or replace function lex_f() returns int begin atomic select 1; select case when true then 2 end; end<>",
	"create or replace function lex_f() returns int begin atomic select 1 as \"end\"<>select 2; end",
	"create or replace function lex_f() returns int begin atomic select 1 as case; select 1 as end<>select 2; end",
	"create or replace function lex_f() returns int return 1<>",
	"create or replace function lex_f() returns int language sql as 'select 1<>select 2'",
	"create or replace rule lex_r as on update to lex_t do also (select 1<>select 2)",
	"create or replace rule lex_r as on update to lex_t do also (select 1)<>",
	"do 'begin perform 1; end'<>", "do $$begin perform 1<>perform 2; end$$", "explain select 1<>", "explain (costs off) select 1<>",
}

func TestLexerAgreesWithPostgreSQL(t *testing.T) {
	t.Parallel()
	for _, conforming := range []string{"on", "off"} {
		t.Run("standard_conforming_strings="+conforming, func(t *testing.T) {
			t.Parallel()
			px, url, dsn := startProxy(t)
			admin(t, shared, "alter database "+pgx.Identifier{name(t, dsn)}.Sanitize()+" set standard_conforming_strings = "+conforming)
			pg, err := pgx.Connect(t.Context(), dsn)
			if err != nil {
				t.Fatal(err)
			}
			defer pg.Close(t.Context())
			mustExec(t, pg, "create table lex_t (i int)", pgx.QueryExecModeExec)
			texts := append([]string{`select '\'<>'`, `select n'\'<>'`, `select '\''<>'`, `select '\\''<>'`}, lexerTexts...)
			seen, hidden := 0, 0
			for _, text := range texts {
				want, ok := isStatement(t, pg, text)
				if !ok {
					continue // of the other kind of strings, or of a newer PostgreSQL
				}
				if want {
					seen++
				} else {
					hidden++
				}
				if got := pins(t, px, url, strings.ReplaceAll(text, "<>", "; reset work_mem; ")); got != want {
					t.Errorf("%q: PostgreSQL sees a statement there: %t, the lexer: %t", text, want, got)
				}
			}
			t.Logf("%d statements seen, %d within something, of %d texts", seen, hidden, len(texts))
			if seen < 30 || hidden < 25 {
				t.Error("too few texts went through")
			}
		})
	}
}

// isStatement says whether PostgreSQL takes what is put into the text for a statement of its own; ok is
// false if it refuses the whole.
func isStatement(t *testing.T, pg *pgx.Conn, text string) (is, ok bool) {
	t.Helper()
	results, err := pg.PgConn().Exec(t.Context(), strings.ReplaceAll(text, "<>", "; select 42; ")).ReadAll()
	if err != nil {
		t.Logf("%q: %v", text, err)
		return false, false
	}
	for _, r := range results {
		if len(r.Rows) == 1 && len(r.Rows[0]) == 1 && string(r.Rows[0][0]) == "42" {
			is = true
		}
	}
	return is, true
}

// pins says whether a text pins a session through px, in which it is the only one.
func pins(t *testing.T, px *proxytest.Proxy, url, sql string) bool {
	t.Helper()
	pool := newPool(t, url, signedBy(px))
	defer pool.Close()
	before := px.Stats().PinnedSessions
	err := pool.AcquireFunc(t.Context(), func(c *pgxpool.Conn) error {
		_, _ = c.Conn().PgConn().Exec(t.Context(), sql).ReadAll() // RESET is not allowed in all places
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return px.Stats().PinnedSessions > before
}
