"""Deliveries and attempts as clients see them."""

from collections.abc import Sequence
from typing import overload

import msgspec

from schemas.api.deliveries import (
    AttemptSummary,
    AttemptTimings,
    AttemptView,
    DeliveryDetails,
    DeliveryView,
)
from schemas.tables.deliveries import Attempt, Delivery


def show(delivery: Delivery, last: Attempt | None) -> DeliveryView:
    """Return a delivery with its last attempt."""
    return DeliveryView(
        delivery_id=delivery.id,
        webhook_id=delivery.webhook_id,
        event_id=delivery.event_id,
        event_type=delivery.event_type,
        upload_id=delivery.upload_id,
        status=delivery.status,
        reason=delivery.reason,
        attempts_made=delivery.attempts_made,
        next_attempt_at=delivery.next_attempt_at,
        created_at=delivery.created_at,
        settled_at=delivery.settled_at,
        last_attempt=None if last is None else _summary(last),
    )


def show_details(
    delivery: Delivery, attempts: Sequence[Attempt], *, body: bytes | None
) -> DeliveryDetails:
    """Return a delivery with its attempts, oldest first, and the bytes of its event."""
    return DeliveryDetails(
        delivery=show(delivery, attempts[-1] if attempts else None),
        attempts=[_show_attempt(attempt) for attempt in attempts],
        event=None if body is None else msgspec.Raw(body),
    )


def _summary(attempt: Attempt) -> AttemptSummary:
    return AttemptSummary(
        number=attempt.number,
        started_at=attempt.started_at,
        outcome=attempt.outcome,
        status_code=attempt.status_code,
        error=attempt.error,
        total_ms=_ms(attempt.duration_us),
    )


def _show_attempt(attempt: Attempt) -> AttemptView:
    return AttemptView(
        number=attempt.number,
        started_at=attempt.started_at,
        outcome=attempt.outcome,
        status_code=attempt.status_code,
        error=attempt.error,
        timings=AttemptTimings(
            dns_ms=_ms(attempt.dns_us),
            connect_ms=_ms(attempt.connect_us),
            tls_ms=_ms(attempt.tls_us),
            first_byte_ms=_ms(attempt.first_byte_us),
            total_ms=_ms(attempt.duration_us),
        ),
        response_excerpt=attempt.response_excerpt,
        remote_address=attempt.remote_address,
        request_headers=attempt.request_headers,
    )


@overload
def _ms(microseconds: int) -> float: ...


@overload
def _ms(microseconds: int | None) -> float | None: ...


def _ms(microseconds: int | None) -> float | None:
    return None if microseconds is None else microseconds / 1000
