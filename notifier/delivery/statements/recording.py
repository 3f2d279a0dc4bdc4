"""Logs attempts, and settles or reschedules their deliveries."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Final
from uuid import UUID

import msgspec

from notifier.delivery.statements.arrays import Integers, Texts, Times, Uuids
from notifier.delivery.statements.connections import DedicatedConnection
from notifier.delivery.work import FinishedAttempt, QueueState
from schemas.ids import DeliveryId
from schemas.lifecycle import DeliveryStatus

_MICROSECOND: Final = timedelta(microseconds=1)
_MICROSECONDS_MAX: Final = 2**31 - 1

# The number of attempts is the version of a delivery: an attempt of a process that has lost the queue is not
# recorded twice. The range of ids excludes other partitions when the statement starts.
_RECORD: Final = """
WITH moved AS (
    UPDATE deliveries SET
        status = result.status, reason = result.reason, attempts_made = result.number,
        next_attempt_at = result.next_attempt_at, settled_at = result.settled_at
    FROM unnest(
        %(delivery_id)b, %(number)b, %(status)b, %(reason)b, %(next_attempt_at)b, %(settled_at)b, %(started_at)b,
        %(duration_us)b, %(dns_us)b, %(connect_us)b, %(tls_us)b, %(first_byte_us)b, %(outcome)b, %(status_code)b,
        %(error)b, %(response_excerpt)b, %(remote_address)b, %(request_headers)b
    ) AS result (delivery_id, number, status, reason, next_attempt_at, settled_at, started_at, duration_us, dns_us,
                 connect_us, tls_us, first_byte_us, outcome, status_code, error, response_excerpt, remote_address,
                 request_headers)
    WHERE deliveries.id = result.delivery_id AND deliveries.status = 'pending'
      AND deliveries.attempts_made = result.number - 1
      AND deliveries.id >= %(first)b AND deliveries.id <= %(last)b
    RETURNING result.*
)
INSERT INTO attempts (delivery_id, number, started_at, duration_us, dns_us, connect_us, tls_us, first_byte_us,
                      outcome, status_code, error, response_excerpt, remote_address, request_headers)
SELECT delivery_id, number, started_at, duration_us, dns_us, connect_us, tls_us, first_byte_us, outcome, status_code,
       error, response_excerpt, remote_address, request_headers::jsonb
FROM moved
RETURNING delivery_id
"""

# An earlier transaction may have been committed without an answer.
_RECORDED_BEFORE: Final = """
SELECT attempts.delivery_id
FROM unnest(%(delivery_id)b, %(number)b, %(started_at)b) AS result (delivery_id, number, started_at)
JOIN attempts ON attempts.delivery_id = result.delivery_id AND attempts.number = result.number
    AND attempts.started_at = result.started_at
"""

# In a later transaction: a delivery that was added meanwhile is found. If this process dies before, the delivery
# becomes due by itself, a little later.
_NEXT_IN_ORDER: Final = """
UPDATE deliveries SET next_attempt_at = now()
FROM unnest(%(webhook_id)b, %(upload_id)b, %(event_id)b) AS settled (webhook_id, upload_id, event_id),
LATERAL (
    SELECT id FROM deliveries AS after
    WHERE after.webhook_id = settled.webhook_id AND after.upload_id = settled.upload_id
      AND after.event_id > settled.event_id AND after.status = 'pending' AND after.ordered
    ORDER BY after.event_id LIMIT 1
) AS next
WHERE deliveries.id = next.id AND deliveries.status = 'pending' AND deliveries.attempts_made = 0
  AND deliveries.next_attempt_at > now()
"""

_SAVE: Final = """
UPDATE delivery_queues SET
    blocked_until = state.blocked_until, throttles = state.throttles, failing_since = state.failing_since,
    failures = state.failures
FROM unnest(%(webhook_id)b, %(blocked_until)b, %(throttles)b, %(failing_since)b, %(failures)b)
    AS state (webhook_id, blocked_until, throttles, failing_since, failures)
WHERE delivery_queues.webhook_id = state.webhook_id AND delivery_queues.owner = %(owner)b
"""


async def record(
    connection: DedicatedConnection, attempts: Sequence[FinishedAttempt]
) -> Collection[DeliveryId]:
    """Log attempts; see `Store.record`."""
    if not attempts:
        return ()
    # In one order in every process: two that record the same deliveries must not wait for each other.
    attempts = sorted(attempts, key=lambda attempt: attempt.delivery.delivery_id)
    values = _values(attempts)
    recorded = {row[0] for row in await connection.rows(_RECORD, values)}
    if len(recorded) < len(attempts):
        names = ("delivery_id", "number", "started_at")
        before = await connection.rows(_RECORDED_BEFORE, {name: values[name] for name in names})
        recorded.update(row[0] for row in before)
    settled = [
        attempt.delivery
        for attempt in attempts
        if attempt.delivery.ordered and attempt.settlement.status is not DeliveryStatus.PENDING
    ]
    if settled:
        await connection.rows(
            _NEXT_IN_ORDER,
            {
                "webhook_id": Uuids(delivery.webhook_id for delivery in settled),
                "upload_id": Uuids(delivery.upload_id for delivery in settled),
                "event_id": Uuids(delivery.event_id for delivery in settled),
            },
        )
    return recorded


async def save(
    connection: DedicatedConnection, states: Sequence[QueueState], *, owner: UUID
) -> None:
    """Keep the condition of endpoints; see `Store.save`."""
    states = sorted(states, key=lambda state: state.webhook_id)
    await connection.rows(
        _SAVE,
        {
            "webhook_id": Uuids(state.webhook_id for state in states),
            "blocked_until": Times(state.blocked_until for state in states),
            "throttles": Integers(state.throttles for state in states),
            "failing_since": Times(state.failing_since for state in states),
            "failures": Integers(state.failures for state in states),
            "owner": owner,
        },
    )


def _values(attempts: Sequence[FinishedAttempt]) -> dict[str, object]:
    deliveries = [attempt.delivery for attempt in attempts]
    results = [attempt.result for attempt in attempts]
    settlements = [attempt.settlement for attempt in attempts]
    ended = [result.started_at + result.duration for result in results]
    return {
        "first": deliveries[0].delivery_id,
        "last": deliveries[-1].delivery_id,
        "delivery_id": Uuids(delivery.delivery_id for delivery in deliveries),
        "number": Integers(delivery.attempts_made + 1 for delivery in deliveries),
        "status": Texts(settlement.status for settlement in settlements),
        "reason": Texts(settlement.reason for settlement in settlements),
        "next_attempt_at": Times(settlement.next_attempt_at for settlement in settlements),
        "settled_at": Times(
            None if settlement.status is DeliveryStatus.PENDING else end
            for settlement, end in zip(settlements, ended, strict=True)
        ),
        "started_at": Times(result.started_at for result in results),
        "duration_us": Integers(_microseconds(result.duration) for result in results),
        "dns_us": Integers(_microseconds(result.timings.dns) for result in results),
        "connect_us": Integers(_microseconds(result.timings.connect) for result in results),
        "tls_us": Integers(_microseconds(result.timings.tls) for result in results),
        "first_byte_us": Integers(_microseconds(result.timings.first_byte) for result in results),
        "outcome": Texts(result.outcome for result in results),
        "status_code": Integers(result.status_code for result in results),
        "error": Texts(result.error for result in results),
        "response_excerpt": Texts(result.response_excerpt for result in results),
        "remote_address": Texts(result.remote_address for result in results),
        "request_headers": Texts(
            None
            if attempt.request_headers is None
            else msgspec.json.encode(attempt.request_headers).decode()
            for attempt in attempts
        ),
    }


def _microseconds(duration: timedelta | None) -> int | None:
    return None if duration is None else min(duration // _MICROSECOND, _MICROSECONDS_MAX)
