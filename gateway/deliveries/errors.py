"""Errors of the log of deliveries."""

from schemas.errors import DomainError, ErrorCode
from schemas.ids import DeliveryId, EventId, JobId, WebhookId


class DeliveryNotFound(DomainError):
    """The delivery does not exist, or belongs to another tenant or endpoint."""

    code = ErrorCode.DELIVERY_NOT_FOUND

    def __init__(self, delivery_id: DeliveryId) -> None:
        super().__init__(f"there is no delivery {delivery_id}")


class EventExpired(DomainError):
    """The bytes of the event are no longer stored, so nothing can be sent."""

    code = ErrorCode.EVENT_EXPIRED

    def __init__(self, event_id: EventId) -> None:
        super().__init__(f"event {event_id} is no longer stored")


class ReplayRunning(DomainError):
    """A replay of the endpoint is open; two at a time would exceed the rate."""

    code = ErrorCode.WEBHOOK_BUSY
    retryable = True

    def __init__(self, webhook_id: WebhookId, *, job_id: JobId) -> None:
        super().__init__(f"deliveries of webhook {webhook_id} are being replayed by job {job_id}")


class DeliveryExhausted(DomainError):
    """The delivery has as many attempts as one may have."""

    code = ErrorCode.DELIVERY_EXHAUSTED

    def __init__(self, delivery_id: DeliveryId, *, attempts_max: int) -> None:
        super().__init__(
            f"delivery {delivery_id} has had {attempts_max} attempts and is not sent again;"
            " read its event with `GET /events/{event_id}`"
        )
