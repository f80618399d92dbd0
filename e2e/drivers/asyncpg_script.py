"""asyncpg through the gateway: each check prints `ok <what holds>`; the first that fails ends the script."""

import asyncio
import io
import os
import ssl
import uuid
from datetime import datetime, timezone
from decimal import Decimal

import asyncpg

token = os.environ["SALLYPORT_TOKEN"]
settings = dict(
    host=os.environ["SALLYPORT_HOST"],
    port=int(os.environ["SALLYPORT_PORT"]),
    user=os.environ["SALLYPORT_USER"],
    database=os.environ["SALLYPORT_DATABASE"],
    ssl=ssl.create_default_context(cafile=os.environ["SALLYPORT_CA"]),
)
endless = "SELECT count(*) FROM generate_series(1, 100000000000)"


def ok(what):
    print("ok", what, flush=True)


async def refused(connection, statement, *values):
    try:
        await connection.execute(statement, *values)
    except asyncpg.InsufficientPrivilegeError as error:
        assert error.sqlstate == "42501" and str(error), error
        return
    raise AssertionError(f"not refused: {statement}")


async def main():
    connection = await asyncpg.connect(password=token, **settings)
    ok("connects with a verified certificate and a token as password")

    assert await connection.execute("SELECT 1; SELECT 2") == "SELECT 1"
    ok("simple statements")

    assert await connection.fetchval("SELECT name FROM customers WHERE id = $1", 1) == "Ada"
    ok("parameters")

    values = [True, 1 << 40, Decimal("12.340"), uuid.UUID(int=7), b"\x00\xff", datetime(2024, 2, 29, tzinfo=timezone.utc)]
    row = await connection.fetchrow("SELECT $1::bool, $2::int8, $3::numeric, $4::uuid, $5::bytea, $6::timestamptz", *values)
    assert list(row) == values, row
    assert await connection.fetchval("SELECT $1::int[]", [1, None, 3]) == [1, None, 3]
    ok("binary parameters and results")

    statement = await connection.prepare("SELECT id FROM customers WHERE id = $1")
    for number in range(7):
        assert await statement.fetchval(1 + number % 3) == 1 + number % 3
    ok("prepared statements")

    await refused(connection, "DELETE FROM orders")
    await refused(connection, "SELECT * FROM payroll WHERE customer_id = $1", 1)
    assert await connection.fetchval("SELECT 'usable'") == "usable"
    ok("a refusal is 42501 and the connection stays usable")

    before = await connection.fetchval("SELECT count(*) FROM orders")
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("INSERT INTO orders (customer_id, amount) VALUES ($1, $2)", 1, Decimal(1))
    await refused(connection, "DELETE FROM orders")
    try:
        await connection.fetchval("SELECT 1")
        raise AssertionError("an aborted transaction took a statement")
    except asyncpg.InFailedSQLTransactionError:
        pass
    await transaction.rollback()
    assert await connection.fetchval("SELECT count(*) FROM orders") == before
    ok("a refusal aborts the transaction")

    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("INSERT INTO orders (customer_id, amount) VALUES (1, 1)")
    try:
        async with connection.transaction():
            await connection.execute("DELETE FROM orders")
    except asyncpg.InsufficientPrivilegeError:
        pass
    assert await connection.fetchval("SELECT count(*) FROM orders") == before + 1
    await transaction.rollback()
    ok("a savepoint survives a refusal behind it")

    out = io.BytesIO()
    await connection.copy_from_query("SELECT id, name FROM customers ORDER BY id", output=out)
    assert out.getvalue().startswith(b"1\tAda\n"), out.getvalue()
    ok("copy out")

    transaction = connection.transaction()
    await transaction.start()
    rows = [(1, Decimal(number)) for number in range(1000)]
    await connection.copy_records_to_table("orders", records=rows, columns=["customer_id", "amount"])
    assert await connection.fetchval("SELECT count(*) FROM orders") == before + 1000
    await transaction.rollback()
    ok("copy in")

    out = io.BytesIO()
    await connection.copy_from_table("customers", columns=["id", "name"], output=out, format="binary")
    transaction = connection.transaction()
    await transaction.start()
    out.seek(0)
    await connection.copy_to_table("arrivals", source=out, format="binary")
    assert await connection.fetchval("SELECT name FROM arrivals WHERE id = 1") == "Ada"
    await transaction.rollback()
    ok("binary copy out and in again")

    insert = "INSERT INTO orders (customer_id, amount) VALUES ($1, $2)"
    transaction = connection.transaction()
    await transaction.start()
    await connection.executemany(insert, [(1, Decimal(number)) for number in range(300)])
    assert await connection.fetchval("SELECT count(*) FROM orders") == before + 300
    await transaction.rollback()
    try:
        # The last one names nobody: as all are one pipeline, none is kept.
        await connection.executemany(insert, [(1, Decimal(1)), (2, Decimal(2)), (99, Decimal(3))])
        raise AssertionError("the pipeline did not fail")
    except asyncpg.ForeignKeyViolationError:
        pass
    assert await connection.fetchval("SELECT count(*) FROM orders") == before
    ok("many executions in a pipeline")

    async with connection.transaction():
        seen = [row["id"] async for row in connection.cursor("SELECT id FROM customers ORDER BY id", prefetch=2)]
    assert seen == [1, 2, 3]
    ok("cursors")

    try:
        await connection.execute(endless, timeout=0.3)
        raise AssertionError("not cancelled")
    except asyncio.TimeoutError:
        pass
    assert await connection.fetchval("SELECT 1") == 1
    ok("cancel")
    await connection.close()

    try:
        await asyncpg.connect(password="not-a-token", **settings)
        raise AssertionError("a wrong token was let in")
    except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError) as error:
        assert "not-a-token" not in str(error)
    ok("a wrong token is refused")


asyncio.run(main())
