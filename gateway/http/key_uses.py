"""Records when each API key was last used, off the path of requests."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from gateway.db import Database
from schemas.ids import ApiKeyId

log = structlog.stdlib.get_logger(__name__)

INTERVAL: Final = timedelta(minutes=1)
WRITE_TIMEOUT: Final = timedelta(seconds=5)

# A row that another gateway locks gets that gateway's time, which is as good. Waiting for it could
# end in a deadlock, because two gateways write overlapping sets of keys.
_WRITE: Final = text(
    """
    WITH used AS (
        SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:ages AS float8[])) AS used (id, age)
    ), free AS (
        SELECT id FROM api_keys WHERE id = ANY(CAST(:ids AS uuid[])) FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE api_keys
    SET last_used_at = greatest(last_used_at, now() - make_interval(secs => age))
    FROM used JOIN free USING (id)
    WHERE api_keys.id = used.id
    """
)


class KeyUses:
    """The newest use of each key, written for all keys at once, once per `INTERVAL`.

    A crash loses the uses of the last interval, and a failed write is repeated with the next one:
    `last_used_at` helps an operator and decides nothing.

    Args:
        monotonic: a clock in seconds that is never set back.
    """

    def __init__(self, *, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._used_at: dict[ApiKeyId, float] = {}

    def note(self, key_id: ApiKeyId) -> None:
        self._used_at[key_id] = self._monotonic()

    @asynccontextmanager
    async def written_to(
        self, database: Database, *, interval: timedelta = INTERVAL
    ) -> AsyncIterator[None]:
        """Write the uses until the block ends, and once more at its end."""
        writer = asyncio.create_task(self._repeat(database, interval), name="key-uses-writer")
        try:
            yield
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            await self.write(database)

    async def _repeat(self, database: Database, interval: timedelta) -> None:
        while True:
            await asyncio.sleep(interval.total_seconds())
            await self.write(database)

    async def write(self, database: Database) -> None:
        """Write the uses since the last write; an error is logged."""
        used_at, self._used_at = self._used_at, {}
        if not used_at:
            return
        now = self._monotonic()
        values = {"ids": list(used_at), "ages": [now - at for at in used_at.values()]}
        try:
            async with asyncio.timeout(WRITE_TIMEOUT.total_seconds()):
                async with database.transaction() as session:
                    await session.execute(_WRITE, values)
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            log.warning("api_keys.uses_not_written", error=type(error).__name__)
            self._used_at = used_at | self._used_at
