import asyncio, io, os, ssl
import asyncpg

check, rows = os.environ["CHECK"], int(os.environ["ROWS"])


def lines():
    return ((i, "x" * (i % 300)) for i in range(rows))


async def main():
    tls = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
    conn = await asyncpg.connect(ssl=tls)
    if check in ("scram", "iam"):
        print("as", await conn.fetchval("select current_user"))
    elif check == "run":
        for n in range(10):
            assert await conn.fetchval("select $1::int + 1", n) == n + 1
        try:
            await conn.fetchval("select 1/0")
            raise SystemExit("no error")
        except asyncpg.DivisionByZeroError:
            pass
        async with conn.transaction():
            await conn.execute("create table asyncpg_run (n int)")
            await conn.executemany("insert into asyncpg_run values ($1)", [(1,), (2,)])
        assert await conn.fetchval("select sum(n) from asyncpg_run") == 3
    elif check == "cancel":
        try:
            await conn.fetchval("select pg_sleep(1.5)", timeout=0.5)
            raise SystemExit("no timeout")
        except asyncio.TimeoutError:
            pass
        assert await conn.fetchval("select 1") == 1
    elif check == "copy in":
        await conn.execute("create table asyncpg_rows (id int primary key, body text)")
        await conn.copy_records_to_table("asyncpg_rows", records=lines())
        assert await conn.fetchval("select count(*) from asyncpg_rows") == rows
    elif check == "copy out":
        out = io.BytesIO()
        await conn.copy_from_query("select id, body from asyncpg_rows order by id", output=out)
        assert out.getvalue().decode() == "".join(f"{i}\t{b}\n" for i, b in lines())
    await conn.close()
    print("ok", check)


asyncio.run(main())
