"""A seeded history is one that the product could have written."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import Connection, ForeignKeyConstraint, Row, create_engine, func, select, text
from sqlalchemy.orm import Session

from dev.seed.extent import ACTIVE_SHARE, Extent
from dev.seed.load import TENANTS, SeedRefused, remove, seed
from dev.stack.stack import Stack
from schemas.events import envelope
from schemas.events.documents import (
    DocumentScanned,
    IndexRequested,
    RenderRequested,
    ReprocessRequested,
    TablesRequested,
)
from schemas.events.endpoints import EndpointDisabled, Ping, ReplayRequested
from schemas.events.envelope import REFERENCES
from schemas.events.jobs import JobActionRequested
from schemas.ids import JobId, TenantId, UploadId
from schemas.lifecycle import JobStatus
from schemas.settings import DatabaseSettings, StepSettings, SweepSettings
from schemas.steps import StepName
from schemas.tables import Base
from schemas.tables.dead_letters import DeadLetter
from schemas.tables.deliveries import Delivery
from schemas.tables.events import EventRecord
from schemas.tables.idempotency import IdempotentRequest
from schemas.tables.inbox import InboxMessage
from schemas.tables.jobs import Job
from schemas.tables.ledger import LEDGER, ledger_of, values_of
from schemas.tables.outbox import OutboxMessage
from schemas.tables.steps import Step, TenantSteps, release
from schemas.tables.tenants import Tenant, TenantUsage
from schemas.tables.uploads import Upload
from tests.stack import fresh_name

EXTENT = Extent(rows=2_000)

COUNTERS = select(TenantSteps.__table__).order_by("tenant_id", "name", "priority")
DERIVED = select(Job.id, Job.status, Job.stage, Job.started_at, Job.finished_at).order_by(Job.id)
TICKETS = select(Step.job_id, Step.name, Step.ticket).order_by(Step.job_id, Step.name)


@pytest.fixture(scope="module")
def seeded(infrastructure: Stack, migrated_template: str) -> Iterator[str]:
    """The URL of a seeded database."""
    name = fresh_name()
    url = infrastructure.create_database(name, template=migrated_template)["DATABASE_URL"]
    seed(url, EXTENT)
    yield url
    infrastructure.drop_database(name)


@pytest.fixture
def connection(seeded: str) -> Iterator[Connection]:
    """A connection in a transaction that is rolled back."""
    engine = create_engine(seeded)
    with engine.connect() as connection:
        yield connection
        connection.rollback()
    engine.dispose()


def url_of(database: DatabaseSettings) -> str:
    return database.database_url.get_secret_value()


def counts(url: str) -> dict[str, int]:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = {
            table.name: connection.scalar(select(func.count()).select_from(table)) or 0
            for table in Base.metadata.sorted_tables
        }
    engine.dispose()
    return found


def jobs(url: str) -> set[Row[JobId, UploadId | None, JobStatus]]:
    engine = create_engine(url)
    with engine.connect() as connection:
        found = connection.execute(select(Job.id, Job.upload_id, Job.status)).all()
    engine.dispose()
    return set(found)


def test_every_reference_leads_to_a_row(connection: Connection) -> None:
    references = [
        (table, constraint.column_keys, key.column)
        for table in Base.metadata.sorted_tables
        for constraint in table.constraints
        if isinstance(constraint, ForeignKeyConstraint)
        for key in constraint.elements
    ] + [
        (table, ["event_id"], EventRecord.__table__.c.id)
        for table in Base.metadata.sorted_tables
        if "event_id" in table.c
    ]

    for table, (column,), target in references:
        lost = select(func.count()).where(
            table.c[column].is_not(None), table.c[column].not_in(select(target))
        )
        assert connection.scalar(lost) == 0, f"{table.name}.{column}"


def test_the_triggers_would_have_written_the_same_jobs_tickets_and_counters(
    connection: Connection,
) -> None:
    jobs, tickets, counters = (
        connection.execute(statement).all() for statement in (DERIVED, TICKETS, COUNTERS)
    )
    assert {job.status for job in jobs} == {
        *("queued", "processing", "completed", "failed", "cancelled")
    }

    connection.execute(text("CREATE TEMPORARY TABLE kept ON COMMIT DROP AS SELECT * FROM steps"))
    connection.execute(text("DELETE FROM steps"))
    connection.execute(text("DELETE FROM tenant_steps"))
    connection.execute(text("INSERT INTO steps SELECT * FROM kept ORDER BY ordinal, ticket"))

    assert connection.execute(DERIVED).all() == jobs
    assert connection.execute(TICKETS).all() == tickets
    assert connection.execute(COUNTERS).all() == counters


def test_the_usage_is_zero_once_every_upload_has_ended(connection: Connection) -> None:
    usage = select(TenantUsage.bytes, TenantUsage.open_uploads, TenantUsage.staged_bytes)
    assert all(used.bytes > 0 for used in connection.execute(usage))

    connection.execute(text("UPDATE uploads SET status = 'expired'"))

    assert set(connection.execute(usage)) == {(0, 0, 0)}


def test_every_body_is_the_event_of_its_row(connection: Connection) -> None:
    events = connection.execute(select(EventRecord.__table__)).all()

    # No seeded job reads a document again, renders a page, replays events or changes jobs, no seeded
    # document is scanned, indexed or searched for tables, no seeded batch or export has events, and no seeded endpoint is pinged or disabled.
    assert {event.type for event in events} == {
        each for each in envelope.EVENT_TYPES if not each.startswith(("batch.", "export."))
    } - {
        ReprocessRequested.TYPE,
        RenderRequested.TYPE,
        TablesRequested.TYPE,
        IndexRequested.TYPE,
        DocumentScanned.TYPE,
        Ping.TYPE,
        EndpointDisabled.TYPE,
        ReplayRequested.TYPE,
        JobActionRequested.TYPE,
    }
    for event in events:
        decoded = envelope.decode(event.body)
        assert (decoded.id, decoded.type, decoded.subject, decoded.tenantid) == (
            *(event.id, event.type, event.subject, event.tenant_id),
        )
        assert decoded.references == {name: getattr(event, name) for name in REFERENCES}
        assert decoded.time == event.created_at


def test_every_event_is_in_the_partition_of_its_week(connection: Connection) -> None:
    weeks = connection.execute(
        text(
            "SELECT DISTINCT tableoid::regclass::text, to_char(date_trunc('week', created_at), 'YYYYMMDD') FROM events"
        )
    ).all()

    assert len(weeks) >= EXTENT.span // timedelta(weeks=1)
    assert all(partition == f"events_{monday}" for partition, monday in weeks)


def test_a_running_system_finds_nothing_to_do(connection: Connection) -> None:
    settings, retention = StepSettings(), SweepSettings()
    owners = connection.scalars(select(TenantSteps.tenant_id).where(TenantSteps.waiting > 0))
    for tenant_id in set(owners):
        for name in StepName:
            connection.execute(release(tenant_id, name, settings=settings))
    old = {
        OutboxMessage.published_at: retention.outbox_retention,
        InboxMessage.processed_at: retention.inbox_retention,
        IdempotentRequest.created_at: retention.idempotency_retention,
        Delivery.settled_at: retention.delivery_retention,
        DeadLetter.settled_at: retention.dead_letter_retention,
        EventRecord.created_at: retention.event_retention,
        Job.finished_at: retention.job_retention,
    }
    conditions = [
        OutboxMessage.published_at.is_(None),
        Step.overdue_at < func.now(),
        (Upload.status == "open") & (Upload.expires_at < func.now()),
        (Delivery.status == "pending") & (Delivery.next_attempt_at < func.now()),
        *(time < func.now() - age for time, age in old.items()),
    ]

    for condition in conditions:
        assert connection.scalar(select(func.count()).where(condition)) == 0, str(condition)


def test_the_ledger_of_every_tenant_is_even(connection: Connection) -> None:
    now = datetime.now(UTC)
    since = now - EXTENT.span - timedelta(days=1)
    ledgers = []
    for tenant_id in connection.scalars(select(Tenant.id).where(TENANTS)).all():
        values = values_of(tenant_id=tenant_id, since=since, until=now)
        ledgers.append(ledger_of(connection.execute(LEDGER, values).one(), since=since, until=now))

    assert {(ledger.difference, ledger.waiting) for ledger in ledgers} == {(0, 0)}
    assert any(ledger.pending for ledger in ledgers)


def test_the_declared_tables_are_unchanged(infrastructure: Stack, seeded: str) -> None:
    infrastructure.run(("alembic", "check"), settings={"DATABASE_URL": seeded})


def test_a_smaller_extent_has_the_newest_jobs_of_a_larger_one(
    database: DatabaseSettings, seeded: str
) -> None:
    seed(url_of(database), Extent(rows=500, active=EXTENT.rows // ACTIVE_SHARE))

    newest = jobs(url_of(database))
    assert len([job for job in newest if job.upload_id is not None]) == 500
    assert newest < jobs(seeded)


def test_a_seeded_database_is_not_seeded_again(seeded: str) -> None:
    with pytest.raises(SeedRefused, match="seeded already"):
        seed(seeded, EXTENT)


def test_a_removal_leaves_only_the_other_tenants(database: DatabaseSettings) -> None:
    url = url_of(database)
    engine = create_engine(url)
    with Session(engine) as session, session.begin():
        tenant = Tenant(id=TenantId(uuid4()), name="real")
        session.add(tenant)
        session.flush()
        session.add(
            Upload(
                id=UploadId(uuid4()),
                tenant_id=tenant.id,
                filename="real.bin",
                size=1,
                chunk_size=1,
                chunk_count=1,
                expires_at=datetime.now(UTC),
            )
        )
    before = counts(url)
    with pytest.raises(SeedRefused, match="uploads of other tenants"):
        seed(url, EXTENT)
    assert counts(url) == before

    seed(url, EXTENT, force=True)
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(Tenant).where(TENANTS)) == 20
    remove(url)

    assert counts(url) == before
    engine.dispose()
