"""The sweep that deletes revisions that no client sees."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import select, update

from pipeline.context import Context
from pipeline.ingest import record, writer
from pipeline.ingest.errors import DocumentCorrupt
from pipeline.ingest.frames import DocumentRead
from pipeline.ingest.record import EndOfReading
from pipeline.maintenance import removal, revisions
from pipeline.maintenance.exclusive import Budget
from pipeline.steps import lease
from schemas import object_keys
from schemas.ids import JobId, RevisionId, UploadId
from schemas.lifecycle import JobKind, StepStatus
from schemas.object_keys import ObjectKey
from schemas.outcomes import Outcome
from schemas.runtime.jobs import retry
from schemas.steps import StepName
from schemas.tables.documents import (
    Document,
    DocumentTable,
    Entity,
    Figure,
    FigureImage,
    Page,
    PageImage,
    Revision,
)
from schemas.tables.jobs import Job
from schemas.tables.steps import Step
from tests.factories.readings import (
    BUDGET,
    SETTINGS,
    WaitingReading,
    a_page,
    add_reprocessing,
    add_stored,
)
from tests.factories.tables import a_figure, a_table, figure_row, table_row
from tests.factories.uploads import add_tenant
from tests.fakes.storage import FakeStorage, Object
from tests.integration.pipeline.maintenance.leftovers import (
    LONG_AGO,
    ample_budget,
    count,
    without_grace,
)

PAGES = 3


def stored(context: Context) -> WaitingReading:
    with context.transaction() as session:
        tenant_id = add_tenant(session)
    with context.transaction() as session:
        return add_stored(session, tenant_id=tenant_id)


def read_again(context: Context, waiting: WaitingReading) -> WaitingReading:
    with context.transaction() as session:
        return add_reprocessing(session, waiting)


def read(
    context: Context,
    waiting: WaitingReading,
    *,
    publish: bool = True,
    last: Outcome = Outcome.COMPLETE,
    is_ocr_available: bool = False,
) -> RevisionId:
    """Write a revision and publish it, or end its job with an error."""
    with context.transaction() as session:
        claimed = waiting.claim(session, StepName.INGEST)
        event_context = waiting.context(session)
    with context.transaction() as session:
        revision_id = record.begin_revision(
            session,
            waiting.document,
            tenant_id=waiting.tenant_id,
            pipeline_version="test",
        )
    with context.transaction() as session:
        record.lock_document(session, waiting.document)
        claimed = writer.write_pages(
            session,
            claimed,
            document=waiting.document,
            revision_id=revision_id,
            pages=[a_page(1), a_page(2), a_page(PAGES, outcome=last)],
            total=PAGES,
            budget=BUDGET,
            settings=SETTINGS,
        )
    with context.transaction() as session:
        if publish:
            record.lock_document(session, waiting.document, is_changed=True)
            record.end_reading(
                session,
                claimed,
                waiting.document,
                revision_id,
                end=EndOfReading(page_count=PAGES, read=DocumentRead()),
                is_ocr_available=lambda: is_ocr_available,
                settings=SETTINGS,
                event_context=event_context,
            )
        else:
            lease.release_lease(session, claimed)
            record.record_failed(
                session,
                waiting.document,
                name=StepName.INGEST,
                error=DocumentCorrupt(),
                settings=SETTINGS,
                event_context=event_context,
            )
    with context.transaction() as session:
        record.record_structure_failed(
            session, waiting.document, error=DocumentCorrupt(), settings=SETTINGS
        )
    return revision_id


def revisions_left(context: Context) -> set[RevisionId]:
    with context.transaction() as session:
        return set(session.scalars(select(Revision.id)))


def test_a_revision_whose_job_failed_is_deleted(context: Context) -> None:
    read(context, stored(context), publish=False)
    assert revisions.sweep(without_grace(context), ample_budget()).revisions == 1
    assert [count(context, table) for table in (Revision, Page, Entity)] == [0, 0, 0]
    assert count(context, Document) == 1


def test_the_summary_of_a_superseded_revision_is_deleted_with_it(context: Context) -> None:
    waiting = stored(context)
    read(context, waiting)
    again = read_again(context, waiting)
    read(context, again)

    assert revisions.sweep(without_grace(context), ample_budget()).revisions == 1

    with context.transaction() as session:
        first, second = (session.get_one(Job, each.job_id).result for each in (waiting, again))
    assert first is not None
    assert second is not None
    assert ("summary" in first, "summary" in second) == (False, True)
    assert first["pages"] == PAGES


def test_a_superseded_revision_is_deleted_with_its_images(context: Context) -> None:
    waiting = stored(context)
    first = read(context, waiting)
    second = read(context, read_again(context, waiting))
    upload_id = waiting.document.upload_id
    keys = [
        key
        for revision_id in (first, second)
        for key in (
            object_keys.thumbnail(upload_id, revision_id),
            object_keys.page_image(upload_id, revision_id, number=2),
            object_keys.figure_image(upload_id, revision_id, number=1),
        )
    ]
    with context.transaction() as session:
        for revision_id in (first, second):
            job = Job(id=JobId(uuid4()), tenant_id=waiting.tenant_id, kind=JobKind.RENDER)
            session.add(job)
            session.flush()
            session.add(PageImage(revision_id=revision_id, page=2, job_id=job.id))
            session.add(table_row(revision_id, a_table()))
            session.add(figure_row(revision_id, a_figure()))
            session.add(FigureImage(revision_id=revision_id, number=1))
    storage = context.storage
    assert isinstance(storage, FakeStorage)
    storage.objects |= {key: Object(b"", content_type="image/png", etag="e") for key in keys}

    assert revisions.sweep(without_grace(context), ample_budget()).revisions == 1

    assert revisions_left(context) == {second}
    assert (count(context, Page), count(context, Entity)) == (PAGES, PAGES)
    assert list(storage.objects) == keys[3:]
    with context.transaction() as session:
        for table in (PageImage, DocumentTable, Figure, FigureImage):
            assert session.scalars(select(table.revision_id)).all() == [second]


def test_an_image_that_is_stored_during_the_sweep_is_not_left(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = stored(context)
    revision_id = read(context, waiting, publish=False)
    key = object_keys.page_image(waiting.document.upload_id, revision_id, number=2)
    with context.transaction() as session:
        job = Job(id=JobId(uuid4()), tenant_id=waiting.tenant_id, kind=JobKind.RENDER)
        session.add(job)
        session.flush()
        session.add(PageImage(revision_id=revision_id, page=2, job_id=job.id))
    storage = context.storage
    assert isinstance(storage, FakeStorage)
    storage.objects[key] = Object(b"", content_type="image/png", etag="e")
    rows_at_deletion = []
    delete_all = storage.delete_all

    def look_and_delete(keys: Sequence[ObjectKey]) -> None:
        rows_at_deletion.append(count(context, PageImage))
        delete_all(keys)

    monkeypatch.setattr(storage, "delete_all", look_and_delete)

    assert revisions.sweep(without_grace(context), ample_budget()).revisions == 1

    # A worker that finds no row deletes what it has stored.
    assert (rows_at_deletion, storage.objects) == ([0], {})


def test_a_revision_is_kept_until_the_grace_period_is_over(context: Context) -> None:
    waiting = stored(context)
    read(context, waiting)
    read(context, read_again(context, waiting))
    read(context, stored(context), publish=False)
    assert revisions.sweep(context, ample_budget()).revisions == 0
    with context.transaction() as session:
        session.execute(update(Document).values(ingested_at=LONG_AGO))
        session.execute(update(Job).values(finished_at=LONG_AGO))
    assert revisions.sweep(context, ample_budget()).revisions == 2


def test_a_revision_that_is_seen_or_written_is_kept(context: Context) -> None:
    published = read(context, stored(context))
    shown_early = read(context, stored(context), last=Outcome.NEEDS_OCR, is_ocr_available=True)
    waiting = stored(context)
    with context.transaction() as session:
        begun = record.begin_revision(
            session,
            waiting.document,
            tenant_id=waiting.tenant_id,
            pipeline_version="test",
        )
    assert revisions.sweep(without_grace(context), ample_budget()).revisions == 0
    assert revisions_left(context) == {published, shown_early, begun}


@pytest.mark.parametrize("rows", [1, 2, PAGES])
def test_a_revision_is_deleted_in_short_transactions(
    context: Context, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "ROWS", rows)
    monkeypatch.setattr(revisions, "REVISIONS", 1)
    read(context, stored(context), publish=False)
    read(context, stored(context), publish=False)
    assert revisions.sweep(without_grace(context), ample_budget()).revisions == 2
    assert count(context, Page) == 0


def test_a_sweep_without_time_deletes_nothing(context: Context) -> None:
    read(context, stored(context), publish=False)
    assert revisions.sweep(without_grace(context), Budget(ends_at=0)).revisions == 0
    assert count(context, Page) == PAGES


def retried(context: Context, waiting: WaitingReading) -> None:
    with context.transaction() as session:
        retry.retry_job(
            session,
            session.get_one(Job, waiting.job_id),
            actor="test",
            export_ttl=timedelta(days=1),
            settings=SETTINGS,
        )


def status_of_metadata(context: Context, waiting: WaitingReading) -> StepStatus:
    with context.transaction() as session:
        return session.get_one(Step, (waiting.job_id, StepName.METADATA)).status


def test_a_revision_whose_job_is_retried_before_its_deletion_is_kept(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = stored(context)
    revision_id = read(context, waiting, publish=False)
    unseen = revisions.unseen_revisions

    def retried_meanwhile(context: Context) -> Sequence[tuple[RevisionId, UploadId]]:
        found = unseen(context)
        retried(context, waiting)
        return found

    monkeypatch.setattr(revisions, "unseen_revisions", retried_meanwhile)
    assert revisions.sweep(without_grace(context), ample_budget()).revisions == 0
    assert revisions_left(context) == {revision_id}
    assert status_of_metadata(context, waiting) is StepStatus.COMPLETED


def test_a_job_that_is_retried_during_the_deletion_writes_another_revision(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = stored(context)
    revision_id = read(context, waiting, publish=False)
    delete = removal.delete_revision
    begun: list[RevisionId] = []

    def retried_meanwhile(context: Context, each: RevisionId, **others: Any) -> bool:  # noqa: ANN401  # those of the function
        retried(context, waiting)
        with context.transaction() as session:
            begun.append(
                record.begin_revision(
                    session,
                    waiting.document,
                    tenant_id=waiting.tenant_id,
                    pipeline_version="test",
                )
            )
        return delete(context, each, **others)

    monkeypatch.setattr(removal, "delete_revision", retried_meanwhile)
    assert revisions.sweep(without_grace(context), ample_budget()).revisions == 1
    assert begun != [revision_id]
    assert revisions_left(context) == set(begun)
    assert status_of_metadata(context, waiting) is StepStatus.QUEUED
