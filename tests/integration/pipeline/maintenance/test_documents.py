"""The sweep that deletes documents by policy of their tenant."""

from collections.abc import Iterable
from datetime import timedelta

import pytest
from sqlalchemy import select

from pipeline.context import Context
from pipeline.maintenance import documents, jobs
from pipeline.maintenance.documents import Summary
from pipeline.maintenance.exclusive import Budget
from schemas import object_keys
from schemas.errors import StoreRejected, StoreUnavailable
from schemas.events.uploads import UploadCancelled
from schemas.ids import DocumentId, TenantId
from schemas.lifecycle import JobKind, JobStatus, StepStatus, UploadStatus
from schemas.steps import StepName
from schemas.tables.documents import Document, Entity, Page, PageImage, Revision
from schemas.tables.jobs import Job
from schemas.tables.tenants import TenantUsage
from schemas.tables.uploads import Chunk, Upload
from tests.factories import ended
from tests.factories.jobs import step_update
from tests.factories.readings import add_stored
from tests.factories.uploads import add_tenant
from tests.fakes.storage import FakeStorage, nothing, raising
from tests.integration.pipeline.maintenance.leftovers import (
    ample_budget,
    count,
    emitted,
    keys,
    put,
)

NINETY_DAYS = timedelta(days=90)


@pytest.fixture
def tenant_id(context: Context) -> TenantId:
    with context.transaction() as session:
        tenant_id = add_tenant(session)
        ended.keep_documents_for(session, tenant_id, NINETY_DAYS)
    return tenant_id


def store_objects(context: Context, stored: Iterable[Document]) -> set[str]:
    """Store the file and an image of each document; return the keys."""
    return {
        put(context, key)
        for document in stored
        if document.revision_id is not None
        for key in (
            document.object_key,
            object_keys.page_image(document.upload_id, document.revision_id, number=1),
        )
    }


def documents_left(context: Context) -> set[DocumentId]:
    with context.transaction() as session:
        return set(session.scalars(select(Document.id)))


def test_an_old_document_is_deleted_with_its_text_its_objects_and_its_upload(
    context: Context, tenant_id: TenantId
) -> None:
    with context.transaction() as session:
        old = ended.add_document(session, tenant_id)
        ended.add_image(session, old, page=1, status=JobStatus.COMPLETED)
        young = ended.add_document(session, tenant_id, at=ended.yesterday(session))
    store_objects(context, [old])
    kept = store_objects(context, [young])
    jobs.sweep(context, ample_budget())

    assert documents.sweep(context, ample_budget()) == Summary(documents=1, left=0)

    assert documents_left(context) == {young.id}
    tables = (Upload, Revision, Page, Entity, PageImage, Chunk)
    assert [count(context, table) for table in tables] == [2, 1, 2, 1, 0, 1]
    assert keys(context) == kept
    (event,) = emitted(context)
    assert event.data == UploadCancelled(
        upload_id=old.upload_id, job_id=old.job_id, filename=old.filename
    )
    with context.transaction() as session:
        assert session.scalars(select(TenantUsage.bytes)).one() == young.size
    assert documents.sweep(context, ample_budget()) == Summary(documents=0, left=0)


def test_the_upload_of_a_deleted_document_is_kept_as_long_as_a_job(
    context: Context, tenant_id: TenantId
) -> None:
    with context.transaction() as session:
        document = ended.add_document(session, tenant_id)
    documents.sweep(context, ample_budget())
    # Its job is older. Webhooks with a filter by metadata need the upload.
    assert jobs.sweep(context, ample_budget()) == jobs.Summary(jobs=1, uploads=0)
    with context.transaction() as session:
        upload = session.get_one(Upload, document.upload_id)
        assert upload.status is UploadStatus.CANCELLED
        upload.expires_at = ended.LONG_AGO
    assert jobs.sweep(context, ample_budget()) == jobs.Summary(jobs=0, uploads=1)


def test_documents_of_tenants_without_a_policy_are_kept(context: Context) -> None:
    with context.transaction() as session:
        document = ended.add_document(session, add_tenant(session))
    assert documents.sweep(context, ample_budget()) == Summary(documents=0, left=0)
    assert documents_left(context) == {document.id}


@pytest.mark.parametrize("reads_again", [False, True])
def test_a_document_is_kept_until_the_job_that_reads_it_ends(
    context: Context, tenant_id: TenantId, *, reads_again: bool
) -> None:
    with context.transaction() as session:
        if reads_again:
            document_id = ended.add_document(session, tenant_id).id
            job_id = ended.add_job(session, tenant_id, kind=JobKind.REPROCESS).id
            session.get_one(Job, job_id).document_id = document_id
            session.flush()
            session.execute(step_update(job_id, StepName.TRANSFER, StepStatus.RUNNING))
        else:
            document_id = add_stored(session, tenant_id=tenant_id).document.document_id
            session.get_one(Document, document_id).created_at = ended.LONG_AGO
    assert documents.sweep(context, ample_budget()) == Summary(documents=0, left=0)
    assert documents_left(context) == {document_id}


def test_a_document_that_a_worker_or_a_request_has_locked_is_kept(
    context: Context, tenant_id: TenantId
) -> None:
    with context.transaction() as session:
        locked = [ended.add_document(session, tenant_id) for _ in range(2)]
        ended.add_document(session, tenant_id)
    with context.transaction() as other:
        other.execute(
            select(Document.id)
            .where(Document.id == locked[0].id)
            .with_for_update(read=True, key_share=True)
        )
        other.execute(select(Upload.id).where(Upload.id == locked[1].upload_id).with_for_update())
        assert documents.sweep(context, ample_budget()).documents == 1
    assert documents_left(context) == {document.id for document in locked}


def test_the_next_sweep_deletes_the_objects_that_a_killed_sweep_left(
    context: Context, tenant_id: TenantId
) -> None:
    with context.transaction() as session:
        document = ended.add_document(session, tenant_id)
    stored = store_objects(context, [document])
    jobs.sweep(context, ample_budget())
    storage = context.storage
    assert isinstance(storage, FakeStorage)
    storage.before = raising(StoreUnavailable("delete", reason="test"), on="delete")

    with pytest.raises(StoreUnavailable):
        documents.sweep(context, ample_budget())

    # The document is gone for clients, and the row of its upload says that objects are left.
    assert (count(context, Document), count(context, Upload), keys(context)) == (0, 1, stored)
    jobs.sweep(context, ample_budget())
    storage.before = nothing
    assert documents.sweep(context, ample_budget()) == Summary(documents=0, left=0)
    assert keys(context) == set()
    assert len(emitted(context)) == 1


def test_an_object_that_the_store_refuses_to_delete_keeps_no_other(
    context: Context, tenant_id: TenantId
) -> None:
    with context.transaction() as session:
        stored = [ended.add_document(session, tenant_id) for _ in range(3)]
    store_objects(context, stored)
    storage = context.storage
    assert isinstance(storage, FakeStorage)
    delete = storage.delete
    refused = stored[1].object_key

    def refuse(key: str, **options: object) -> None:
        if key == refused:
            raise StoreRejected("delete", reason="test")
        delete(key, **options)  # type: ignore[arg-type]  # passes on what it gets

    storage.delete = refuse  # type: ignore[method-assign]  # a fault of the store
    assert documents.sweep(context, ample_budget()) == Summary(documents=3, left=1)
    assert refused in keys(context)
    assert len(keys(context)) == 2  # with its image


def test_every_document_of_many_is_deleted(
    context: Context, tenant_id: TenantId, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "BATCH", 2)
    with context.transaction() as session:
        for _ in range(5):
            ended.add_document(session, tenant_id)
    assert documents.sweep(context, ample_budget()) == Summary(documents=5, left=0)


def test_a_sweep_without_time_deletes_no_document(context: Context, tenant_id: TenantId) -> None:
    with context.transaction() as session:
        ended.add_document(session, tenant_id)
    assert documents.sweep(context, Budget(ends_at=0)) == Summary(documents=0, left=0)
