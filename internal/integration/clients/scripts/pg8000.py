import io, os
import pg8000

check, rows = os.environ["CHECK"], int(os.environ["ROWS"])
conn = pg8000.connect(
    user=os.environ["PGUSER"], host=os.environ["PGHOST"], port=int(os.environ["PGPORT"]),
    database=os.environ["PGDATABASE"], password=os.environ["PGPASSWORD"], ssl=True,
)
cur = conn.cursor()


def text():
    return "".join(f"{i}\t{'x' * (i % 300)}\n" for i in range(rows)).encode()


if check == "iam":
    cur.execute("select current_user")
    print("as", cur.fetchone()[0])
elif check == "run":
    for n in range(10):
        cur.execute("select %s + 1", (n,))
        assert cur.fetchone()[0] == n + 1
    try:
        cur.execute("select 1/0")
        raise SystemExit("no error")
    except pg8000.ProgrammingError:
        conn.rollback()
    cur.execute("create table pg8000_run (n int)")
    cur.executemany("insert into pg8000_run values (%s)", [(1,), (2,)])
    conn.commit()
    cur.execute("select sum(n) from pg8000_run")
    assert cur.fetchone()[0] == 3
elif check == "copy in":
    cur.execute("create table pg8000_rows (id int primary key, body text)")
    cur.execute("copy pg8000_rows from stdin", stream=io.BytesIO(text()))
    conn.commit()
    cur.execute("select count(*) from pg8000_rows")
    assert cur.fetchone()[0] == rows
elif check == "copy out":
    out = io.BytesIO()
    cur.execute("copy (select id, body from pg8000_rows order by id) to stdout", stream=out)
    assert out.getvalue() == text()
conn.close()
print("ok", check)
