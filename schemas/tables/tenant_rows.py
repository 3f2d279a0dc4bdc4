"""The rows of a tenant: which tables have them, and which rows are deleted with which.

Both follow from the columns and the foreign keys of the tables, so a new table is included by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, Index, Select, Table, func, select

from schemas.ids import TenantId
from schemas.tables.base import Base, table_of
from schemas.tables.deliveries import Attempt, Delivery
from schemas.tables.events import EventRecord
from schemas.tables.inbox import NOTIFIER, InboxMessage
from schemas.tables.outbox import OutboxMessage
from schemas.tables.steps import TenantSteps
from schemas.tables.tenants import Tenant, TenantUsage
from schemas.tables.webhooks import Webhook

WITHOUT_TENANT: Final = frozenset(
    {
        "audit_log",  # acts of operators: ids and counts, no content
        "checked_events",
        "deliverers",
        "embedding_models",
        "engines",
        "tenant_deletions",  # outlive the tenant
    }
)
"""The tables that have no rows of a tenant."""

_TENANTS: Final = table_of(Tenant)
_BY_TRIGGERS: Final = (table_of(TenantSteps), table_of(TenantUsage))
"""Counters, which the deletion of other rows may add again."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """Rows of a table belong to rows of another one, and are deleted with them.

    Attributes:
        column: has the primary key of the row that it belongs to.
        parent: that primary key.
        condition: holds for every row of the table; makes an index usable.
    """

    column: Column[Any]
    parent: Column[Any]
    condition: ColumnElement[bool] | None = None


def _without_foreign_key() -> Sequence[Link]:
    deliveries, events, inbox = table_of(Delivery), table_of(EventRecord), table_of(InboxMessage)
    return (
        Link(column=deliveries.c.webhook_id, parent=table_of(Webhook).c.id),
        Link(column=table_of(Attempt).c.delivery_id, parent=deliveries.c.id),
        Link(column=inbox.c.event_id, parent=events.c.id, condition=inbox.c.consumer == NOTIFIER),
        Link(column=table_of(OutboxMessage).c.event_id, parent=events.c.id),
    )


@cache
def links() -> Sequence[Link]:
    """Return every link: foreign keys that cascade, and references without a foreign key."""
    by_foreign_key = [
        Link(column=key.parent, parent=key.column)
        for table in Base.metadata.sorted_tables
        for key in sorted(table.foreign_keys, key=lambda key: key.parent.name)
        if key.ondelete == "CASCADE" and key.column.table is not _TENANTS
    ]
    return (*by_foreign_key, *_without_foreign_key())


def links_to(table: Table) -> Sequence[Link]:
    """Return the links of the rows that are deleted with a row of a table."""
    return [link for link in links() if link.parent.table is table]


@cache
def tables() -> Sequence[Table]:
    """Return the tables that have rows of a tenant, with the table of tenants as the last one."""
    found = [
        table
        for table in reversed(Base.metadata.sorted_tables)
        if table.name not in WITHOUT_TENANT and table is not _TENANTS
    ]
    return (*found, _TENANTS)


@cache
def roots() -> Sequence[Table]:
    """Return the tables whose rows belong to the tenant directly, in the order of their deletion.

    The deletion from one table violates no foreign key of the tables after it. The table of tenants
    is not among them.
    """
    linked = {link.column.table for link in links()}
    found = [table for table in tables()[:-1] if table not in linked]
    return sorted(found, key=lambda table: table in _BY_TRIGGERS)


def rows_of(table: Table, tenant_id: TenantId) -> ColumnElement[bool]:
    """Return the condition of the rows of a tenant.

    Raises:
        ValueError: no column of the table leads to a tenant.
    """
    if table is _TENANTS:
        return table.c.id == tenant_id
    if "tenant_id" in table.c:
        return table.c.tenant_id == tenant_id
    for link in links():
        if link.column.table is table and not link.column.nullable:
            of_parent = select(link.parent).where(rows_of(link.parent.table, tenant_id))
            condition = link.column.in_(of_parent)
            return condition if link.condition is None else condition & link.condition
    raise ValueError(f"no column of {table.name} leads to a tenant")


def count(table: Table, tenant_id: TenantId) -> Select[int]:
    """Return the query for the number of rows of a tenant; it reads the whole table if no index helps."""
    return select(func.count()).select_from(table).where(rows_of(table, tenant_id))


def order_by(table: Table, first: Column[Any]) -> Sequence[Column[Any]] | None:
    """Return the columns of an index that has the rows with equal `first` in a total order; None without one."""
    key: list[object] = [*table.primary_key.columns]
    indexes: list[list[object]] = [
        [*index.expressions] for index in table.indexes if not _is_partial(index)
    ]
    usable = [
        columns
        for each in [key, *indexes]
        if set(key) <= set(each)
        and len(columns := [column for column in each if isinstance(column, Column)]) == len(each)
        and columns[0] is first
        and not any(column.nullable for column in columns[1:])
    ]
    return min(usable, key=len, default=None)


def _is_partial(index: Index) -> bool:
    return index.dialect_options["postgresql"]["where"] is not None
