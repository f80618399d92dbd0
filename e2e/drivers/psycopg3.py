"""psycopg 3 through the gateway: each check prints `ok <what holds>`; the first that fails ends the script."""

import os
import threading
import uuid
from datetime import datetime, timezone
from decimal import Decimal

import psycopg
from psycopg import errors
from psycopg.pq import TransactionStatus

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


def refused(connection, statement):
    try:
        connection.execute(statement)
    except errors.InsufficientPrivilege as error:
        assert error.sqlstate == "42501" and error.diag.message_primary, error
        return
    raise AssertionError(f"not refused: {statement}")


def count(connection):
    return connection.execute("SELECT count(*) FROM orders").fetchone()[0]


with psycopg.connect(password=token, autocommit=True, **settings) as connection:
    assert connection.pgconn.ssl_in_use
    ok("connects with a verified certificate and a token as password")

    assert connection.execute("SELECT 1; SELECT 2").fetchone() == (1,)
    ok("simple statements")

    row = connection.execute("SELECT name FROM customers WHERE id = %s", (1,)).fetchone()
    assert row == ("Ada",), row
    ok("parameters")

    values = [True, 1 << 40, Decimal("12.340"), uuid.UUID(int=7), b"\x00\xff", datetime(2024, 2, 29, tzinfo=timezone.utc)]
    cursor = connection.cursor(binary=True)
    cursor.execute("SELECT %b::bool, %b::int8, %b::numeric, %b::uuid, %b::bytea, %b::timestamptz", values)
    assert list(cursor.fetchone()) == values
    assert connection.execute("SELECT %b::int[]", ([1, None, 3],), binary=True).fetchone() == ([1, None, 3],)
    ok("binary parameters and results")

    for number in (1, 2, 3, 4, 5, 6, 7):
        row = connection.execute("SELECT id FROM customers WHERE id = %s", (1 + number % 3,), prepare=True).fetchone()
        assert row == (1 + number % 3,)
    ok("prepared statements")

    refused(connection, "DELETE FROM orders")
    refused(connection, "SELECT * FROM payroll")
    assert connection.execute("SELECT 'usable'").fetchone() == ("usable",)
    ok("a refusal is 42501 and the connection stays usable")

    before = count(connection)
    connection.execute("BEGIN")
    connection.execute("INSERT INTO orders (customer_id, amount) VALUES (1, 1)")
    refused(connection, "DELETE FROM orders")
    assert connection.info.transaction_status == TransactionStatus.INERROR
    try:
        connection.execute("SELECT 1")
        raise AssertionError("an aborted transaction took a statement")
    except errors.InFailedSqlTransaction:
        pass
    assert connection.execute("COMMIT").statusmessage == "ROLLBACK"
    assert count(connection) == before
    ok("a refusal aborts the transaction")

    with connection.transaction(force_rollback=True):
        connection.execute("INSERT INTO orders (customer_id, amount) VALUES (1, 1)")
        try:
            with connection.transaction():
                connection.execute("DELETE FROM orders")
        except errors.InsufficientPrivilege:
            pass
        assert count(connection) == before + 1
    ok("a savepoint survives a refusal behind it")

    try:
        with connection.pipeline():
            connection.execute("INSERT INTO orders (customer_id, amount) VALUES (1, 1)")
            connection.execute("DELETE FROM orders")
            connection.execute("INSERT INTO orders (customer_id, amount) VALUES (1, 1)")
        raise AssertionError("the pipeline was not refused")
    except errors.InsufficientPrivilege:
        pass
    assert count(connection) == before
    ok("a refusal in a pipeline undoes what stood before it")

    with connection.cursor().copy("COPY customers (id, name) TO STDOUT") as copy:
        assert [row for row in copy.rows()][0] == ("1", "Ada")
    ok("copy out")

    with connection.transaction(force_rollback=True):
        with connection.cursor().copy("COPY orders (customer_id, amount) FROM STDIN") as copy:
            for number in range(1000):
                copy.write_row((1, number))
        assert count(connection) == before + 1000
    ok("copy in")

    with connection.cursor().copy("COPY customers (id, name) TO STDOUT (FORMAT binary)") as copy:
        copy.set_types(["int4", "text"])
        customers = list(copy.rows())
    assert customers[0] == (1, "Ada"), customers
    with connection.transaction(force_rollback=True):
        with connection.cursor().copy("COPY arrivals FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "text"])
            for customer in customers:
                copy.write_row(customer)
        assert connection.execute("SELECT id, name FROM arrivals ORDER BY id").fetchall() == customers
    ok("binary copy out and in again")

    with connection.transaction(force_rollback=True):
        many = connection.cursor()
        insert = "INSERT INTO orders (customer_id, amount) VALUES (%s, %s) RETURNING amount"
        many.executemany(insert, [(1, number) for number in range(300)], returning=True)
        amounts = []
        while True:
            amounts += [int(row[0]) for row in many.fetchall()]
            if not many.nextset():
                break
        assert amounts == list(range(300)), amounts
    assert count(connection) == before
    ok("many executions in a pipeline")

    with connection.transaction():
        with connection.cursor(name="walk") as cursor:
            cursor.itersize = 2
            cursor.execute("SELECT id FROM customers ORDER BY id")
            assert [row[0] for row in cursor] == [1, 2, 3]
    ok("cursors")

    timer = threading.Timer(0.3, connection.cancel_safe)
    timer.start()
    try:
        connection.execute(endless)
        raise AssertionError("not cancelled")
    except errors.QueryCanceled:
        pass
    timer.join()
    assert connection.execute("SELECT 1").fetchone() == (1,)
    ok("cancel")

try:
    psycopg.connect(password="not-a-token", **settings)
    raise AssertionError("a wrong token was let in")
except psycopg.OperationalError as error:
    assert "not-a-token" not in str(error)
ok("a wrong token is refused")
