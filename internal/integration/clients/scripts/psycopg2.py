import io, os, threading, time
import psycopg2

check, rows = os.environ["CHECK"], int(os.environ["ROWS"])
conn = psycopg2.connect("")
cur = conn.cursor()


def body(i):
    return "x" * (i % 300)


if check in ("scram", "iam"):
    cur.execute("select current_user")
    print("as", cur.fetchone()[0])
elif check == "run":
    cur.execute("select %s + 1", (41,))
    assert cur.fetchone() == (42,)
    try:
        cur.execute("select 1/0")
        raise SystemExit("no error")
    except psycopg2.errors.DivisionByZero:
        conn.rollback()
    with conn:
        cur.execute("create table psycopg2_run (n int)")
        cur.execute("insert into psycopg2_run values (%s), (%s)", (1, 2))
    cur.execute("select sum(n) from psycopg2_run")
    assert cur.fetchone() == (3,)
elif check == "cancel":
    threading.Timer(0.5, conn.cancel).start()
    cur.execute("select pg_sleep(1.5)")
    cur.execute("select 1")
    assert cur.fetchone() == (1,)
elif check == "copy in":
    cur.execute("create table psycopg2_rows (id int primary key, body text)")
    cur.copy_from(io.StringIO("".join(f"{i}\t{body(i)}\n" for i in range(rows))), "psycopg2_rows")
    conn.commit()
    cur.execute("select count(*) from psycopg2_rows")
    assert cur.fetchone() == (rows,)
elif check == "copy out":
    out = io.StringIO()
    cur.copy_expert("copy (select id, body from psycopg2_rows order by id) to stdout", out)
    assert out.getvalue() == "".join(f"{i}\t{body(i)}\n" for i in range(rows))
conn.close()
print("ok", check)
