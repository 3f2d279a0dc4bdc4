"""Connections that each serve one kind of statements of the delivery."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, LiteralString

import psycopg

from notifier.delivery.statements import arrays
from schemas.runtime import postgres

# Every statement reads by an index, with parameters that the plan does not depend on. A new
# partition has no statistics; a plan that scans it would be kept until it has some.
_CONFIGURE: Final = (
    "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off"
)


class DedicatedConnection:
    """A connection for one statement at a time; opened when it is first used, and after a failure.

    Statements are prepared once per connection: planning one for partitioned tables takes longer
    than its execution.
    """

    def __init__(self, connect: postgres.Connect) -> None:
        self._connect = connect
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._lock = asyncio.Lock()

    async def rows(
        self, statement: LiteralString, values: Mapping[str, Any]
    ) -> Sequence[tuple[Any, ...]]:
        """Run a statement as a transaction of its own, and return its rows."""
        async with self._in_use() as connection:
            cursor = await connection.execute(statement, values, prepare=True, binary=True)
            return await cursor.fetchall() if cursor.description else ()

    async def close(self) -> None:
        async with self._lock:
            if self._connection is not None:
                await self._connection.close()

    @asynccontextmanager
    async def _in_use(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        async with self._lock:
            connection = self._connection
            if connection is not None and postgres.is_closed(connection):
                await connection.close()
                connection = None
            if connection is None:
                connection = self._connection = await self._open()
            try:
                yield connection
            except BaseException:
                # After a cancellation the answer would go to the next statement.
                await connection.close()
                raise

    async def _open(self) -> psycopg.AsyncConnection[Any]:
        connection = await self._connect()
        try:
            await connection.execute(_CONFIGURE)
            arrays.register(connection)
        except BaseException:
            await connection.close()
            raise
        return connection
