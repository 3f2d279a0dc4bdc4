"""The event that a step of a document applies."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy.orm import Session

from pipeline.context import database_time
from schemas.events.envelope import Envelope
from schemas.ids import EventId, TenantId

SOURCE: Final = "/waybill/pipeline/ingest"


@dataclass(frozen=True, kw_only=True)
class EventContext:
    """The event that is applied, and the time at which it is applied."""

    event_id: EventId
    tenant_id: TenantId
    now: datetime
    traceparent: str | None

    @classmethod
    def now_in(
        cls, session: Session, event: Envelope, *, traceparent: str | None
    ) -> "EventContext":
        """Return the event with the time of its recording, not of the start of the work."""
        return cls(
            event_id=event.id,
            tenant_id=event.tenantid,
            now=database_time(session),
            traceparent=traceparent,
        )
