"""Which endpoints receive an event."""

from collections.abc import Iterable
from dataclasses import dataclass

from schemas.ids import UploadId, WebhookId


@dataclass(frozen=True, kw_only=True, slots=True)
class Subscription:
    """The events that an endpoint receives.

    Attributes:
        event_types: empty means every type.
        upload_id: set for the callback of an upload; it receives the events of
            that upload alone.
    """

    webhook_id: WebhookId
    event_types: frozenset[str] = frozenset()
    upload_id: UploadId | None = None

    def matches(self, *, event_type: str, upload_id: UploadId | None) -> bool:
        return (not self.event_types or event_type in self.event_types) and (
            self.upload_id is None or self.upload_id == upload_id
        )


def matching(
    subscriptions: Iterable[Subscription], *, event_type: str, upload_id: UploadId | None
) -> tuple[Subscription, ...]:
    """Return the subscriptions that match an event, in the given order.

    Args:
        subscriptions: subscriptions of the event's tenant; tenants are not compared here.
        event_type: as on the wire, for example ``document.ingested``.
        upload_id: the upload that the event is about; None matches no callback.
    """
    return tuple(
        subscription
        for subscription in subscriptions
        if subscription.matches(event_type=event_type, upload_id=upload_id)
    )
