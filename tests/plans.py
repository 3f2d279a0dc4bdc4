"""Query plans of the statements that the product executes, recorded while it executes them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine.interfaces import DBAPICursor

from gateway.db import SessionPipeline

EXPLAIN: Final = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)"
EXPLAINED: Final = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The plan of a statement as it was executed.

    Attributes:
        buffers: pages that it read or wrote, in memory or not.
        scanned: tables that it read from the first to the last row.
        rows: the most rows that one node of the plan returned.
        discarded: the most rows that one node of the plan read and discarded.
        text: the plan, for a message.
    """

    statement: str
    buffers: int
    scanned: frozenset[str]
    rows: int
    discarded: int
    text: str

    @classmethod
    def of(cls, statement: str, *, root: dict[str, Any]) -> Self:
        nodes = list(_nodes(root))
        return cls(
            statement=statement,
            buffers=root["Shared Hit Blocks"] + root["Shared Read Blocks"],
            scanned=frozenset(
                node["Relation Name"] for node in nodes if node["Node Type"] == "Seq Scan"
            ),
            rows=max(round(node["Actual Rows"] * node["Actual Loops"]) for node in nodes),
            discarded=max(
                round(node.get(reason, 0) * node["Actual Loops"])
                for node in nodes
                for reason in ("Rows Removed by Filter", "Rows Removed by Index Recheck")
            ),
            text="\n".join(_lines(root, depth=0)),
        )


@contextmanager
def recorded() -> Iterator[list[Plan]]:
    """Record the plans of the statements that engines of this process execute in a transaction.

    Each statement is executed twice: explained in a savepoint that is rolled back, then for real.
    """
    plans: list[Plan] = []

    def explain(  # SQLAlchemy's signature
        connection: Connection,
        cursor: DBAPICursor,
        statement: str,
        parameters: Any,  # noqa: ANN401
        _: object,
        __: object,
    ) -> None:
        driver: Any = connection.connection.dbapi_connection
        if driver.autocommit or not statement.lstrip().upper().startswith(EXPLAINED):
            return
        cursor.execute("SAVEPOINT before")
        cursor.execute(
            f"{EXPLAIN} {statement}",
            parameters[0] if isinstance(parameters, list) else parameters,
        )
        ((explained,),) = cursor.fetchall()
        cursor.execute("ROLLBACK TO SAVEPOINT before")
        plans.append(Plan.of(statement, root=explained[0]["Plan"]))

    send = SessionPipeline.send

    async def explain_and_send(
        pipeline: SessionPipeline, statements: Sequence[tuple[str, Mapping[str, Any]]]
    ) -> list[Sequence[Any]]:
        found = []
        for statement, values in statements:
            ((explained,),) = await send(
                pipeline,
                [
                    ("SAVEPOINT before", {}),
                    (f"{EXPLAIN} {statement}", values),
                    ("ROLLBACK TO SAVEPOINT before", {}),
                ],
            )
            plans.append(Plan.of(statement, root=explained[0][0]["Plan"]))
            found += await send(pipeline, [(statement, values)])
        return found

    event.listen(Engine, "before_cursor_execute", explain)
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(SessionPipeline, "send", explain_and_send)
            yield plans
    finally:
        event.remove(Engine, "before_cursor_execute", explain)


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _lines(node: dict[str, Any], *, depth: int) -> Iterator[str]:
    where = node.get("Index Name") or node.get("Relation Name") or ""
    rows = round(node["Actual Rows"] * node["Actual Loops"])
    buffers = node["Shared Hit Blocks"] + node["Shared Read Blocks"]
    removed = node.get("Rows Removed by Filter", 0) * node["Actual Loops"]
    yield f"{'  ' * depth}{node['Node Type']} {where}: {rows} rows, {removed:.0f} discarded, {buffers} buffers"
    for child in node.get("Plans", ()):
        yield from _lines(child, depth=depth + 1)
