"""Ends the waits and streams of API keys that are no longer valid.

A request is authenticated when it begins, and a stream lasts as long as its job.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final, Never

import structlog

from gateway.db import Database
from gateway.http.security import ended_keys
from gateway.http.wait_limit import KeyWaits
from schemas.runtime import postgres

log = structlog.stdlib.get_logger(__name__)

INTERVAL_MIN: Final = timedelta(seconds=1)


@asynccontextmanager
async def ending_waits(
    waits: KeyWaits, database: Database, *, interval: timedelta
) -> AsyncIterator[None]:
    """Look at the keys with waits in one statement per interval, until the block ends.

    Args:
        waits: of this process.
        database: holds the keys.
        interval: how long a wait may outlast its key, but at least `INTERVAL_MIN`.
    """
    watch = asyncio.create_task(
        _watch(waits, database, max(interval, INTERVAL_MIN)), name="ended-keys-watch"
    )
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)


async def _watch(waits: KeyWaits, database: Database, interval: timedelta) -> Never:
    while True:
        await asyncio.sleep(interval.total_seconds())
        if not waits.key_ids:
            continue
        try:
            async with database.transaction() as session:
                ended = await ended_keys(session, list(waits.key_ids))
        except Exception as error:
            # An error that ended this task would let every stream outlast its key. The job watch
            # already logs outages.
            if not postgres.is_outage(error):
                log.exception("api_keys.look_failed")
            continue
        for key_id in ended:
            log.info("api_keys.waits_ended", key_id=str(key_id))
            waits.end(key_id)
