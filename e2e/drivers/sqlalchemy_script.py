"""SQLAlchemy through the gateway: each check prints `ok <what holds>`; the first that fails ends the script."""

import asyncio
import os
import ssl

from sqlalchemy import URL, ForeignKey, MetaData, create_engine, func, inspect, select, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship


def ok(what):
    print("ok", what, flush=True)


def url(driver, **query):
    return URL.create(
        f"postgresql+{driver}",
        username=os.environ["SALLYPORT_USER"],
        password=os.environ["SALLYPORT_TOKEN"],
        host=os.environ["SALLYPORT_HOST"],
        port=int(os.environ["SALLYPORT_PORT"]),
        database=os.environ["SALLYPORT_DATABASE"],
        query=query,
    )


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey(Customer.id))
    amount: Mapped[int]
    customer: Mapped[Customer] = relationship()


verified = {"sslmode": "verify-full", "sslrootcert": os.environ["SALLYPORT_CA"]}
for driver in ("psycopg", "psycopg2"):
    engine = create_engine(url(driver, **verified), pool_size=2, pool_pre_ping=True)
    assert {"customers", "orders", "payroll"} <= set(inspect(engine).get_table_names())
    found = MetaData()
    found.reflect(engine)
    assert [key.column.table.name for key in found.tables["orders"].foreign_keys] == ["customers"]
    ok(f"{driver}: reflection of tables and keys")

    with Session(engine) as session:
        order = Order(customer=session.get(Customer, 1), amount=7)
        session.add(order)
        session.flush()
        assert session.scalar(select(Customer.name).join(Order).where(Order.id == order.id)) == "Ada"
        session.add_all([Order(customer_id=2, amount=n) for n in range(50)])
        session.flush()
        try:
            with session.begin_nested():
                session.execute(text("SELECT * FROM payroll"))
            raise AssertionError("not refused")
        except ProgrammingError as error:
            assert error.orig.sqlstate == "42501" if driver == "psycopg" else error.orig.pgcode == "42501"
        assert session.scalar(select(func.count()).select_from(Order).where(Order.id >= order.id)) == 51
        session.rollback()
    ok(f"{driver}: objects, many rows at once, and a savepoint that survives a refusal")

    with engine.connect().execution_options(stream_results=True, yield_per=10) as connection:
        assert len(connection.execute(select(Order.id)).all()) == 100
    with engine.connect().execution_options(isolation_level="SERIALIZABLE") as connection:
        assert connection.scalar(text("SHOW transaction_isolation")) == "serializable"
    ok(f"{driver}: rows by a cursor of the server, and levels of isolation")
    engine.dispose()


async def asynchronous():
    context = ssl.create_default_context(cafile=os.environ["SALLYPORT_CA"])
    engine = create_async_engine(url("asyncpg"), connect_args={"ssl": context})
    async with engine.connect() as connection:
        names = await connection.run_sync(lambda each: inspect(each).get_table_names())
        assert "orders" in names
        assert (await connection.execute(select(func.count()).select_from(Order))).scalar() == 100
        stream = await connection.stream(select(Order.id))
        assert len([row async for row in stream]) == 100
    await engine.dispose()


asyncio.run(asynchronous())
ok("asyncpg: reflection, statements and streams")
