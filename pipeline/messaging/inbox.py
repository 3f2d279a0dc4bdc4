"""Each event changes things once, however often it is delivered."""

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from schemas.ids import EventId
from schemas.tables.inbox import InboxMessage


def is_first_delivery(session: Session, *, consumer: str, event_id: EventId) -> bool:
    """Record the event as applied by this consumer; say whether it was not before.

    Call it in the transaction that applies the effect: a second delivery that
    runs at the same time waits here until the first one has committed.
    """
    applied = session.execute(
        insert(InboxMessage)
        .values(consumer=consumer, event_id=event_id)
        .on_conflict_do_nothing()
        .returning(InboxMessage.event_id),
    )
    return applied.first() is not None
