"""Deliveries of events to endpoints, their attempts, and what repeats or tests them."""

from datetime import datetime
from typing import Annotated

import msgspec

from schemas.api.events import EventBody
from schemas.ids import DeliveryId, EventId, UploadId, WebhookId
from schemas.lifecycle import DeliveryStatus


def _described(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class AttemptSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one POST to an endpoint."""

    number: int
    started_at: datetime
    outcome: Annotated[str, _described("`delivered`, or why the attempt failed")]
    status_code: Annotated[int | None, _described("null if no answer arrived")]
    error: str | None
    total_ms: float


class AttemptTimings(msgspec.Struct, frozen=True, kw_only=True):
    """Durations of the phases of an attempt; null for a phase that did not happen.

    On a kept connection there is neither a look-up, nor a connect, nor TLS.
    """

    dns_ms: float | None
    connect_ms: float | None
    tls_ms: float | None
    first_byte_ms: Annotated[
        float | None, _described("from the sent request to the first byte of the answer")
    ]
    total_ms: float


class AttemptView(msgspec.Struct, frozen=True, kw_only=True):
    """One POST to an endpoint, and its answer."""

    number: int
    started_at: datetime
    outcome: Annotated[str, _described("`delivered`, or why the attempt failed")]
    status_code: Annotated[int | None, _described("null if no answer arrived")]
    error: str | None
    timings: AttemptTimings
    response_excerpt: Annotated[str, _described("the beginning of the answer's body")]
    remote_address: str | None
    request_headers: Annotated[
        dict[str, str] | None, _described("as they were sent; secret values are replaced")
    ]


class DeliveryView(msgspec.Struct, frozen=True, kw_only=True):
    """One event for one endpoint."""

    delivery_id: DeliveryId
    webhook_id: WebhookId
    event_id: Annotated[EventId, _described("the header `webhook-id` of every attempt")]
    event_type: str
    upload_id: UploadId | None
    status: DeliveryStatus
    reason: Annotated[str | None, _described("why the delivery is `discarded`")]
    attempts_made: int
    next_attempt_at: Annotated[datetime | None, _described("null unless `pending`")]
    created_at: datetime
    settled_at: Annotated[datetime | None, _described("null while `pending`")]
    last_attempt: AttemptSummary | None


class DeliveryDetails(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery with its attempts and its event."""

    delivery: DeliveryView
    attempts: Annotated[list[AttemptView], _described("the newest 100, oldest first")]
    event: Annotated[EventBody | None, _described("null if the event is no longer stored")]


class EndpointTestLinks(msgspec.Struct, frozen=True, kw_only=True):
    """Where to follow a test."""

    delivery: str
    event: str


class EndpointTest(msgspec.Struct, frozen=True, kw_only=True):
    """A test event of an endpoint, and its delivery."""

    event_id: EventId
    delivery_id: DeliveryId
    links: EndpointTestLinks


class SendExample(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Sends the example of an event to an endpoint."""

    event_type: Annotated[str, msgspec.Meta(max_length=100)]


Time = Annotated[datetime, msgspec.Meta(tz=True)]


class ReplayDeliveries(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Delivers the events of a time range to an endpoint again."""

    since: Annotated[Time, _described("first time of an event")]
    until: Annotated[
        Time | None, _described("events before this time; by default before the request")
    ] = None
    event_types: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=100)]],
        msgspec.Meta(
            max_length=50, description="types, `document.*`, or `*`; by default every type"
        ),
    ] = []
    statuses: Annotated[
        list[DeliveryStatus],
        msgspec.Meta(
            max_length=4,
            description="`delivered`, `exhausted`, `discarded`; by default all of them",
        ),
    ] = []
    failed: Annotated[bool, _described("the same as the statuses `exhausted` and `discarded`")] = (
        False
    )
    include_undelivered: Annotated[
        bool,
        _described(
            "also events without a delivery for this endpoint, such as those before its creation"
        ),
    ] = False


class LedgerView(msgspec.Struct, frozen=True, kw_only=True):
    """The deliveries that the events of a time range have, against those in the log.

    `published` is `delivered` + `pending` + `exhausted` + `discarded`; `difference` is what is
    missing, and is 0.
    """

    since: datetime
    until: Annotated[
        datetime,
        _described("end of the range; before the request if the range has too many events"),
    ]
    is_complete: Annotated[
        bool, _described("whether the range ends at the request; otherwise ask again from `until`")
    ]
    events: Annotated[int, _described("events that endpoints can receive")]
    waiting: Annotated[int, _described("events that do not have all their deliveries yet")]
    published: Annotated[int, _described("deliveries that the other events have")]
    delivered: int
    pending: int
    exhausted: int
    discarded: int
    difference: int
