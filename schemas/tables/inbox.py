"""Events that a consumer has applied.

The row is inserted in the transaction that applies the event; a redelivery
finds the row and changes nothing.
"""

from datetime import datetime
from typing import Final

from sqlalchemy import Integer, func, text
from sqlalchemy.orm import Mapped, mapped_column

from schemas.ids import EventId
from schemas.tables.base import Base

NOTIFIER: Final = "notifier"
"""The consumer that turns facts into deliveries."""


class InboxMessage(Base):
    __tablename__ = "inbox"

    consumer: Mapped[str] = mapped_column(primary_key=True)
    event_id: Mapped[EventId] = mapped_column(primary_key=True)
    processed_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
    deliveries: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    """Deliveries that the event has: the ledger compares them with the rows of deliveries."""


class CheckedEvents(Base):
    """Up to which event the watchdog has found every event applied, or published it again."""

    __tablename__ = "checked_events"

    consumer: Mapped[str] = mapped_column(primary_key=True)
    up_to: Mapped[EventId]
