"""Events of an endpoint, which receives events as webhooks."""

from datetime import datetime
from typing import Annotated, ClassVar, Final, TypeAlias

import msgspec

from schemas.ids import JobId, WebhookId
from schemas.lifecycle import DeliveryStatus

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


class ReplayRequested(_EndpointEvent, frozen=True, kw_only=True):
    """Events of a time range are to be delivered again; only starts the step of a job."""

    TYPE: ClassVar[str] = "webhook.replay_requested"

    job_id: JobId
    since: datetime
    until: datetime
    event_types: tuple[str, ...] = ()
    """Empty means every type."""
    statuses: tuple[DeliveryStatus, ...]
    """Deliveries of these statuses are repeated."""
    include_undelivered: bool = False
    """Whether events without a delivery for the endpoint get one."""


EndpointEvent: TypeAlias = Ping | EndpointDisabled | ReplayRequested
