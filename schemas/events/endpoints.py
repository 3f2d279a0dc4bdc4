"""Events of an endpoint, which receives events as webhooks."""

from datetime import datetime
from typing import Annotated, ClassVar, Final, TypeAlias

import msgspec

from schemas.ids import WebhookId

DELIVERIES_COUNTED_MAX: Final = 100_000
"""Pending deliveries that the event counts; the count of a larger backlog would take seconds."""


class _EndpointEvent(msgspec.Struct, frozen=True, kw_only=True):
    endpoint_id: Annotated[
        WebhookId, msgspec.Meta(description="`webhook_id` of the endpoint in the API")
    ]

    @property
    def subject(self) -> WebhookId:
        return self.endpoint_id


class Ping(_EndpointEvent, frozen=True, kw_only=True):
    """A test of one endpoint, on request of the tenant; no other endpoint receives it."""

    TYPE: ClassVar[str] = "ping"


class EndpointDisabled(_EndpointEvent, frozen=True, kw_only=True):
    """Waybill disabled an endpoint; the tenant's other endpoints receive this event."""

    TYPE: ClassVar[str] = "endpoint.disabled"

    url: str
    description: str | None = None
    reason: Annotated[
        str,
        msgspec.Meta(
            description="`disabled_reason` of the endpoint in the API: `gone` (it answered 410) or "
            "`failing`"
        ),
    ]
    failing_since: Annotated[
        Annotated[datetime, msgspec.Meta(tz=True)] | None,
        msgspec.Meta(
            description="time of the first failed attempt after the last success; null if one answer "
            "(410) disabled the endpoint"
        ),
    ] = None
    disabled_at: Annotated[datetime, msgspec.Meta(tz=True)]
    deliveries_kept: Annotated[
        int,
        msgspec.Meta(
            ge=0,
            description="pending deliveries of the endpoint, which can be replayed; counted up to "
            f"{DELIVERIES_COUNTED_MAX:,}",
        ),
    ]


EndpointEvent: TypeAlias = Ping | EndpointDisabled
