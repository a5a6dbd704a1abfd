"""A client of the shop's database with SQLAlchemy's pool: shop.py SOCKET_DIRECTORY PORT APPLICATION_NAME.

Each line of standard input is the name of the scenario whose fault is present, or `healthy`; its end ends the program.
Failed requests are counted on standard output.
"""

import contextlib
import contextvars
import os
import random
import sys
import threading
import time
from urllib.parse import quote

import sqlalchemy
from sqlalchemy import event, text

URL = sqlalchemy.URL.create(
    "postgresql+psycopg",
    username="postgres",
    database="postgres",
    query={"host": sys.argv[1], "port": sys.argv[2], "application_name": sys.argv[3]},
)
ENGINE = sqlalchemy.create_engine(URL, pool_size=5, max_overflow=5, pool_timeout=2)

# How many requests are in flight at most; others are dropped.
SLOTS = threading.BoundedSemaphore(100)
REPORT_SECONDS = 5

stopping = threading.Event()
# Of what follows.
lock = threading.Lock()
fault = "healthy"
leaked = []
failures = {}
request_tags = contextvars.ContextVar("request_tags")


@event.listens_for(ENGINE, "before_cursor_execute", retval=True)
def add_comment(_connection, _cursor, statement, parameters, _context, _executemany):
    """Adds a comment as opentelemetry-instrumentation-sqlalchemy does with `enable_commenter`."""
    comment = ",".join(f"{key}='{quote(value, safe='')}'" for key, value in sorted(request_tags.get().items()))
    # A percent sign begins a parameter.
    return f"{statement} /*{comment.replace('%', '%%')}*/", parameters


def work(connection, seconds):
    """Simulates a query that takes this time."""
    connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})


def any_product():
    return random.randint(10, 500)


def get_product(connection):
    sql = "SELECT name, cents, stock FROM poolscope_demo.products WHERE id = :id"
    connection.execute(text(sql), {"id": any_product()}).one()
    work(connection, random.expovariate(1 / 0.003))


def list_orders(connection):
    sql = "SELECT id, product, cents FROM poolscope_demo.orders WHERE customer = :customer ORDER BY id DESC LIMIT 20"
    connection.execute(text(sql), {"customer": random.randint(1, 400)}).all()
    if fault == "slow_queries":
        work(connection, random.expovariate(1 / 3))
    elif fault == "held_idle":
        # Another service is called. SQLAlchemy's transaction is open meanwhile.
        time.sleep(random.uniform(0.8, 1.4))
    else:
        work(connection, random.expovariate(1 / 0.015))


def insert_order(connection, product, cents):
    sql = "INSERT INTO poolscope_demo.orders (request, customer, product, cents) VALUES (:request, :customer, :product, :cents)"
    request, customer = random.randint(10**6, 2**63 - 1), random.randint(1, 400)
    connection.execute(text(sql), {"request": request, "customer": customer, "product": product, "cents": cents})


def place_order(connection):
    product = any_product()
    sql = "SELECT cents FROM poolscope_demo.products WHERE id = :id"
    cents = connection.execute(text(sql), {"id": product}).scalar_one()
    # The payment service.
    time.sleep(random.uniform(1.5, 2.5) if fault == "idle_in_transaction" else random.uniform(0.04, 0.16))
    insert_order(connection, product, cents)
    connection.commit()


def update_stock(connection):
    sql = "UPDATE poolscope_demo.products SET stock = (stock + 100) % 10000 WHERE id = :id"
    connection.execute(text(sql), {"id": any_product()})
    connection.commit()
    work(connection, random.expovariate(1 / 0.02))


def count_customers(connection):
    connection.execute(text("SELECT count(DISTINCT customer) FROM poolscope_demo.orders")).scalar_one()


def checkout_rush(connection):
    work(connection, random.uniform(0.1, 0.5))
    insert_order(connection, any_product(), 990)
    connection.commit()


# The requests: route, function, mean rate per second, and what a fault adds to it.
REQUESTS = [
    ("/products/{id}", get_product, 8, {}),
    ("/orders", list_orders, 12, {}),
    ("/orders/new", place_order, 3, {"idle_in_transaction": 4}),
    ("/products/{id}/stock", update_stock, 2, {}),
    ("/customers/count", count_customers, 0.5, {"leak": 1}),
    ("/checkout", checkout_rush, 0, {"undersized": 40}),
]


def serve(route, function):
    """Serves a request, with a connection of its own."""
    tags = {"db_driver": "psycopg", "framework": "sqlalchemy", "route": route}
    # The trace of one request in ten is sampled.
    if random.random() < 0.1:
        tags["traceparent"] = f"00-{random.getrandbits(128):032x}-{random.getrandbits(64):016x}-01"
    request_tags.set(tags)
    try:
        connection = ENGINE.connect()
        try:
            function(connection)
        finally:
            with lock:
                is_leaked = function is count_customers and fault == "leak"
                if is_leaked:
                    leaked.append(connection)
            if not is_leaked:
                connection.close()
    except sqlalchemy.exc.TimeoutError as error:
        # As in `QueuePool limit of size 5 overflow 5 reached, connection timed out, timeout 2.00 (Background on …)`.
        count_failure(str(error).split(" (")[0])
    except sqlalchemy.exc.SQLAlchemyError as error:
        lines = str(getattr(error, "orig", error)).splitlines()
        count_failure(": ".join([type(error).__name__, *lines[:1]]))
    finally:
        SLOTS.release()


def count_failure(problem):
    with lock:
        failures[problem] = failures.get(problem, 0) + 1


def generate(route, function, rate, extra):
    """Starts requests of a kind, which arrive independently of the answers."""
    while not stopping.is_set():
        current = rate + extra.get(fault, 0)
        if stopping.wait(random.expovariate(current) if current else 0.1):
            return
        if current and SLOTS.acquire(blocking=False):
            threading.Thread(target=serve, args=(route, function), daemon=True).start()


def report():
    global failures
    while not stopping.wait(REPORT_SECONDS):
        with lock:
            counted, failures = failures, {}
        for problem, requests in counted.items():
            print(f"{requests} requests failed: {problem}", flush=True)


for request in REQUESTS:
    threading.Thread(target=generate, args=request, daemon=True).start()
threading.Thread(target=report, daemon=True).start()
for line in sys.stdin:
    with lock:
        fault = line.strip()
        returned, leaked = ([], leaked) if fault == "leak" else (leaked, [])
    for connection in returned:
        # The server may have closed it.
        with contextlib.suppress(sqlalchemy.exc.SQLAlchemyError):
            connection.close()
stopping.set()
# Without waiting for requests in flight: the server rolls them back.
os._exit(0)
