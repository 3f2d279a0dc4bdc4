"""Adds the deliveries of events to many endpoints, in parts and in turns of the tenants.

Added with the event, they would take a second, and the events of all tenants wait for it.
"""

import asyncio
from datetime import timedelta
from functools import partial
from typing import Final, Never, Protocol

from notifier import db
from schemas.ids import TenantId
from schemas.runtime import postgres

POLL: Final = timedelta(seconds=1)
"""Longest delay of an event that another process recorded, and could not continue."""


class AddPart(Protocol):
    """`Store.fan_out`."""

    async def __call__(self, *, after: TenantId | None) -> TenantId | None: ...


class FanOuts:
    """Adds parts while there are any."""

    def __init__(self, *, add_part: AddPart) -> None:
        self._add_part = add_part
        self._wake = db.WakeUp()

    def wake(self) -> None:
        """Look for events now."""
        self._wake.call()

    async def run(self) -> Never:
        loop = asyncio.get_running_loop()
        tenant_id: TenantId | None = None
        while True:
            began = loop.time()
            is_first = tenant_id is None
            tenant_id = await postgres.through_outages(
                partial(self._add_part, after=tenant_id), doing="adding deliveries"
            )
            if tenant_id is not None:
                # As long as a part takes: the database also has the events of others.
                await asyncio.sleep(loop.time() - began)
            elif is_first:
                await self._wake.wait(at_most=POLL)
