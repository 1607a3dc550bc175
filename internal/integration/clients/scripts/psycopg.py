import os, threading
import psycopg

check, rows = os.environ["CHECK"], int(os.environ["ROWS"])
conn = psycopg.connect("", prepare_threshold=1)
cur = conn.cursor()


def lines():
    return ((i, "x" * (i % 300)) for i in range(rows))


if check in ("scram", "iam"):
    print("as", cur.execute("select current_user").fetchone()[0])
elif check == "run":
    for n in range(10):
        assert cur.execute("select %s::int + 1", (n,)).fetchone() == (n + 1,)
    conn.commit()
    try:
        cur.execute("select 1/0")
        raise SystemExit("no error")
    except psycopg.errors.DivisionByZero:
        conn.rollback()
    cur.execute("create table psycopg_run (n int)")
    with conn.pipeline():
        cur.executemany("insert into psycopg_run values (%s)", [(1,), (2,)])
    conn.commit()
    assert cur.execute("select sum(n) from psycopg_run").fetchone() == (3,)
elif check == "cancel":
    threading.Timer(0.5, conn.cancel).start()
    cur.execute("select pg_sleep(1.5)")
    assert cur.execute("select 1").fetchone() == (1,)
elif check == "copy in":
    cur.execute("create table psycopg_rows (id int primary key, body text)")
    with cur.copy("copy psycopg_rows from stdin (format binary)") as copy:
        copy.set_types(["int4", "text"])
        for row in lines():
            copy.write_row(row)
    conn.commit()
    assert cur.execute("select count(*) from psycopg_rows").fetchone() == (rows,)
elif check == "copy out":
    with cur.copy("copy (select id, body from psycopg_rows order by id) to stdout (format binary)") as copy:
        copy.set_types(["int4", "text"])
        assert list(copy.rows()) == list(lines())
conn.close()
print("ok", check)
