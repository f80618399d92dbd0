"""Alembic through the gateway: each check prints `ok <what holds>`; the first that fails ends the script."""

import os

from alembic.autogenerate import compare_metadata, produce_migrations
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import URL, Enum, ForeignKey, Identity, MetaData, Numeric, String, create_engine, func, select, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload


def ok(what):
    print("ok", what, flush=True)


def engine_as(token, driver="psycopg"):
    url = URL.create(
        f"postgresql+{driver}",
        username=os.environ["SALLYPORT_USER"],
        password=os.environ[token],
        host=os.environ["SALLYPORT_HOST"],
        port=int(os.environ["SALLYPORT_PORT"]),
        database=os.environ["SALLYPORT_DATABASE"],
        query={"sslmode": "verify-full", "sslrootcert": os.environ["SALLYPORT_CA"]},
    )
    return create_engine(url, pool_pre_ping=True)


class Base(DeclarativeBase):
    metadata = MetaData(schema="sales")


class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    email: Mapped[str | None] = mapped_column(index=True)
    purchases: Mapped[list["Purchase"]] = relationship(back_populates="customer")


class Purchase(Base):
    __tablename__ = "purchases"
    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey(Customer.id, ondelete="CASCADE"))
    amount: Mapped[object] = mapped_column(Numeric(10, 2))
    state: Mapped[str] = mapped_column(Enum("new", "paid", name="purchase_state", schema="sales"))
    data: Mapped[dict] = mapped_column(JSONB, server_default="{}")
    tags: Mapped[list[str]] = mapped_column(ARRAY(String), server_default="{}")
    customer: Mapped[Customer] = relationship(back_populates="purchases")


options = {
    "compare_type": True,
    "include_schemas": True,
    "include_name": lambda name, kind, parents: kind != "schema" or name == "sales",
}
deployment = engine_as("SALLYPORT_DEPLOYMENT")


def apply(operations, context):
    for operation in operations.ops:
        if hasattr(operation, "ops"):
            apply(operation, context)
        else:
            Operations(context).invoke(operation)


with deployment.begin() as connection:
    connection.execute(text("CREATE SCHEMA sales"))
    context = MigrationContext.configure(connection, opts=options)
    made = produce_migrations(context, Base.metadata)
    apply(made.upgrade_ops, context)
    # In the same transaction: what was made a moment ago is in no catalog that others see.
    assert compare_metadata(context, Base.metadata) == []
with deployment.connect() as connection:
    assert compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata) == []
ok("a generated migration, and nothing is left to generate")

with deployment.begin() as connection:
    operations = Operations(MigrationContext.configure(connection, opts=options))
    operations.alter_column("customers", "name", type_=String(80), schema="sales")
    operations.execute("UPDATE sales.customers SET email = 'none' WHERE email IS NULL AND id > 0")
    operations.create_check_constraint("positive", "purchases", "amount >= 0", schema="sales")
with deployment.connect() as connection:
    [[difference]] = compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata)
    assert difference[0] == "modify_type" and difference[3] == "name", difference
ok("what somebody changed is found")

for driver in ("psycopg", "psycopg2"):
    engine = engine_as("SALLYPORT_APPLICATION", driver)
    with Session(engine) as session, session.begin():
        session.add_all(
            Customer(name=f"{driver} {n}", purchases=[Purchase(amount=n, state="new", tags=["a"])]) for n in range(30)
        )
        session.flush()
        renewed = insert(Customer).values(name=f"{driver} 1").on_conflict_do_update(
            index_elements=["name"], set_={"email": "one@example.com"}
        )
        assert session.scalars(renewed.returning(Customer.email)).all() == ["one@example.com"]
        found = session.scalars(select(Customer).options(selectinload(Customer.purchases)).where(Customer.name.like(f"{driver}%")))
        assert sum(len(customer.purchases) for customer in found) == 30
        [paid] = session.scalars(select(Purchase).join(Customer).where(Customer.name == f"{driver} 3").with_for_update())
        paid.state, paid.data = "paid", {"by": "card"}
    with Session(engine) as session:
        assert session.scalar(select(func.count()).where(Purchase.data["by"].astext == "card")) > 0
        try:
            session.execute(text("DELETE FROM sales.purchases"))
            raise AssertionError("not refused")
        except ProgrammingError as error:
            assert "name the rows that you mean" in str(error)
    # A pool gives a connection back as it was: read-only for one user, not for the next.
    for isReadOnly in ("on", "off"):
        options_of = {"postgresql_readonly": isReadOnly == "on", "isolation_level": "AUTOCOMMIT"}
        with engine.connect().execution_options(**options_of) as connection:
            assert connection.scalar(text("SELECT count(*) FROM sales.customers")) > 0
    engine.dispose()
    ok(f"{driver}: an application's objects, and a refusal")

with deployment.begin() as connection:
    context = MigrationContext.configure(connection, opts=options)
    Operations(context).drop_constraint("positive", "purchases", schema="sales")
    apply(made.downgrade_ops, context)
    # Not CASCADE: nothing may be left in it.
    connection.execute(text("DROP SCHEMA sales"))
ok("the way back, to the last schema")
