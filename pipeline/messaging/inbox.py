"""The inbox: each event is applied once per consumer, however often it is delivered."""

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from schemas.ids import EventId
from schemas.tables.inbox import InboxMessage


def is_first_delivery(session: Session, *, consumer: str, event_id: EventId) -> bool:
    """Record that this consumer applies the event; return False if the event was applied before.

    Call this in the transaction that applies the effect. A concurrent delivery
    blocks here until that transaction ends.
    """
    applied = session.execute(
        insert(InboxMessage)
        .values(consumer=consumer, event_id=event_id)
        .on_conflict_do_nothing()
        .returning(InboxMessage.event_id),
    )
    return applied.first() is not None
