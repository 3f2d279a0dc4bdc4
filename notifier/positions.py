"""The positions of events: the order of the feed.

An event gets its position after its commit. A sequence read inside the event's own transaction
would let a later position become visible first, and a reader that has read it would miss the
event. One transaction at a time assigns positions, and each of its positions is larger than every
position that is visible before it.
"""

import asyncio
from datetime import timedelta
from typing import Final, Never

from sqlalchemy import Text, Uuid, any_, bindparam, cast, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncConnection

from notifier import db
from notifier.liveness import Pulse
from schemas.runtime import postgres
from schemas.settings import RelaySettings
from schemas.tables.events import FEED_CHANNEL, POSITIONS, EventRecord

BATCH: Final = 500
"""Most events of one transaction; bounds how long an event waits for the events before it."""

DEBOUNCE: Final = timedelta(milliseconds=200)
"""Wait after a wake-up: the relay publishes first, and events of the meantime join the batch. A batch
costs about as much as the publication of an event; no reader of the feed needs an event sooner."""

LOCK: Final = "waybill.event_positions"

_TRY_LOCK: Final = select(func.pg_try_advisory_xact_lock(func.hashtextextended(LOCK, 0)))

_NEXT: Final = (
    select(EventRecord.id)
    .where(EventRecord.position.is_(None))
    .order_by(EventRecord.id)
    .limit(bindparam("limit"))
)

_IDS: Final = bindparam("ids", type_=ARRAY(Uuid()))
_ID: Final = func.unnest(_IDS).column_valued("id")
_NUMBERED: Final = select(_ID, POSITIONS.next_value().label("position")).cte("numbered")

_ASSIGN: Final = (
    update(EventRecord)
    .where(
        EventRecord.id == _NUMBERED.c.id,
        # Says the same again, for the planner: with the list it looks each event up by its id. From
        # the join alone, and with statistics older than a burst of events, it reads all of them.
        EventRecord.id == any_(_IDS),
    )
    .values(position=_NUMBERED.c.position)
    .returning(EventRecord.tenant_id)
    .cte("assigned")
)
# Once for each tenant: the gateways wake the requests that wait for its events.
_ASSIGN_AND_NOTIFY: Final = select(
    func.pg_notify(FEED_CHANNEL, cast(_ASSIGN.c.tenant_id, Text))
).group_by(_ASSIGN.c.tenant_id)


async def assign(connection: AsyncConnection, *, limit: int = BATCH) -> int | None:
    """Assign positions to committed events, in the order of their ids, and notify their tenants.

    Args:
        connection: in a transaction, in which nothing else is done: other relays assign no
            positions until it ends.
        limit: most events.

    Returns:
        The number of events; None if another relay assigns positions now.
    """
    # A statement of its own: the next one must see what the last holder of the lock committed.
    if not await connection.scalar(_TRY_LOCK):
        return None
    ids = (await connection.scalars(_NEXT, {"limit": limit})).all()
    if ids:
        await connection.execute(_ASSIGN_AND_NOTIFY, {"ids": ids})
    return len(ids)


class Positions:
    """Assigns positions to events soon after their commit."""

    def __init__(
        self,
        *,
        transaction: db.BeginConnection,
        wake: db.WakeUp,
        pulse: Pulse,
        settings: RelaySettings,
    ) -> None:
        self._transaction = transaction
        self._wake = wake
        self._pulse = pulse
        self._settings = settings

    async def run(self) -> Never:
        while True:
            self._pulse.beat()
            assigned = await postgres.through_outages(
                lambda: db.uninterrupted(self._assign_batch()), doing="assigning positions"
            )
            if assigned != BATCH:
                await self._wake.wait(at_most=self._settings.outbox_poll)
                await asyncio.sleep(DEBOUNCE.total_seconds())

    async def _assign_batch(self) -> int | None:
        async with self._transaction() as connection:
            return await assign(connection)
