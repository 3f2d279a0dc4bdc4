"""Adds partitions before they are needed, and drops old ones that nothing needs.

Events, deliveries and attempts are partitioned by the week of the event. The deliveries of a week and
their attempts are dropped together, and later than neither is the event that a pending one sends.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from psycopg.errors import LockNotAvailable
from sqlalchemy import Interval, TextClause, bindparam, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from pipeline.context import Context
from pipeline.maintenance.exclusive import Budget
from schemas.lifecycle import DeliveryStatus, DiscardReason

log = structlog.stdlib.get_logger(__name__)

WEEK: Final = timedelta(days=7)

WEEKS_AHEAD: Final = 4
"""Beat may be down for this long before new rows go to the default partitions."""

BATCH: Final = 1000

LOCK_TIMEOUT: Final = "2s"
"""Dropping a partition waits for every statement that uses its table, and makes all later ones wait."""

# Together: a delivery must not go to a partition of its week while its event does not.
_ADD: Final = text(
    """
    SELECT count(*) FILTER (WHERE waybill_add_partition(
        name, key, (date_trunc('week', now() AT TIME ZONE 'UTC') + make_interval(weeks => week)) AT TIME ZONE 'UTC'
    ))
    FROM generate_series(0, :weeks) AS week
    CROSS JOIN (VALUES ('events', 'id'), ('deliveries', 'id'), ('attempts', 'delivery_id')) AS tables (name, key)
    """
)

_PARTITIONS: Final = text(
    """
    SELECT name FROM (
        SELECT cast(cast(inhrelid AS regclass) AS text) AS name
        FROM pg_inherits WHERE inhparent = cast(:parent AS regclass)
    ) AS partitions
    WHERE name <> :parent || '_default' ORDER BY name
    """
)

# The open side first: it is small, and every part of it has an index.
_NEEDED: Final = """
    SELECT event.id FROM jobs JOIN {partition} AS event ON event.job_id = jobs.id
    WHERE jobs.status IN ('queued', 'processing')
    UNION ALL
    SELECT event.id FROM steps JOIN {partition} AS event ON event.id = steps.event_id
    WHERE steps.status IN ('queued', 'running')
    UNION ALL
    SELECT event.id FROM steps JOIN {partition} AS event ON event.id = steps.event_id
    WHERE steps.status = 'waiting'
    UNION ALL
    SELECT event.id FROM outbox JOIN {partition} AS event ON event.id = outbox.event_id
    WHERE outbox.published_at IS NULL
"""

# Of the week of the event, so the partition of that week alone is read.
_OF_WEEK_IS_NEEDED: Final = f"""
    SELECT EXISTS ({_NEEDED}) OR EXISTS (
        SELECT FROM deliveries
        WHERE status = 'pending' AND id >= waybill_first_uuid7(:week) AND id < waybill_first_uuid7(:next_week)
    )
"""  # noqa: S608  # constants of this module

_DELETE_OLD_EVENTS: Final = text(
    f"""
    DELETE FROM events_default WHERE id IN (
        SELECT id FROM events_default
        WHERE created_at < now() - :retention AND id NOT IN ({_NEEDED.format(partition="events_default")})
          AND NOT EXISTS (
              SELECT FROM deliveries
              WHERE status = 'pending' AND deliveries.event_id = events_default.id
                AND deliveries.id >= (left(replace(events_default.id::text, '-', ''), 16) || repeat('0', 16))::uuid
                AND deliveries.id <= (left(replace(events_default.id::text, '-', ''), 16) || repeat('f', 16))::uuid
          )
        ORDER BY created_at LIMIT :limit
    )
    RETURNING id
    """  # noqa: S608  # constants of this module
).bindparams(bindparam("retention", type_=Interval()))

_IS_PENDING_IN: Final = "SELECT EXISTS (SELECT FROM {partition} WHERE status = 'pending')"

# Pending only while its endpoint is paused. Any other pending delivery is attempted, and then settled.
_EXPIRE: Final = text(
    f"""
    UPDATE deliveries
    SET status = '{DeliveryStatus.DISCARDED}', reason = '{DiscardReason.EXPIRED}', next_attempt_at = NULL,
        settled_at = now()
    FROM (
        SELECT deliveries.id FROM webhooks JOIN deliveries ON deliveries.webhook_id = webhooks.id
        WHERE webhooks.paused_at IS NOT NULL AND deliveries.status = 'pending'
          AND deliveries.id < waybill_first_uuid7(now() - :retention) AND deliveries.created_at < now() - :retention
        LIMIT :limit FOR UPDATE OF deliveries SKIP LOCKED
    ) AS expired
    WHERE deliveries.id = expired.id
    RETURNING deliveries.id
    """  # noqa: S608  # constants of this module
).bindparams(bindparam("retention", type_=Interval()))

_DELETE_OLD_DELIVERIES: Final = text(
    """
    WITH old AS (
        DELETE FROM deliveries_default WHERE id IN (
            SELECT id FROM deliveries_default
            WHERE created_at < now() - :retention AND settled_at < now() - :retention
            ORDER BY created_at LIMIT :limit
        )
        RETURNING id
    ),
    old_attempts AS (DELETE FROM attempts USING old WHERE attempts.delivery_id = old.id)
    SELECT id FROM old
    """
).bindparams(bindparam("retention", type_=Interval()))


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What was done to the partitions.

    Attributes:
        added: partitions for the weeks to come.
        dropped: weeks of events whose last one is older than `EVENT_RETENTION`.
        dropped_deliveries: weeks of deliveries whose events are older than `DELIVERY_RETENTION`.
        kept: older weeks of which a row is still needed, or which other statements use.
        expired: deliveries that were discarded because their endpoint is paused for too long.
        deleted: old events of the default partition.
        deleted_deliveries: old deliveries of the default partition.
    """

    added: int
    dropped: int
    dropped_deliveries: int
    kept: int
    expired: int
    deleted: int
    deleted_deliveries: int


def sweep(context: Context, budget: Budget) -> Summary:
    settings = context.settings
    with context.transaction() as session:
        added: int = session.execute(_ADD, {"weeks": WEEKS_AHEAD}).scalar_one()
    expired = _in_batches(context, _EXPIRE, retention=settings.delivery_retention, budget=budget)
    # First, because their events are needed as long as a delivery is pending.
    weeks = _weeks_before(context, "deliveries", age=settings.delivery_retention)
    dropped_deliveries, kept_deliveries = _drop(
        context, weeks, tables=("deliveries", "attempts"), budget=budget
    )
    weeks = _weeks_before(context, "events", age=settings.event_retention)
    dropped, kept = _drop(context, weeks, tables=("events",), budget=budget)
    return Summary(
        added=added,
        dropped=dropped,
        dropped_deliveries=dropped_deliveries,
        kept=kept + kept_deliveries,
        expired=expired,
        deleted_deliveries=_in_batches(
            context, _DELETE_OLD_DELIVERIES, retention=settings.delivery_retention, budget=budget
        ),
        deleted=_in_batches(
            context, _DELETE_OLD_EVENTS, retention=settings.event_retention, budget=budget
        ),
    )


def week_of(partition: str) -> datetime:
    """Return the Monday with which the week of a partition begins, from its name."""
    _, _, day = partition.rpartition("_")
    return datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC)


def _weeks_before(context: Context, table: str, *, age: timedelta) -> list[datetime]:
    """Return the weeks of the partitions of which every event is older than `age`."""
    with context.transaction() as session:
        now: datetime = session.execute(text("SELECT now()")).scalar_one()
        names = session.scalars(_PARTITIONS, {"parent": table}).all()
    return [week for name in names if (week := week_of(name)) + WEEK <= now - age]


def _drop(
    context: Context, weeks: list[datetime], *, tables: tuple[str, ...], budget: Budget
) -> tuple[int, int]:
    """Drop the partitions of weeks unless they are needed; return how many weeks, and how many are kept."""
    dropped = kept = 0
    for week in weeks:
        if budget.is_spent:
            break
        if _drop_unless_needed(context, week, tables=tables):
            dropped += 1
        else:
            kept += 1
    return dropped, kept


def _drop_unless_needed(context: Context, week: datetime, *, tables: tuple[str, ...]) -> bool:
    partitions = [f"{table}_{week:%Y%m%d}" for table in tables]
    try:
        with context.transaction() as session:
            is_needed = _is_needed(session, partitions[0], week=week)
            if not is_needed:
                session.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
                session.execute(text(f"LOCK TABLE ONLY {', '.join(tables)}"))
                # A delivery may have become pending meanwhile, as one that is sent again does.
                is_needed = _is_needed(session, partitions[0], week=week)
            if is_needed:
                log.info("sweep.partition_kept", partition=partitions[0], reason="needed")
                return False
            for partition in partitions:
                session.execute(text(f"DROP TABLE IF EXISTS {partition}"))
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        # The next sweep tries again. Raised, the error would end every sweep of rows.
        log.warning("sweep.partition_kept", partition=partitions[0], reason="locked")
        return False
    log.info("sweep.partition_dropped", partitions=partitions)
    return True


def _is_needed(session: Session, partition: str, *, week: datetime) -> bool:
    if partition.startswith("deliveries"):
        statement = text(_IS_PENDING_IN.format(partition=partition))
        return bool(session.scalar(statement))
    statement = text(_OF_WEEK_IS_NEEDED.format(partition=partition))
    return bool(session.scalar(statement, {"week": week, "next_week": week + WEEK}))


def _in_batches(
    context: Context, statement: TextClause, *, retention: timedelta, budget: Budget
) -> int:
    """Execute a statement until it finds less than a batch; return how many rows it has found."""
    total = 0
    count = BATCH
    while count == BATCH and not budget.is_spent:
        with context.transaction() as session:
            count = len(session.execute(statement, {"retention": retention, "limit": BATCH}).all())
        total += count
    return total
