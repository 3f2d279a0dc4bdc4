"""The consumer of every dead-letter queue and of `waybill.unrouted`: writes one row per message.

The table survives the broker, and `waybill dead-letters` works on it. `waybill.unrouted` drops its
oldest messages above its length; drained into the table, the queue does not reach that length.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import structlog
from aio_pika.abc import AbstractIncomingMessage, AbstractRobustConnection
from sqlalchemy import bindparam, select, text
from sqlalchemy.dialects.postgresql import insert

from notifier import db
from notifier.consumer import Consumer
from schemas import topology
from schemas.events.envelope import Envelope, MalformedEvent, decode
from schemas.runtime import outages
from schemas.tables.dead_letters import DeadLetter
from schemas.tables.tenant_deletions import TenantDeletion

log = structlog.stdlib.get_logger(__name__)

Row: TypeAlias = Mapping[str, Any]
"""Columns of a `DeadLetter`."""

PREFETCH: Final = 4
"""Messages of one queue in progress at once. There are many queues, and a foreign message may be as
large as the broker allows."""

SOURCES: Final[Mapping[str, str]] = MappingProxyType(
    {topology.dead_letter_queue(name): name for name in topology.CONSUMED}
    | {topology.UNROUTED.name: topology.UNROUTED.name}
)
"""The consumed queues, each with the value of the column `queue`."""

LOGGED: Final = ("queue", "message_id", "event_id", "event_type", "tenant_id", "job_id", "reason")
"""The columns in the log: ids, nothing of the body."""

COUNT_MAX: Final = 2**63 - 1

_ADD: Final = (
    insert(DeadLetter)
    .on_conflict_do_nothing(
        index_elements=[DeadLetter.fingerprint], index_where=text("state = 'waiting'")
    )
    .returning(DeadLetter.id)
)

# Nothing of a deleted tenant comes back.
_DELETED_TENANTS: Final = select(TenantDeletion.tenant_id).where(
    TenantDeletion.tenant_id.in_(bindparam("tenant_ids", expanding=True))
)


class DeadLetterConsumer(Consumer[Row]):
    """Moves dead letters into the database."""

    def __init__(
        self, *, connection: AbstractRobustConnection, transaction: db.BeginConnection
    ) -> None:
        """Create a consumer.

        Args:
            connection: see `Consumer`.
            transaction: begins a transaction.
        """
        super().__init__(connection=connection, queues=tuple(SOURCES), prefetch=PREFETCH)
        self._transaction = transaction

    async def _read(self, message: AbstractIncomingMessage, *, queue: str) -> Row:
        return row_of(message, queue=SOURCES[queue])

    async def _record(self, items: Sequence[Row]) -> None:
        async with self._transaction() as connection:
            owners = [item["tenant_id"] for item in items if item["tenant_id"] is not None]
            found = await connection.execute(_DELETED_TENANTS, {"tenant_ids": owners})
            deleted = {row.tenant_id for row in found}
            kept = [item for item in items if item["tenant_id"] not in deleted]
            added = [await connection.scalar(_ADD, item) for item in kept]
        for item in items:
            if item["tenant_id"] in deleted:
                log.info("dead_letter.of_deleted_tenant", **_facts(item))
        for dead_letter_id, item in zip(added, kept, strict=True):
            if dead_letter_id is None:
                log.info("dead_letter.repeated", **_facts(item))
            else:
                log.error("dead_letter.received", dead_letter_id=dead_letter_id, **_facts(item))

    async def _give_up(self, message: AbstractIncomingMessage, item: Row, error: Exception) -> None:
        # Rejected, the message would be lost: its queue has no dead-letter queue. It stays
        # unacknowledged, and the broker delivers it to the next consumer.
        log.error(
            "dead_letter.not_recorded",
            delivery_tag=message.delivery_tag,
            error=outages.describe(error),
            **_facts(item),
        )


def row_of(message: AbstractIncomingMessage, *, queue: str) -> Row:
    """Return the row of a message. Every message has one, whatever its publisher wrote.

    Args:
        message: the message.
        queue: the value of the column `queue`.
    """
    event = _event(message.body)
    death = _last_death(message.headers, queue=queue)
    row = {
        "queue": queue,
        "message_id": _text(message.message_id),
        "event_id": event and event.id,
        "event_type": event and event.type,
        "tenant_id": event and event.tenantid,
        "job_id": event and event.job_id,
        "body": message.body,
        "headers": _json(message.headers),
        "content_type": _text(message.content_type),
        "reason": _reason(death, queue=queue),
        "deaths": _count(death),
        "dead_lettered_at": _time(death),
    }
    return row | {"fingerprint": _fingerprint(row)}


def _event(body: bytes) -> Envelope | None:
    try:
        return decode(body)
    except MalformedEvent:
        return None


def _last_death(headers: Mapping[str, Any], *, queue: str) -> Mapping[str, Any]:
    """Return the broker's record of the dead-lettering; the retry tiers write records too."""
    deaths = headers.get("x-death")
    for death in deaths if isinstance(deaths, list) else ():
        if isinstance(death, Mapping) and death.get("queue") == queue:
            return death
    return {}


def _reason(death: Mapping[str, Any], *, queue: str) -> str:
    if queue == topology.UNROUTED.name:
        return "unrouted"
    reason = death.get("reason")
    return str(_text(reason)) if isinstance(reason, str) else "unknown"


def _count(death: Mapping[str, Any]) -> int:
    count = death.get("count")
    return count if isinstance(count, int) and 0 <= count <= COUNT_MAX else 0


def _time(death: Mapping[str, Any]) -> datetime | None:
    time = death.get("time")
    return time if isinstance(time, datetime) else None


def _fingerprint(row: Row) -> bytes:
    """Return a digest that is equal for two deliveries of one message.

    Messages without an id that have the same body and died in the same second have the same
    fingerprint: their row holds all that there is to replay.
    """
    facts = (row["queue"], row["message_id"], str(row["dead_lettered_at"]), row["deaths"])
    return hashlib.sha256(json.dumps(facts).encode() + row["body"]).digest()


def _text(value: str | None) -> str | None:
    # PostgreSQL refuses the character NUL in text and in JSON.
    return None if value is None else value.replace("\x00", "\ufffd")


def _json(value: object) -> Any:  # noqa: ANN401  # any JSON value
    """Return an AMQP value as a JSON value that PostgreSQL accepts."""
    match value:
        case None | bool() | int():
            return value
        case float() if math.isfinite(value):
            return value
        case Mapping():
            return {str(_json(key)): _json(each) for key, each in value.items()}
        case list():
            return [_json(each) for each in value]
        case bytes() | bytearray():
            return _text(value.decode(errors="replace"))
    return _text(str(value))


def _facts(row: Row) -> Mapping[str, str | None]:
    return {name: None if row[name] is None else str(row[name]) for name in LOGGED}
