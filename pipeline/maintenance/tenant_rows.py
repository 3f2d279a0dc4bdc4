"""Deletes the rows of a tenant, in short transactions.

A row goes after the rows that belong to it, so a deletion that is killed leaves no row behind that
nothing leads to.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from sqlalchemy import (
    Column,
    ColumnElement,
    Row,
    Table,
    delete,
    literal,
    literal_column,
    select,
    text,
    tuple_,
)
from sqlalchemy.orm import Session

from pipeline.context import Context
from pipeline.maintenance.exclusive import Budget
from schemas.ids import TenantId
from schemas.tables import tenant_rows

ROWS: Final = 1_000
"""Rows of one transaction."""

PARENTS: Final = 100
"""Rows whose own rows are deleted together before them."""

_COUNT: Final = text(
    """
    UPDATE tenant_deletions
    SET rows = rows || jsonb_build_object(
        cast(:table AS text), coalesce(cast(rows ->> cast(:table AS text) AS bigint), 0) + cast(:number AS bigint)
    )
    WHERE tenant_id = :tenant_id
    """
)

BeforeRows: TypeAlias = Callable[[Sequence[Row[Any]]], None]
"""Deletes what only these rows lead to; gets the primary keys, and the columns that it asked for."""


class BudgetSpent(Exception):
    """The time of the sweep is over; the next one does the rest."""


@dataclass(frozen=True, kw_only=True)
class Before:
    """What is done before rows of a table are deleted."""

    columns: Sequence[Column[Any]]
    prepare: BeforeRows


@dataclass(frozen=True, kw_only=True)
class RowDeletion:
    """Deletes the rows of one tenant.

    Attributes:
        context: the database.
        tenant_id: the tenant.
        budget: the time for this.
        before: by table.
    """

    context: Context
    tenant_id: TenantId
    budget: Budget
    before: Mapping[Table, Before] = field(default_factory=dict)

    def delete_all(self) -> None:
        """Delete every row but that of the tenant itself.

        Raises:
            BudgetSpent: rows are left.
        """
        for table in tenant_rows.roots():
            self._delete(table, column=table.c.tenant_id, values=[self.tenant_id])

    def delete_rest(self, names: Sequence[str]) -> None:
        """Delete rows that no other row of the tenant leads to, from tables with these names.

        Raises:
            BudgetSpent: rows are left.
        """
        for table in tenant_rows.tables():
            if table.name in names and "tenant_id" in table.c:
                self._delete(table, column=table.c.tenant_id, values=[self.tenant_id])

    def _delete(
        self,
        table: Table,
        *,
        column: Column[Any],
        values: Sequence[object],
        condition: ColumnElement[bool] | None = None,
    ) -> None:
        """Delete the rows of a table with some values of a column, and the rows that belong to them."""
        is_meant = column.in_(values) if condition is None else column.in_(values) & condition
        order = tenant_rows.order_by(table, column)
        links = tenant_rows.links_to(table)
        if not links and table not in self.before:
            self._delete_leaves(table, is_meant, order=order)
            return
        (key,) = table.primary_key.columns
        for rows in self._batches(table, is_meant, order=order):
            if table in self.before:
                self.before[table].prepare(rows)
            keys = [row[0] for row in rows]
            for link in links:
                self._delete(
                    link.column.table, column=link.column, values=keys, condition=link.condition
                )
            with self.context.transaction() as session:
                self._execute(session, table, delete(table).where(key.in_(keys)).returning(key))

    def _batches(
        self,
        table: Table,
        is_meant: ColumnElement[bool],
        *,
        order: Sequence[Column[Any]] | None,
    ) -> Iterator[Sequence[Row[Any]]]:
        """Yield rows that are not deleted yet: the primary key, further columns, and the columns of the order."""
        further = self.before[table].columns if table in self.before else ()
        query = select(*table.primary_key.columns, *further, *(order or ())).where(is_meant)
        query = query.order_by(*(order or ())).limit(PARENTS)
        after: Sequence[object] = ()
        while True:
            self._check_time()
            with self.context.transaction() as session:
                rows = session.execute(_after(query, order, after)).all()
            if rows:
                yield rows
            if len(rows) < PARENTS:
                return
            after = rows[-1][-len(order) :] if order else ()

    def _delete_leaves(
        self,
        table: Table,
        is_meant: ColumnElement[bool],
        *,
        order: Sequence[Column[Any]] | None,
    ) -> None:
        key = table.primary_key.columns
        # The planner would expect a tenth of the rows for a limit that it does not know.
        batch = (
            select(*key).where(is_meant).order_by(*(order or ())).limit(literal_column(str(ROWS)))
        )
        after: Sequence[object] = ()
        while True:
            self._check_time()
            some = _after(batch, order, after)
            statement = delete(table).where(tuple_(*key).in_(some)).returning(*(order or key))
            with self.context.transaction() as session:
                rows = self._execute(session, table, statement)
            if len(rows) < ROWS:
                return
            after = max(tuple(row) for row in rows) if order else ()

    def _execute(self, session: Session, table: Table, statement: Any) -> Sequence[Row[Any]]:  # noqa: ANN401  # a DELETE with any columns
        """Delete, and count the rows in the same transaction."""
        rows: Sequence[Row[Any]] = session.execute(statement).all()
        count(session, self.tenant_id, table, number=len(rows))
        return rows

    def _check_time(self) -> None:
        if self.budget.is_spent:
            raise BudgetSpent


def count(session: Session, tenant_id: TenantId, table: Table, *, number: int) -> None:
    """Add to the number of rows that the deletion of a tenant has deleted."""
    if number:
        values = {"tenant_id": tenant_id, "table": table.name, "number": number}
        session.execute(_COUNT, values)


def _after(query: Any, order: Sequence[Column[Any]] | None, after: Sequence[object]) -> Any:  # noqa: ANN401  # a SELECT of any columns
    """Return the query for the rows after those of the last batch.

    A scan from the start would read the index entries of every deleted row again and again.
    """
    if not order or not after:
        return query
    last = (literal(value, each.type) for each, value in zip(order, after, strict=True))
    return query.where(tuple_(*order) > tuple_(*last))
