"""A dry run counts exactly what the sweeps then delete."""

from collections.abc import Mapping
from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import func, select, update

from pipeline.context import Context
from pipeline.maintenance import documents, endpoints, exports, jobs, partitions, revisions
from pipeline.maintenance import retention as rows
from schemas.ids import EventId, RevisionId
from schemas.lifecycle import JobStatus, RevisionState, StepStatus, UploadStatus
from schemas.steps import StepName
from schemas.tables import retention
from schemas.tables.documents import Revision
from schemas.tables.exports import Export
from schemas.tables.idempotency import IdempotentRequest
from schemas.tables.inbox import InboxMessage
from schemas.tables.outbox import OutboxMessage
from tests.factories import ended
from tests.factories.exports import request_export
from tests.factories.jobs import step_update
from tests.factories.uploads import add_tenant
from tests.integration.pipeline.maintenance.leftovers import LONG_AGO, ample_budget


def counted(context: Context) -> Mapping[str, int]:
    """Return what is due, without the areas that have nothing."""
    with context.transaction() as session:
        counts = {
            area.name: session.scalar(select(func.count()).select_from(area.due.subquery())) or 0
            for area in retention.areas(context.settings)
        }
    return {name: count for name, count in counts.items() if count}


@pytest.fixture
def full(context: Context) -> Context:
    """A database with rows of most areas that are due, and others that are not."""
    with context.transaction() as session:
        tenant_id = add_tenant(session)
        ended.keep_documents_for(session, tenant_id, timedelta(days=90))
        young = ended.yesterday(session)
        for at in (LONG_AGO, LONG_AGO, young):
            ended.add_document(session, tenant_id, at=at)
            upload = ended.add_upload(session, tenant_id, status=UploadStatus.FAILED, at=at)
            ended.add_job(session, tenant_id, status=JobStatus.FAILED, upload=upload, at=at)
            ended.add_upload(
                session, tenant_id, status=UploadStatus.EXPIRED, is_finalized=False, at=at
            )
            session.add(InboxMessage(consumer="c", event_id=EventId(uuid4()), processed_at=at))
            session.add(OutboxMessage(event_id=EventId(uuid4()), published_at=at))
            session.add(
                IdempotentRequest(
                    tenant_id=tenant_id,
                    key=str(uuid4()),
                    operation="create",
                    request_hash=bytes(32),
                    resource_id=uuid4(),
                    created_at=at,
                )
            )
        document = ended.add_document(session, tenant_id, at=young)
        session.add(
            Revision(
                id=RevisionId(uuid4()),
                document_id=document.id,
                tenant_id=tenant_id,
                job_id=ended.add_job(session, tenant_id, at=young).id,
                number=2,
                pipeline_version="test",
                state=RevisionState.WRITING,
                created_at=young,
            )
        )
        event = request_export(session, tenant_id)
        assert event.job_id is not None
        session.execute(step_update(event.job_id, StepName.EXPORT, StepStatus.COMPLETED))
        session.execute(update(Export).values(expires_at=LONG_AGO))
    return context


def test_the_sweeps_delete_what_the_dry_run_counts_and_leave_nothing_due(full: Context) -> None:
    due = counted(full)

    deleted_jobs = jobs.sweep(full, ample_budget())
    deleted_rows = rows.sweep(full, ample_budget())

    assert due == {
        # The jobs of failed uploads, and of documents.
        "jobs": deleted_jobs.jobs,
        "uploads": deleted_jobs.uploads - 2,  # the others ended with their jobs
        "documents": documents.sweep(full, ample_budget()).documents,
        "revisions": revisions.sweep(full, ample_budget()).revisions,
        "exports": exports.sweep(full, ample_budget()).deleted,
        "outbox": deleted_rows.outbox,
        "inbox": deleted_rows.inbox,
        "idempotency": deleted_rows.idempotency,
    }
    assert due == {
        "jobs": 4,
        "uploads": 2,
        "documents": 2,
        "revisions": 1,
        "exports": 1,
        "outbox": 2,
        "inbox": 2,
        "idempotency": 2,
    }
    endpoints.sweep(full, ample_budget())
    partitions.sweep(full, ample_budget())
    assert counted(full) == {}
