"""The downgrade before malware scans leaves no step and no state that the earlier version cannot read."""

from collections.abc import Iterator
from typing import Final
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, delete, text
from sqlalchemy.orm import Session

from dev.stack.stack import Stack
from schemas.ids import EventId, JobId
from schemas.lifecycle import DocumentStatus, Priority, ScanState, StepStatus
from schemas.outcomes import Outcome
from schemas.steps import StepName
from schemas.tables import steps
from schemas.tables.documents import Document
from schemas.tables.steps import Step
from tests.factories.readings import add_stored
from tests.factories.uploads import add_tenant
from tests.stack import fresh_name

BEFORE: Final = "0026"


@pytest.fixture
def database(infrastructure: Stack, migrated_template: str) -> Iterator[tuple[Engine, str]]:
    name = fresh_name()
    url = infrastructure.create_database(name, template=migrated_template)["DATABASE_URL"]
    engine = create_engine(url)
    yield engine, url
    engine.dispose()
    infrastructure.drop_database(name)


def add_scan(
    session: Session,
    *,
    step: StepStatus,
    state: ScanState,
    status: DocumentStatus,
    outcome: Outcome | None = None,
) -> JobId:
    """Add a document whose scan has come so far."""
    waiting = add_stored(session, tenant_id=add_tenant(session))
    session.execute(delete(Step).where(Step.job_id == waiting.job_id))
    steps.add_step(
        session,
        StepName.SCAN,
        job_id=waiting.job_id,
        tenant_id=waiting.tenant_id,
        priority=Priority.INTERACTIVE,
        event_id=EventId(uuid4()),
    )
    session.flush()
    own = session.get_one(Step, (waiting.job_id, StepName.SCAN))
    own.status = step
    document = session.get_one(Document, waiting.document.document_id)
    document.scan_state, document.status, document.outcome = state, status, outcome
    session.flush()
    return waiting.job_id


def test_a_downgrade_fails_open_scans_and_keeps_the_failed_ones(
    infrastructure: Stack, database: tuple[Engine, str]
) -> None:
    engine, url = database
    with Session(engine) as session, session.begin():
        waits = add_scan(
            session,
            step=StepStatus.QUEUED,
            state=ScanState.PENDING,
            status=DocumentStatus.READING,
        )
        clean = add_scan(
            session,
            step=StepStatus.COMPLETED,
            state=ScanState.CLEAN,
            status=DocumentStatus.STORED,
        )
        too_large = add_scan(
            session,
            step=StepStatus.FAILED,
            state=ScanState.UNSCANNABLE,
            status=DocumentStatus.FAILED,
            outcome=Outcome.UNSCANNABLE,
        )
    engine.dispose()

    infrastructure.run(("alembic", "downgrade", BEFORE), settings={"DATABASE_URL": url})

    with engine.connect() as connection:
        found = {
            row.job_id: tuple(row)[1:]
            for row in connection.execute(
                text(
                    "SELECT documents.job_id, documents.status, documents.outcome, jobs.status,"
                    " steps.name, steps.status, steps.error_retryable FROM documents"
                    " JOIN jobs ON jobs.id = documents.job_id"
                    " LEFT JOIN steps ON steps.job_id = documents.job_id"
                )
            )
        }
        scans = connection.scalar(text("SELECT count(*) FROM tenant_steps WHERE name = 'scan'"))
        counters = connection.scalar(
            text("SELECT count(*) FROM tenant_steps WHERE name = 'ingest'")
        )
    assert found == {
        waits: ("failed", None, "failed", "ingest", "failed", True),
        clean: ("stored", None, "completed", None, None, None),
        too_large: ("failed", "quarantined", "failed", "ingest", "failed", None),
    }
    assert (scans, counters) == (0, 3), "counters of the steps that a client may retry"
