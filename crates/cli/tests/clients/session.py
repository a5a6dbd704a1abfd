"""Uses a database with psycopg, asyncpg and SQLAlchemy, and prints what they return: SESSION.py HOST PORT."""

import asyncio
import sys
import threading

import asyncpg
import psycopg
import sqlalchemy

HOST, PORT = sys.argv[1:]
DSN = f"host={HOST} port={PORT} user=postgres dbname=postgres application_name=psycopg"


def with_psycopg():
    with psycopg.connect(DSN) as connection:
        connection.execute("CREATE TEMP TABLE t (id int, name text)")
        with connection.cursor().copy("COPY t FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(["int4", "text"])
            for number in range(1000):
                copy.write_row((number, f"name {number}"))
        connection.commit()
        # Prepared after some executions.
        for number in range(10):
            print(connection.execute("SELECT name FROM t WHERE id = %s", (number,)).fetchone())
        with connection.pipeline():
            results = [connection.execute("SELECT %s::int", (number,)) for number in range(5)]
            print([result.fetchone() for result in results])
        try:
            connection.execute("SELECT broken")
        except psycopg.Error as error:
            print(error.sqlstate)
        connection.rollback()
        with connection.cursor("named") as cursor:
            print(len(cursor.execute("SELECT * FROM t").fetchmany(10)))
        done = threading.Event()

        def cancel():
            while not done.wait(0.3):
                connection.cancel()

        canceller = threading.Thread(target=cancel)
        canceller.start()
        try:
            connection.execute("SELECT pg_sleep(60)")
        except psycopg.Error as error:
            print(error.sqlstate)
        done.set()
        canceller.join()
        connection.rollback()
        with connection.cursor().copy("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 20000)) TO STDOUT") as copy:
            print(sum(len(block) for block in copy))


async def with_asyncpg():
    pool = await asyncpg.create_pool(
        host=HOST, port=int(PORT), user="postgres", database="postgres", min_size=2, max_size=4,
        server_settings={"application_name": "asyncpg"},
    )
    async with pool.acquire() as connection:
        notified = asyncio.get_running_loop().create_future()
        await connection.add_listener("sidecar", lambda *event: notified.set_result(event[2:]))
        await connection.execute("NOTIFY sidecar, 'payload'")
        print(await notified)
    values = await asyncio.gather(*(pool.fetchval("SELECT $1::int * 2", number) for number in range(20)))
    print(values)
    async with pool.acquire() as connection, connection.transaction():
        async for record in connection.cursor("SELECT generate_series(1, 5)", prefetch=2):
            print(record)
    try:
        await pool.execute("SELECT pg_sleep(60)", timeout=0.3)
    except TimeoutError:
        print("timeout")
    await pool.close()


def with_sqlalchemy():
    engine = sqlalchemy.create_engine(f"postgresql+psycopg://postgres@{HOST}:{PORT}/postgres?application_name=sqlalchemy")
    metadata = sqlalchemy.MetaData()
    table = sqlalchemy.Table("shop_orders", metadata, sqlalchemy.Column("id", sqlalchemy.Integer, primary_key=True))
    metadata.drop_all(engine)
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(table.insert(), [{"id": number} for number in range(100)])
    with engine.connect() as connection:
        print(connection.execute(sqlalchemy.select(sqlalchemy.func.sum(table.c.id))).scalar())
    metadata.drop_all(engine)
    engine.dispose()


with_psycopg()
asyncio.run(with_asyncpg())
with_sqlalchemy()
