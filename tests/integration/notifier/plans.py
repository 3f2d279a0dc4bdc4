"""The plans by which the database executes the statements of the notifier."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeAlias

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

Node: TypeAlias = dict[str, Any]


async def plans_of(
    engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[object]]
) -> list[Node]:
    """Return the executed plan of each statement of `work`, and leave the rows unchanged."""
    statements: list[tuple[str, Any]] = []

    def note(_: object, __: object, statement: str, parameters: object, *___: object) -> None:
        statements.append((statement, parameters))

    async with engine.connect() as connection:
        event.listen(engine.sync_engine, "before_cursor_execute", note)
        try:
            await work(connection)
        finally:
            event.remove(engine.sync_engine, "before_cursor_execute", note)
        await connection.rollback()
        plans = []
        for statement, parameters in statements:
            answer = await connection.exec_driver_sql(
                f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters
            )
            plans.append(answer.scalar_one()[0]["Plan"])
        await connection.rollback()
    return plans


def nodes(plan: Node) -> Iterator[Node]:
    """Yield every node of a plan."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


def reads_of_events(plan: Node) -> list[Node]:
    """Return the nodes that read a partition of `events`, also those never executed."""
    return [
        node
        for node in nodes(plan)
        if str(node.get("Relation Name", "")).startswith("events_")
        and node["Node Type"] != "ModifyTable"
    ]


def rows_read(read: Node) -> int:
    """Return how many rows a node has read, also those that it has dropped."""
    dropped = read.get("Rows Removed by Filter", 0)
    return int((read["Actual Rows"] + dropped) * read["Actual Loops"])
