"""The log of an endpoint, newest events first, page by page.

The id of a delivery begins with the time of its event, so the rows are read in the order of their
ids, and bounds of time are bounds of ids. Failed deliveries have an index of their own; the other
filters are checked on at most `SCANNED_MAX` rows. A page may therefore have fewer items than its
limit, and even none, and still name a next page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec
from sqlalchemy import ColumnElement, Uuid, and_, any_, bindparam, select, text, true
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.deliveries import queries
from gateway.http import paging
from schemas.api.deliveries import DeliveryView
from schemas.api.paging import PageOf
from schemas.ids import DeliveryId, EventId, TenantId, WebhookId, first_uuid7
from schemas.lifecycle import FAILED_DELIVERIES, DeliveryStatus
from schemas.tables.deliveries import IS_FAILED, Delivery, delivery_id_of, delivery_ids_of

SCANNED_MAX: Final = 400
"""Rows that one call reads; more than the largest default page."""


class Position(msgspec.Struct, frozen=True, array_like=True):
    """A position among deliveries, in the order of their ids."""

    id: DeliveryId


@dataclass(frozen=True, kw_only=True)
class Filters:
    """The filters of a log; None selects everything.

    Attributes:
        since: first time of the event.
        until: the event is older.
    """

    status: DeliveryStatus | None = None
    event_type: str | None = None
    event_id: EventId | None = None
    since: datetime | None = None
    until: datetime | None = None


async def page_of_endpoint(
    session: AsyncSession,
    filters: Filters,
    *,
    webhook_id: WebhookId,
    cursor: str | None,
    limit: int,
) -> PageOf[DeliveryView]:
    """Return a page of an endpoint's deliveries, newest events first.

    Raises:
        InvalidRequest: the cursor is malformed or belongs to another list.
    """
    index = [Delivery.webhook_id == webhook_id]
    others = []
    if filters.status is not None:
        others.append(Delivery.status == filters.status)
    if filters.status in FAILED_DELIVERIES:
        index.append(text(IS_FAILED))  # type: ignore[arg-type]  # the condition of the index
    if filters.event_type is not None:
        others.append(Delivery.event_type == filters.event_type)
    if filters.event_id is not None:
        index.append(Delivery.id == delivery_id_of(filters.event_id, webhook_id))
    if filters.since is not None:
        index.append(Delivery.id >= first_uuid7(filters.since))
    if filters.until is not None:
        index.append(Delivery.id < first_uuid7(filters.until))
    return await _page(session, index=index, others=others, cursor=cursor, limit=limit)


async def page_of_event(
    session: AsyncSession,
    *,
    tenant_id: TenantId,
    event_id: EventId,
    cursor: str | None,
    limit: int,
) -> PageOf[DeliveryView]:
    """Return a page of an event's deliveries, in the reverse order of their ids.

    Raises:
        InvalidRequest: the cursor is malformed or belongs to another list.
    """
    first, last = delivery_ids_of(event_id)
    return await _page(
        session,
        index=[Delivery.id >= first, Delivery.id <= last],
        # Another event of the same millisecond may have the same first half.
        others=[Delivery.tenant_id == tenant_id, Delivery.event_id == event_id],
        cursor=cursor,
        limit=limit,
    )


async def _page(
    session: AsyncSession,
    *,
    index: Sequence[ColumnElement[bool]],
    others: Sequence[ColumnElement[bool]],
    cursor: str | None,
    limit: int,
) -> PageOf[DeliveryView]:
    """Return the next page.

    Args:
        session: a transaction.
        index: the conditions that an index finds.
        others: the conditions that are checked on each row.
        cursor: of the page before.
        limit: most deliveries.
    """
    after = paging.decode(cursor, to=Position)
    count = max(SCANNED_MAX, limit) if others else limit
    # The ids alone come first: the planner then reads them from the index of the endpoint, not the
    # deliveries of all endpoints in the order of their ids.
    walk = select(Delivery.id).where(*index)
    if after is not None:
        walk = walk.where(Delivery.id < after.id)
    ids = (await session.scalars(walk.order_by(Delivery.id.desc()).limit(count + 1))).all()
    rows = (
        select(Delivery, and_(true(), *others).label("is_match"))
        .where(Delivery.id == any_(bindparam("ids", list(ids), type_=ARRAY(Uuid()))))
        .order_by(Delivery.id.desc())
    )
    scanned = (await session.execute(rows)).all()
    shown, last = paging.matches_of(scanned, scanned_max=count, limit=limit)
    return PageOf(
        items=await queries.show_all(session, [row.Delivery for row in shown]),
        next_cursor=None if last is None else paging.encode(Position(id=last.Delivery.id)),
    )
