"""Seeds a database, and removes what was seeded."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from sqlalchemy import ColumnElement, Connection, Delete, Engine, Table, create_engine, select
from sqlalchemy.pool import NullPool

from dev.seed import statements
from dev.seed.extent import Extent
from schemas.tables import Base
from schemas.tables.deliveries import Delivery
from schemas.tables.events import EventRecord
from schemas.tables.tenants import Tenant
from schemas.tables.uploads import Upload

TENANTS: Final = Tenant.name.startswith("seed-")
"""The tenants that own everything that is seeded."""

Report = Callable[[str], None]


class SeedRefused(RuntimeError):
    """The database is seeded already, or has uploads of other tenants."""


def silent(_: str) -> None:
    """Ignore progress."""


def seed(
    database_url: str, extent: Extent, *, force: bool = False, report: Report = silent
) -> None:
    """Fill every table in one transaction, then vacuum and analyze the tables.

    Triggers and foreign keys are off meanwhile, so the role must be a superuser. The counters that
    triggers keep are computed at the end.

    Args:
        database_url: as in the settings of a service.
        extent: how much.
        force: seed beside the uploads of other tenants.
        report: takes a line for each table.

    Raises:
        SeedRefused: the database is seeded already; or it has uploads of other tenants, and
            `force` is not set.
    """
    engine = _engine(database_url)
    with engine.begin() as connection:
        _check(connection, force=force)
        connection.exec_driver_sql(statements.PARTITIONS, extent.values)
    with _load(engine) as connection:
        connection.exec_driver_sql(statements.FUNCTIONS, extent.values)
        with timed("facts", report):
            connection.exec_driver_sql(statements.JOBS, extent.values)
        for table, statement in statements.TABLES.items():
            with timed(table, report):
                connection.exec_driver_sql(statement, extent.values)
    _vacuum(engine, report=report)


def remove(database_url: str, *, report: Report = silent) -> None:
    """Delete the seeded tenants with everything that they own.

    Args:
        database_url: as in the settings of a service.
        report: takes a line for each table.
    """
    engine = _engine(database_url)
    with _load(engine) as connection:
        for table, statement in removals().items():
            with timed(table, report):
                connection.execute(statement)
    _vacuum(engine, report=report)


def removals() -> dict[str, Delete]:
    """Return by table the statements that delete what seeded tenants own, the tenants last.

    A row without an owner of its own is deleted before the row that it belongs to.
    """
    tables = reversed(Base.metadata.sorted_tables)
    owned = [(table, condition) for table in tables if (condition := _owned(table)) is not None]
    owned.sort(key=lambda each: (each[0] is Tenant.__table__, "tenant_id" in each[0].c))
    return {table.name: table.delete().where(condition) for table, condition in owned}


def _owned(table: Table) -> ColumnElement[bool] | None:
    """Return the condition of the rows of seeded tenants; None for a table without an owner."""
    if table is Tenant.__table__:
        return TENANTS
    if "tenant_id" in table.c:
        return table.c.tenant_id.in_(select(Tenant.id).where(TENANTS))
    # A row may be without the owner that a nullable key names; a set has no order.
    for key in sorted(
        table.foreign_keys, key=lambda each: (each.parent.nullable, each.parent.name)
    ):
        condition = _owned(key.column.table)
        if condition is not None:
            return key.parent.in_(select(key.column).where(condition))
    if "delivery_id" in table.c:
        mine = select(Delivery.id).where(Delivery.tenant_id.in_(select(Tenant.id).where(TENANTS)))
        return table.c.delivery_id.in_(mine)
    if "event_id" in table.c:
        owner = select(Tenant.id).where(TENANTS)
        return table.c.event_id.in_(select(EventRecord.id).where(EventRecord.tenant_id.in_(owner)))
    return None


def _check(connection: Connection, *, force: bool) -> None:
    if connection.scalar(select(Tenant.id).where(TENANTS).limit(1)) is not None:
        raise SeedRefused("the database is seeded already; --remove deletes the seeded tenants")
    others = select(Upload.id).join(Tenant, Tenant.id == Upload.tenant_id).where(~TENANTS).limit(1)
    if not force and connection.scalar(others) is not None:
        raise SeedRefused("the database has uploads of other tenants; --force seeds beside them")


def _engine(database_url: str) -> Engine:
    return create_engine(
        database_url,
        poolclass=NullPool,
        # The server binds no values in statements that create a table or a function.
        connect_args={"cursor_factory": psycopg.ClientCursor},
    )


@contextmanager
def _load(engine: Engine) -> Iterator[Connection]:
    """Yield a connection in a transaction without triggers."""
    with engine.connect() as connection:
        # Before the first use of a temporary table.
        connection.exec_driver_sql("SET temp_buffers = '256MB'")
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.exec_driver_sql("SET LOCAL work_mem = '256MB'")
        connection.exec_driver_sql("SET LOCAL enable_mergejoin = off")
        yield connection
        connection.commit()


def _vacuum(engine: Engine, *, report: Report) -> None:
    """Vacuum every table; otherwise the first reads would write the hint bits of every row."""
    names = ", ".join(table.name for table in Base.metadata.sorted_tables)
    with (
        timed("vacuum", report),
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
    ):
        connection.exec_driver_sql(f"VACUUM (ANALYZE) {names}")


@contextmanager
def timed(what: str, report: Report) -> Iterator[None]:
    began = time.monotonic()
    yield
    report(f"{what}: {time.monotonic() - began:.1f} s")
