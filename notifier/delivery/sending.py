"""Signs and sends one delivery; every failure is a result."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from notifier.delivery.attempt import AttemptResult
from notifier.delivery.endpoints import NoUsableSecret, ReadyEndpoint
from notifier.delivery.outcome import AttemptOutcome
from notifier.delivery.work import DueDelivery
from schemas.events.envelope import CONTENT_TYPE
from schemas.policy import webhook_signing

log = structlog.stdlib.get_logger(__name__)

TRACEPARENT: Final = "traceparent"


class Post(Protocol):
    """`attempt.post` with its client."""

    async def __call__(
        self,
        *,
        url: str,
        headers: Mapping[str, str],
        body: bytes,
        started_at: datetime,
        timeout: timedelta,  # noqa: ASYNC109  # one deadline covers all phases
        share: str,
    ) -> AttemptResult: ...


async def send(
    delivery: DueDelivery,
    endpoint: ReadyEndpoint,
    *,
    post: Post,
    clock: Callable[[], datetime],
) -> tuple[AttemptResult, Mapping[str, str] | None]:
    """Make one attempt; return its result, and the headers of the request as a log may show them.

    An internal error before the request is a result too: without one the delivery would be
    attempted for ever, outside the schedule.
    """
    at = clock()
    if delivery.body is None:
        log.error(
            "delivery.event_missing",
            delivery_id=str(delivery.delivery_id),
            event_id=str(delivery.event_id),
        )
        return _not_sent(AttemptOutcome.EVENT_MISSING, "the event is no longer stored", at=at), None
    try:
        own = webhook_signing.sign(
            *endpoint.signers(at),
            message_id=str(delivery.event_id),
            timestamp=at,
            body=delivery.body,
        )
        own["content-type"] = CONTENT_TYPE
        if delivery.traceparent is not None:
            own[TRACEPARENT] = delivery.traceparent
        result = await post(
            url=endpoint.url,
            headers={**endpoint.headers, **own},
            body=delivery.body,
            started_at=at,
            timeout=endpoint.timeout,
            share=str(endpoint.tenant_id),
        )
    except NoUsableSecret as error:
        # Retried by the schedule: an operator can still add the missing key.
        log.error(  # noqa: TRY400  # the message says everything; a traceback would hide it
            "delivery.secret_unreadable",
            delivery_id=str(delivery.delivery_id),
            webhook_id=str(delivery.webhook_id),
            error=str(error),
        )
        return (
            _not_sent(AttemptOutcome.SECRET_UNREADABLE, "the secret cannot be read", at=at),
            None,
        )
    except Exception:
        log.exception("delivery.not_attempted", delivery_id=str(delivery.delivery_id))
        return _not_sent(AttemptOutcome.NOT_ATTEMPTED, "an internal error", at=at), None
    return result, {**endpoint.shown_headers, **own}


def _not_sent(outcome: AttemptOutcome, reason: str, *, at: datetime) -> AttemptResult:
    return AttemptResult(
        outcome=outcome,
        started_at=at,
        duration=timedelta(0),
        error=f"{reason}; nothing was sent",
    )
