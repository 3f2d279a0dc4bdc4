"""Errors of the feed."""

from schemas.errors import DomainError, ErrorCode
from schemas.ids import EventId


class EventNotFound(DomainError):
    """The event does not exist, is no longer stored, or is not for clients of this tenant."""

    code = ErrorCode.EVENT_NOT_FOUND

    def __init__(self, event_id: EventId) -> None:
        super().__init__(f"there is no event {event_id}")


class CursorExpired(DomainError):
    """Events after the cursor were deleted, so the reader has missed some."""

    code = ErrorCode.CURSOR_EXPIRED

    def __init__(self) -> None:
        super().__init__(
            "events after this cursor are no longer stored; begin again without `after`, and compare"
        )
