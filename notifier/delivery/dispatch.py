"""The loop that attempts due deliveries: claim, attempt, record.

The claim and the record are short transactions; no transaction is open during
the POST. The claims of a process that dies expire, and another process attempts
those deliveries again under the same message id.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Never

import httpx
import structlog

from notifier import db
from notifier.delivery import attempt, operations, settlement, signing
from notifier.delivery.attempt import AttemptResult
from notifier.delivery.operations import ClaimedDelivery
from notifier.delivery.outcome import AttemptOutcome
from notifier.delivery.settlement import Settlement
from notifier.delivery.slots import Slots
from notifier.liveness import Pulse
from schemas.key_ring import DecryptionFailed, KeyRing
from schemas.policy import webhook_secrets
from schemas.policy.webhook_secrets import SecretMalformed
from schemas.runtime import postgres
from schemas.settings import DeliverySettings

log = structlog.stdlib.get_logger(__name__)

WAKE_CHANNEL: Final = "waybill_deliveries"
"""PostgreSQL channel on which a committed insert of deliveries wakes this loop."""

POLL_INTERVAL: Final = timedelta(seconds=1)
"""Maximum delay of a retry or an expired claim; new deliveries wake the loop."""

MIN_CLAIM_INTERVAL: Final = timedelta(milliseconds=5)
"""Wake-ups that are close together, as the consumer's and the notification of the same
commit are, cause one claim."""

RECORDING_GRACE: Final = timedelta(seconds=10)
"""Added to the timeout of an attempt: time to record the attempt before its claim expires."""


class Dispatcher:
    """Attempts due deliveries concurrently, with a fair share for every receiver."""

    def __init__(
        self,
        *,
        transaction: db.BeginConnection,
        client: httpx.AsyncClient,
        wake: db.WakeUp,
        pulse: Pulse,
        settings: DeliverySettings,
        keys: KeyRing,
        clock: Callable[[], datetime],
        jitter: Callable[[], float],
    ) -> None:
        """Create a dispatcher.

        Args:
            transaction: begins a transaction.
            client: from `transport.open_client`.
            wake: called when deliveries may have become due.
            pulse: beats once per round.
            settings: timeout, concurrency, and the size of the kept response.
            keys: decrypt the secrets of the endpoints.
            clock: returns the time, with a time zone.
            jitter: returns a random number between -1 and 1.
        """
        self._transaction = transaction
        self._client = client
        self._wake = wake
        self._pulse = pulse
        self._settings = settings
        self._keys = keys
        self._clock = clock
        self._jitter = jitter
        self._slots = Slots(settings.webhook_concurrency)
        self._lease = settings.webhook_timeout + RECORDING_GRACE
        self._in_progress: set[asyncio.Task[None]] = set()
        self._waiting_for_slots = False

    async def run(self) -> Never:
        """Attempt due deliveries until cancelled, then finish and record the attempts in progress."""
        try:
            while True:
                self._pulse.beat()
                more = await postgres.through_outages(
                    # The deliveries of a claim that is cancelled after its commit would wait until
                    # the claim expires.
                    lambda: db.uninterrupted(self._start_due()),
                    doing="claiming deliveries",
                )
                if not more:
                    await asyncio.sleep(MIN_CLAIM_INTERVAL.total_seconds())
                    await self._wake.wait(at_most=POLL_INTERVAL)
        finally:
            await self._finish()

    async def _start_due(self) -> bool:
        """Claim and start deliveries for the free slots; return whether to claim again at once."""
        draft = self._slots.copy()
        async with self._transaction() as connection:
            due = await operations.claim_due(connection, slots=draft, lease=self._lease)
        if due.discarded:
            log.info("delivery.discarded", deliveries=due.discarded)
        for claim in due.claimed:
            self._slots.take(claim.delivery.receiver)
            task = asyncio.create_task(self._attempt(claim))
            self._in_progress.add(task)
            task.add_done_callback(self._in_progress.discard)
        self._waiting_for_slots = not self._slots.free or bool(self._slots.closed)
        return due.more and self._slots.free > 0

    async def _attempt(self, claim: ClaimedDelivery) -> None:
        began = self._clock()
        try:
            result = await self._post_or_fail(claim, at=began)
            ended = self._clock()
            settled = settlement.after(
                result.outcome,
                attempts_made=claim.delivery.attempts_made + 1,
                delays=self._settings.webhook_retry_delays,
                now=ended,
                jitter=self._jitter(),
                retry_after=result.retry_after,
            )
            recorded = await postgres.through_outages(
                lambda: self._record(claim, result, settled), doing="recording an attempt"
            )
            _log_attempt(claim, result, recorded=recorded)
        except Exception:
            # Nothing awaits this task. The claim expires and the delivery is attempted again.
            log.exception("delivery.attempt_crashed", delivery_id=str(claim.delivery.delivery_id))
        finally:
            self._slots.release(claim.delivery.receiver, duration=self._clock() - began)
            if self._waiting_for_slots:
                self._wake.call()

    async def _post_or_fail(self, claim: ClaimedDelivery, *, at: datetime) -> AttemptResult:
        """Make the attempt; an internal error before the POST is an outcome too."""
        delivery = claim.delivery
        if claim.body is None:
            log.error(
                "delivery.event_missing",
                delivery_id=str(delivery.delivery_id),
                event_id=str(delivery.event_id),
            )
            return AttemptResult(
                outcome=AttemptOutcome.EVENT_MISSING,
                started_at=at,
                duration=self._clock() - at,
                error="the event is no longer stored; nothing was sent",
            )
        try:
            return await self._post(claim, claim.body, at=at)
        except (DecryptionFailed, SecretMalformed) as error:
            # Retried by the schedule: an operator can still add the missing key.
            log.error(  # noqa: TRY400  # the message says everything; a traceback would hide it
                "delivery.secret_unreadable",
                delivery_id=str(delivery.delivery_id),
                webhook_id=str(delivery.webhook_id),
                error=str(error),
            )
            outcome, reason = AttemptOutcome.SECRET_UNREADABLE, "the secret cannot be read"
        except Exception:
            # Without an outcome the delivery would be attempted for ever, outside the schedule.
            log.exception("delivery.not_attempted", delivery_id=str(delivery.delivery_id))
            outcome, reason = AttemptOutcome.NOT_ATTEMPTED, "an internal error"
        return AttemptResult(
            outcome=outcome,
            started_at=at,
            duration=self._clock() - at,
            error=f"{reason}; nothing was sent",
        )

    async def _post(self, claim: ClaimedDelivery, body: bytes, *, at: datetime) -> AttemptResult:
        delivery = claim.delivery
        secret = webhook_secrets.decrypt(
            delivery.secret, webhook_id=delivery.webhook_id, keys=self._keys
        )
        headers = signing.sign(
            signing.parse(secret),
            message_id=str(delivery.event_id),
            timestamp=at,
            body=body,
        )
        return await attempt.post(
            self._client,
            url=delivery.url,
            headers=headers,
            body=body,
            started_at=at,
            timeout=self._settings.webhook_timeout,
            response_max=self._settings.webhook_response_max,
        )

    async def _record(
        self, claim: ClaimedDelivery, result: AttemptResult, settled: Settlement
    ) -> bool:
        async with self._transaction() as connection:
            return await operations.record_attempt(connection, claim, result, settlement=settled)

    async def _finish(self) -> None:
        if not self._in_progress:
            return
        log.info("delivery.finishing", attempts=len(self._in_progress))
        _, unfinished = await asyncio.wait(self._in_progress, timeout=self._lease.total_seconds())
        for task in unfinished:
            task.cancel()
        if unfinished:
            log.warning("delivery.abandoned", attempts=len(unfinished))
            await asyncio.wait(unfinished)


def _log_attempt(claim: ClaimedDelivery, result: AttemptResult, *, recorded: bool) -> None:
    fields = {
        "delivery_id": str(claim.delivery.delivery_id),
        "webhook_id": str(claim.delivery.webhook_id),
        "event_id": str(claim.delivery.event_id),
        "attempt": claim.delivery.attempts_made + 1,
        "outcome": str(result.outcome),
        "status_code": result.status_code,
        "duration_ms": round(result.duration / timedelta(milliseconds=1)),
    }
    if recorded:
        log.info("delivery.attempted", **fields)
    else:
        log.warning("delivery.claim_lost", **fields)
