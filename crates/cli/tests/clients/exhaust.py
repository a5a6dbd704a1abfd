"""Exhausts SQLAlchemy's pool of three connections and two of overflow, in one of several ways: EXHAUST.py HOST PORT WAY."""

import sys
import threading
import time

import sqlalchemy

HOST, PORT, WAY = sys.argv[1:]
ENGINE = sqlalchemy.create_engine(
    f"postgresql+psycopg://postgres@{HOST}:{PORT}/postgres?application_name={WAY}",
    pool_size=3, max_overflow=2, pool_timeout=2,
)
LEAKED = []


def work():
    statement = sqlalchemy.text(f"SELECT 1 /*route='%2F{WAY}'*/")
    if WAY == "leak":
        connection = ENGINE.connect()
        connection.execute(statement)
        LEAKED.append(connection)
    elif WAY == "idle":
        with ENGINE.begin() as connection:
            connection.execute(statement)
            time.sleep(2)
    elif WAY == "held":
        # Without a commit: a connection that is held while something else is done is in a transaction.
        with ENGINE.connect() as connection:
            connection.execute(statement)
            time.sleep(1)
            connection.execute(statement)
            time.sleep(1)
    elif WAY == "slow":
        with ENGINE.connect() as connection:
            connection.execute(sqlalchemy.text(f"SELECT pg_sleep(2) /*route='%2F{WAY}'*/"))


def loop():
    while True:
        try:
            work()
        except sqlalchemy.exc.TimeoutError as error:
            # QueuePool limit of size 3 overflow 2 reached, connection timed out, timeout 2.00
            print(error, file=sys.stderr)


for _ in range(10):
    threading.Thread(target=loop, daemon=True).start()
sys.stdin.read()
