"""Adds partitions of events before they are needed, and drops old ones that nothing needs."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from psycopg.errors import LockNotAvailable
from sqlalchemy import Interval, bindparam, text
from sqlalchemy.exc import OperationalError

from pipeline.context import Context
from pipeline.maintenance.exclusive import Budget

log = structlog.stdlib.get_logger(__name__)

WEEK: Final = timedelta(days=7)

WEEKS_AHEAD: Final = 4
"""Beat may be down for this long before events go to the default partition."""

BATCH: Final = 1000

LOCK_TIMEOUT: Final = "2s"
"""Dropping a partition waits for every statement that reads events, and makes all later ones wait."""

_PREFIX: Final = "events_"
_DEFAULT: Final = "events_default"

_ADD: Final = text(
    """
    SELECT count(*) FILTER (WHERE waybill_add_events_partition(
        (date_trunc('week', now() AT TIME ZONE 'UTC') + make_interval(weeks => week)) AT TIME ZONE 'UTC'
    ))
    FROM generate_series(0, :weeks) AS week
    """
)

_PARTITIONS: Final = text(
    """
    SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = 'events'::regclass ORDER BY relname
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
    UNION ALL
    SELECT event.id FROM deliveries JOIN {partition} AS event ON event.id = deliveries.event_id
    WHERE deliveries.status = 'pending'
"""

_IS_NEEDED: Final = f"SELECT EXISTS ({_NEEDED})"

_DELETE_OLD: Final = text(
    f"""
    DELETE FROM {_DEFAULT} WHERE id IN (
        SELECT id FROM {_DEFAULT}
        WHERE created_at < now() - :retention AND id NOT IN ({_NEEDED.format(partition=_DEFAULT)})
        ORDER BY created_at LIMIT :limit
    )
    RETURNING id
    """  # noqa: S608  # constants of this module
).bindparams(bindparam("retention", type_=Interval()))


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What was done to the partitions.

    Attributes:
        added: partitions for the weeks to come.
        dropped: partitions whose last event is older than `EVENT_RETENTION`.
        kept: older partitions of which an event is still needed, or which other statements read.
        deleted: old events of the default partition.
    """

    added: int
    dropped: int
    kept: int
    deleted: int


def sweep(context: Context, budget: Budget) -> Summary:
    retention = context.settings.event_retention
    with context.transaction() as session:
        added: int = session.execute(_ADD, {"weeks": WEEKS_AHEAD}).scalar_one()
        now: datetime = session.execute(text("SELECT now()")).scalar_one()
        names = session.scalars(_PARTITIONS).all()
    dropped = kept = 0
    for name in names:
        if name == _DEFAULT or week_of(name) + WEEK > now - retention or budget.is_spent:
            continue
        if _drop_unless_needed(context, name):
            dropped += 1
        else:
            kept += 1
    return Summary(
        added=added,
        dropped=dropped,
        kept=kept,
        deleted=_delete_from_default(context, budget=budget),
    )


def week_of(partition: str) -> datetime:
    """Return the Monday with which the week of a partition begins, from its name."""
    return datetime.strptime(partition.removeprefix(_PREFIX), "%Y%m%d").replace(tzinfo=UTC)


def _drop_unless_needed(context: Context, partition: str) -> bool:
    try:
        with context.transaction() as session:
            if session.scalar(text(_IS_NEEDED.format(partition=partition))):
                log.info("sweep.partition_kept", partition=partition, reason="needed")
                return False
            session.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
            session.execute(text(f"DROP TABLE {partition}"))
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable):
            raise
        # The next sweep tries again. Raised, the error would end every sweep of rows.
        log.warning("sweep.partition_kept", partition=partition, reason="locked")
        return False
    log.info("sweep.partition_dropped", partition=partition)
    return True


def _delete_from_default(context: Context, *, budget: Budget) -> int:
    deleted = 0
    count = BATCH
    while count == BATCH and not budget.is_spent:
        with context.transaction() as session:
            count = len(
                session.execute(
                    _DELETE_OLD,
                    {"retention": context.settings.event_retention, "limit": BATCH},
                ).all()
            )
        deleted += count
    return deleted
