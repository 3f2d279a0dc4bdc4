"""Starts the replay of an endpoint: its job, step and event are created in one transaction."""

from collections.abc import Collection
from datetime import datetime
from uuid import uuid4

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from gateway.context import Context
from gateway.db import SessionStatements, transaction_time
from gateway.deliveries import queries
from gateway.deliveries.errors import ReplayRunning
from gateway.http import idempotency
from gateway.http.problems import InvalidRequest
from gateway.jobs.queries import snapshot_of
from gateway.settings import EVENT_SOURCE
from schemas.api.deliveries import ReplayDeliveries
from schemas.api.jobs import JobView
from schemas.events.endpoints import ReplayRequested
from schemas.ids import JobId, TenantId, WebhookId
from schemas.lifecycle import (
    FAILED_DELIVERIES,
    SETTLED_DELIVERIES,
    DeliveryStatus,
    JobKind,
    Priority,
)
from schemas.policy import event_filters
from schemas.queues import NOTIFY
from schemas.steps import JobStage, StepName
from schemas.tables import steps
from schemas.tables.events import emit
from schemas.tables.jobs import IS_OPEN, Job
from schemas.topology import SUBSCRIPTIONS

log = structlog.stdlib.get_logger(__name__)


async def replay(
    context: Context,
    *,
    tenant_id: TenantId,
    webhook_id: WebhookId,
    request: ReplayDeliveries,
    keyed: idempotency.KeyedRequest | None,
    traceparent: str | None,
) -> JobView:
    """Add a job that delivers events again, or return the job of an earlier request with the key.

    Raises:
        InvalidRequest: the range or the statuses select nothing, or a type is unknown.
        WebhookNotFound, WebhookDisabled: nothing is delivered to the endpoint.
        ReplayRunning: a replay of the endpoint is open.
        TooManyWaiting, SystemBusy: too many steps wait.
        IdempotencyKeyReused: the key is bound to another request.
    """
    event_types = _chosen_types(request)
    statuses = chosen_statuses(request)
    job_id = JobId(uuid4())
    async with context.database.tenant_lock(tenant_id) as session:
        statements = SessionStatements(session)
        bound_to = await idempotency.first_use(
            statements, keyed, tenant_id=tenant_id, resource_id=job_id
        )
        if bound_to == job_id:
            await context.backlog.check(statements, tenant_id=tenant_id)
            await queries.lock_live_endpoint(session, tenant_id=tenant_id, webhook_id=webhook_id)
            await _check_no_other(session, webhook_id)
            now = await transaction_time(session)
            order = ReplayRequested(
                endpoint_id=webhook_id,
                job_id=job_id,
                since=request.since,
                until=_end_of(request, now=now),
                event_types=event_types,
                statuses=tuple(sorted(statuses)),
                include_undelivered=request.include_undelivered,
            )
            await _add_job(session, order, tenant_id=tenant_id, now=now, traceparent=traceparent)
            await session.execute(
                steps.release(tenant_id, StepName.REPLAY, settings=context.settings)
            )
            log.info("webhook.replay_requested", webhook_id=str(webhook_id), job_id=str(job_id))
        return (await snapshot_of(statements, tenant_id=tenant_id, job_id=JobId(bound_to))).job


def chosen_statuses(request: ReplayDeliveries) -> Collection[DeliveryStatus]:
    """Return the statuses of the deliveries to repeat.

    Raises:
        InvalidRequest: `failed` and `statuses` are both given, or a status is not settled.
    """
    if request.failed and request.statuses:
        raise InvalidRequest("cannot be combined with failed", field="statuses")
    if request.failed:
        return FAILED_DELIVERIES
    chosen = frozenset(request.statuses) or SETTLED_DELIVERIES
    if not chosen <= SETTLED_DELIVERIES:
        raise InvalidRequest("a pending delivery is delivered anyway", field="statuses")
    return chosen


def _chosen_types(request: ReplayDeliveries) -> tuple[str, ...]:
    """Return the filters of types, as those of an endpoint.

    Raises:
        InvalidRequest: no endpoint receives such a type.
    """
    try:
        return tuple(event_filters.check_types(request.event_types, known=SUBSCRIPTIONS[NOTIFY]))
    except event_filters.EventTypeUnknown as error:
        raise InvalidRequest(str(error), field="event_types") from error


def _end_of(request: ReplayDeliveries, *, now: datetime) -> datetime:
    """Return the end of the range: later events are delivered for the first time.

    Raises:
        InvalidRequest: the range is empty.
    """
    until = min(request.until or now, now)
    if request.since >= until:
        raise InvalidRequest("is not before until, or in the future", field="since")
    return until


async def _check_no_other(session: AsyncSession, webhook_id: WebhookId) -> None:
    """Check that no replay of the endpoint is open, while the endpoint is locked.

    Raises:
        ReplayRunning: a replay is open.
    """
    open_job = await session.scalar(select(Job.id).where(Job.webhook_id == webhook_id, IS_OPEN))
    if open_job is not None:
        raise ReplayRunning(webhook_id, job_id=open_job)


async def _add_job(
    session: AsyncSession,
    order: ReplayRequested,
    *,
    tenant_id: TenantId,
    now: datetime,
    traceparent: str | None,
) -> None:
    session.add(
        Job(
            id=order.job_id,
            tenant_id=tenant_id,
            kind=JobKind.REPLAY,
            webhook_id=order.endpoint_id,
            stage=JobStage.REPLAY,
        )
    )
    await session.flush()
    event_id = emit(
        session,
        order,
        tenant_id=tenant_id,
        source=EVENT_SOURCE,
        now=now,
        traceparent=traceparent,
    )
    steps.add_step(
        session,
        StepName.REPLAY,
        job_id=order.job_id,
        tenant_id=tenant_id,
        priority=Priority.INTERACTIVE,
        event_id=event_id,
        total=max(1, int((order.until - order.since).total_seconds())),
    )
    await session.flush()
