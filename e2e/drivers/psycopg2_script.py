"""psycopg 2 through the gateway: each check prints `ok <what holds>`; the first that fails ends the script."""

import io
import os
import threading

import psycopg2
from psycopg2 import errors, extensions, extras

settings = dict(
    host=os.environ["SALLYPORT_HOST"],
    port=os.environ["SALLYPORT_PORT"],
    user=os.environ["SALLYPORT_USER"],
    dbname=os.environ["SALLYPORT_DATABASE"],
    sslmode="verify-full",
    sslrootcert=os.environ["SALLYPORT_CA"],
)
token = os.environ["SALLYPORT_TOKEN"]
endless = "SELECT count(*) FROM generate_series(1, 100000000000)"


def ok(what):
    print("ok", what, flush=True)


def refused(statement):
    try:
        cursor.execute(statement)
    except errors.InsufficientPrivilege as error:
        assert error.pgcode == "42501" and error.diag.message_primary, error
        return
    raise AssertionError(f"not refused: {statement}")


def one(statement, values=None):
    cursor.execute(statement, values)
    return cursor.fetchone()[0]


def count():
    return one("SELECT count(*) FROM orders")


connection = psycopg2.connect(password=token, **settings)
connection.autocommit = True
cursor = connection.cursor()
assert connection.info.ssl_in_use
ok("connects with a verified certificate and a token as password")

cursor.execute("SELECT 1; SELECT 2")
assert cursor.fetchone() == (2,)
ok("simple statements")

assert one("SELECT name FROM customers WHERE id = %s", (1,)) == "Ada"
assert bytes(one("SELECT %s", (psycopg2.Binary(b"\x00\xff'\\"),))) == b"\x00\xff'\\"
ok("parameters")

cursor.execute("PREPARE by_id (int) AS SELECT id FROM customers WHERE id = $1")
for number in range(7):
    assert one("EXECUTE by_id (%s)", (1 + number % 3,)) == 1 + number % 3
ok("prepared statements")

refused("DELETE FROM orders")
refused("SELECT * FROM payroll")
assert one("SELECT 'usable'") == "usable"
ok("a refusal is 42501 and the connection stays usable")

before = count()
connection.autocommit = False
cursor.execute("INSERT INTO orders (customer_id, amount) VALUES (1, 1)")
refused("DELETE FROM orders")
assert connection.info.transaction_status == extensions.TRANSACTION_STATUS_INERROR
try:
    cursor.execute("SELECT 1")
    raise AssertionError("an aborted transaction took a statement")
except errors.InFailedSqlTransaction:
    pass
connection.commit()
assert count() == before
ok("a refusal aborts the transaction")

cursor.execute("INSERT INTO orders (customer_id, amount) VALUES (1, 1)")
cursor.execute("SAVEPOINT b")
refused("DELETE FROM orders")
cursor.execute("ROLLBACK TO b")
assert count() == before + 1
connection.rollback()
ok("a savepoint survives a refusal behind it")

extras.execute_values(cursor, "INSERT INTO orders (customer_id, amount) VALUES %s", [(1, n) for n in range(50)])
assert count() == before + 50
connection.rollback()

out = io.StringIO()
cursor.copy_expert("COPY (SELECT id, name FROM customers ORDER BY id) TO STDOUT", out)
assert out.getvalue().startswith("1\tAda\n"), out.getvalue()
ok("copy out")

cursor.copy_from(io.StringIO("".join(f"1\t{n}\n" for n in range(1000))), "orders", columns=("customer_id", "amount"))
assert count() == before + 1000
connection.rollback()
ok("copy in")

with connection.cursor(name="walk") as walk:
    walk.itersize = 2
    walk.execute("SELECT id FROM customers ORDER BY id")
    assert [row[0] for row in walk] == [1, 2, 3]
connection.rollback()
ok("cursors")

timer = threading.Timer(0.3, connection.cancel)
timer.start()
try:
    cursor.execute(endless)
    raise AssertionError("not cancelled")
except errors.QueryCanceled:
    pass
timer.join()
connection.rollback()
assert one("SELECT 1") == 1
ok("cancel")

try:
    psycopg2.connect(password="not-a-token", **settings)
    raise AssertionError("a wrong token was let in")
except psycopg2.OperationalError as error:
    assert "not-a-token" not in str(error)
ok("a wrong token is refused")
