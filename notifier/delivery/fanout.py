"""Which endpoints are told of an event."""

from collections.abc import Iterable
from dataclasses import dataclass

from schemas.ids import UploadId, WebhookId


@dataclass(frozen=True, kw_only=True, slots=True)
class Subscription:
    """What an endpoint wants to hear.

    Attributes:
        event_types: empty means every type.
        upload_id: set where the endpoint is the callback of one upload; it
            then hears of that upload alone.
    """

    webhook_id: WebhookId
    event_types: frozenset[str] = frozenset()
    upload_id: UploadId | None = None

    def wants(self, *, event_type: str, upload_id: UploadId | None) -> bool:
        return (not self.event_types or event_type in self.event_types) and (
            self.upload_id is None or self.upload_id == upload_id
        )


def matching(
    subscriptions: Iterable[Subscription], *, event_type: str, upload_id: UploadId | None
) -> tuple[Subscription, ...]:
    """Return the subscriptions that want an event, in the order given.

    Tenants are not looked at: the caller passes the subscriptions of the
    event's tenant and no others.

    Args:
        subscriptions: of one tenant.
        event_type: as on the wire, for example ``document.ingested``.
        upload_id: the upload the event is about; None for one about no upload,
            which no per-upload callback wants.
    """
    return tuple(
        subscription
        for subscription in subscriptions
        if subscription.wants(event_type=event_type, upload_id=upload_id)
    )
