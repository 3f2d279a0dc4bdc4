"""Lists, shows, replays and drops dead letters. The process `deliver` writes their rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from gateway.administration import audit, masking
from gateway.db import Database
from schemas import topology
from schemas.events.envelope import Envelope, MalformedEvent, decode
from schemas.lifecycle import DeadLetterState
from schemas.tables.dead_letters import DeadLetter
from schemas.tables.events import EventRecord
from schemas.tables.outbox import OutboxMessage

BATCH: Final = 200
"""Dead letters of one transaction when all of a queue are replayed or dropped."""


class DeadLetterRefused(Exception):
    """The command is refused; nothing was changed."""


class DeadLetterUnknown(DeadLetterRefused):
    """No dead letter has this id."""

    def __init__(self, *ids: int) -> None:
        super().__init__(f"there is no dead letter {', '.join(map(str, ids))}")


class DeadLetterSettled(DeadLetterRefused):
    """The dead letter is already replayed or dropped."""

    def __init__(self, letter: DeadLetter) -> None:
        super().__init__(
            f"dead letter {letter.id} was {letter.state} at {_in_utc(letter.settled_at)}"
        )


class CannotReplay(DeadLetterRefused):
    """The body is not an event, or the queue does not exist any more."""

    def __init__(self, letter: DeadLetter, reason: str) -> None:
        super().__init__(
            f"dead letter {letter.id} cannot be replayed: {masking.excerpt(reason.encode())}."
            f" `waybill dead-letters show {letter.id}` prints its body; `drop` settles it"
        )


@dataclass(frozen=True, kw_only=True)
class Settled:
    """The result of a replay or drop.

    Attributes:
        count: dead letters that were replayed or dropped.
        refused: the reasons for which others keep waiting.
    """

    count: int = 0
    refused: Sequence[str] = ()

    def __add__(self, other: "Settled") -> "Settled":
        return Settled(count=self.count + other.count, refused=(*self.refused, *other.refused))


async def listed(
    session: AsyncSession,
    *,
    state: DeadLetterState,
    queue: str | None = None,
    event_type: str | None = None,
    before: int | None = None,
    limit: int,
) -> Sequence[DeadLetter]:
    """Return dead letters without body and headers, newest first.

    Args:
        session: the session.
        state: the state.
        queue: the work queue, or `waybill.unrouted`.
        event_type: the event type.
        before: return only dead letters older than the one with this id.
        limit: most dead letters to return.

    Raises:
        DeadLetterUnknown: no dead letter has the id `before`.
    """
    query = (
        select(DeadLetter)
        .options(defer(DeadLetter.body), defer(DeadLetter.headers))
        .where(DeadLetter.state == state)
        .order_by(DeadLetter.received_at.desc(), DeadLetter.id.desc())
        .limit(limit)
    )
    if queue is not None:
        query = query.where(DeadLetter.queue == queue)
    if event_type is not None:
        query = query.where(DeadLetter.event_type == event_type)
    if before is not None:
        last = await find(session, before)
        query = query.where(
            tuple_(DeadLetter.received_at, DeadLetter.id) < (last.received_at, last.id)
        )
    return (await session.scalars(query)).all()


async def find(session: AsyncSession, letter_id: int) -> DeadLetter:
    """Return a dead letter.

    Raises:
        DeadLetterUnknown: no dead letter has this id.
    """
    letter = await session.get(DeadLetter, letter_id)
    if letter is None:
        raise DeadLetterUnknown(letter_id)
    return letter


def summary(letter: DeadLetter) -> dict[str, Any]:
    """Return what a list shows of a dead letter, as JSON."""
    texts = {
        "queue": letter.queue,
        "state": letter.state,
        "reason": letter.reason,
        "event_type": letter.event_type,
        "event_id": letter.event_id,
        "tenant_id": letter.tenant_id,
        "job_id": letter.job_id,
        "dead_lettered_at": _in_utc(letter.dead_lettered_at),
        "received_at": _in_utc(letter.received_at),
        "settled_at": _in_utc(letter.settled_at),
    }
    return {
        "id": letter.id,
        "deaths": letter.deaths,
        **{name: None if each is None else _shown(str(each)) for name, each in texts.items()},
    }


def details(letter: DeadLetter) -> dict[str, Any]:
    """Return everything about a dead letter, as JSON without secrets.

    `body` is the body's JSON value; `body_text` is the beginning of any other body.
    """
    body = masking.as_json(letter.body)
    return {
        **summary(letter),
        "message_id": letter.message_id and _shown(letter.message_id),
        "content_type": letter.content_type and _shown(letter.content_type),
        "headers": masking.masked(letter.headers),
        "body_bytes": len(letter.body),
        "body": body,
        "body_text": masking.excerpt(letter.body) if body is None else None,
    }


async def replay(session: AsyncSession, ids: Sequence[int], *, actor: str) -> Settled:
    """Publish the events of dead letters again, all or none.

    A consumer may get an event twice; it applies the event once.

    Raises:
        DeadLetterUnknown: no dead letter has one of the ids.
        DeadLetterSettled: one of them is already replayed or dropped.
        CannotReplay: one of them is not an event, or its queue does not exist any more.
    """
    letters = await _waiting(session, ids)
    for letter in letters:
        await _publish(session, letter)
    return await _settle(session, letters, state=DeadLetterState.REPLAYED, actor=actor)


async def drop(session: AsyncSession, ids: Sequence[int], *, actor: str) -> Settled:
    """Give up dead letters, all or none; their rows stay until their retention time is over.

    Raises:
        DeadLetterUnknown: no dead letter has one of the ids.
        DeadLetterSettled: one of them is already replayed or dropped.
    """
    letters = await _waiting(session, ids)
    return await _settle(session, letters, state=DeadLetterState.DROPPED, actor=actor)


async def replay_all(database: Database, *, queue: str, actor: str) -> Settled:
    """Publish the events of a queue's waiting dead letters again; see `replay`.

    Dead letters that cannot be replayed keep waiting.
    """
    return await _settle_all(database, queue=queue, state=DeadLetterState.REPLAYED, actor=actor)


async def drop_all(database: Database, *, queue: str, actor: str) -> Settled:
    """Give up a queue's waiting dead letters; see `drop`."""
    return await _settle_all(database, queue=queue, state=DeadLetterState.DROPPED, actor=actor)


async def _settle_all(
    database: Database, *, queue: str, state: DeadLetterState, actor: str
) -> Settled:
    async with database.transaction() as session:
        # A replayed event that is dead-lettered again has a larger id, and is not replayed again.
        newest = await session.scalar(select(func.max(DeadLetter.id))) or 0
    total, after = Settled(), 0
    while True:
        async with database.transaction() as session:
            letters = (
                await session.scalars(
                    select(DeadLetter)
                    .where(
                        DeadLetter.queue == queue,
                        DeadLetter.state == DeadLetterState.WAITING,
                        DeadLetter.id > after,
                        DeadLetter.id <= newest,
                    )
                    .order_by(DeadLetter.id)
                    .limit(BATCH)
                    # Another command settles those that are locked.
                    .with_for_update(skip_locked=True)
                )
            ).all()
            if not letters:
                return total
            after = letters[-1].id
            refused: list[str] = []
            if state is DeadLetterState.REPLAYED:
                letters, refused = await _publish_events(session, letters)
            settled = await _settle(session, letters, state=state, actor=actor)
            total += Settled(count=settled.count, refused=refused)


async def _publish_events(
    session: AsyncSession, letters: Sequence[DeadLetter]
) -> tuple[Sequence[DeadLetter], list[str]]:
    """Publish what can be replayed; return it, and the reasons why the rest cannot be replayed."""
    published, refused = [], []
    for letter in letters:
        try:
            await _publish(session, letter)
        except CannotReplay as error:
            refused.append(str(error))
        else:
            published.append(letter)
    return published, refused


async def _waiting(session: AsyncSession, ids: Sequence[int]) -> Sequence[DeadLetter]:
    """Lock and return dead letters, ordered by id."""
    letters = (
        await session.scalars(
            select(DeadLetter)
            .where(DeadLetter.id.in_(ids))
            .order_by(DeadLetter.id)
            .with_for_update()
        )
    ).all()
    if unknown := set(ids) - {letter.id for letter in letters}:
        raise DeadLetterUnknown(*sorted(unknown))
    for letter in letters:
        if letter.state is not DeadLetterState.WAITING:
            raise DeadLetterSettled(letter)
    return letters


async def _publish(session: AsyncSession, letter: DeadLetter) -> None:
    """Add a dead letter's event to the outbox: for its work queue, or for the exchange.

    The relay sends the body of the table `events`; the event of a foreign publisher is added there.
    """
    envelope = _event(letter)
    await session.execute(
        insert(EventRecord)
        .values(
            id=envelope.id,
            tenant_id=envelope.tenantid,
            type=envelope.type,
            subject=envelope.subject,
            **envelope.references,
            body=letter.body,
        )
        .on_conflict_do_nothing()
    )
    unrouted = letter.queue == topology.UNROUTED.name
    session.add(OutboxMessage(event_id=envelope.id, queue=None if unrouted else letter.queue))


def _event(letter: DeadLetter) -> Envelope:
    if letter.queue not in {*topology.CONSUMED, topology.UNROUTED.name}:
        raise CannotReplay(letter, f"the queue {letter.queue} does not exist any more")
    try:
        return decode(letter.body)
    except MalformedEvent as error:
        raise CannotReplay(letter, str(error)) from error


async def _settle(
    session: AsyncSession, letters: Sequence[DeadLetter], *, state: DeadLetterState, actor: str
) -> Settled:
    await session.execute(
        update(DeadLetter)
        .where(DeadLetter.id.in_([letter.id for letter in letters]))
        .values(state=state, settled_at=func.now())
    )
    for letter in letters:
        facts: Mapping[str, object] = {
            "queue": letter.queue,
            "event_id": letter.event_id and str(letter.event_id),
            "event_type": letter.event_type,
        }
        audit.record(
            session,
            actor=actor,
            action=f"dead_letter.{state}",
            target=f"dead_letter/{letter.id}",
            detail=facts,
        )
    return Settled(count=len(letters))


def _in_utc(at: datetime | None) -> str | None:
    # The driver returns times in the zone of the session.
    return None if at is None else at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _shown(text: str) -> str:
    return masking.printable(str(masking.masked(text)))
