"""Exports whose time is over are deleted with their files; files without an export are orphans."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import func, select, update

from pipeline.maintenance import exports
from pipeline.maintenance.exclusive import Budget
from schemas import object_keys
from schemas.errors import StoreUnavailable
from schemas.events.envelope import Envelope
from schemas.ids import ExportId, TenantId
from schemas.settings import DatabaseSettings
from schemas.tables import steps
from schemas.tables.exports import Export
from schemas.tables.jobs import Job
from tests.factories.exports import export_of, request_export
from tests.factories.uploads import add_tenant
from tests.fakes.storage import Call, raising
from tests.integration.pipeline.export_worker import ExportWorker, export_worker

LONG_AGO = datetime.now(UTC) - timedelta(days=1)
BUDGET = timedelta(minutes=1)


@pytest.fixture
def worker(database: DatabaseSettings, tmp_path: Path) -> Iterator[ExportWorker]:
    with export_worker(database, work_dir=tmp_path) as worker:
        yield worker


@pytest.fixture
def tenant_id(worker: ExportWorker) -> TenantId:
    with worker.session() as session:
        return add_tenant(session)


def requested(worker: ExportWorker, tenant_id: TenantId) -> Envelope:
    with worker.session() as session:
        return request_export(session, tenant_id)


def completed(worker: ExportWorker, tenant_id: TenantId) -> Envelope:
    event = requested(worker, tenant_id)
    assert worker.deliver(event)
    return event


def expire(worker: ExportWorker, *events: Envelope) -> None:
    with worker.session() as session:
        session.execute(
            update(Export)
            .where(Export.id.in_(map(export_of, events)))
            .values(expires_at=func.now() - timedelta(seconds=1))
        )


def kept(worker: ExportWorker) -> set[ExportId]:
    with worker.session() as session:
        return set(session.scalars(select(Export.id)))


def test_an_expired_export_is_deleted_with_its_file(
    worker: ExportWorker, tenant_id: TenantId
) -> None:
    expired, other = completed(worker, tenant_id), completed(worker, tenant_id)
    waiting = requested(worker, tenant_id)
    expire(worker, expired, waiting)

    summary = exports.sweep(worker.context, Budget.of(BUDGET))

    assert (summary.deleted, summary.left) == (1, 0)
    assert kept(worker) == {export_of(other), export_of(waiting)}
    assert worker.left(expired) == ([], [])
    assert worker.content(other)


def test_a_cancelled_export_is_deleted_once_it_has_expired(
    worker: ExportWorker, tenant_id: TenantId
) -> None:
    event = requested(worker, tenant_id)
    assert event.job_id is not None
    with worker.session() as session:
        session.execute(steps.cancel(event.job_id))
    expire(worker, event)

    assert exports.sweep(worker.context, Budget.of(BUDGET)).deleted == 1

    assert kept(worker) == set()


def test_a_store_that_fails_keeps_the_row_for_the_next_sweep(
    worker: ExportWorker, tenant_id: TenantId
) -> None:
    event = completed(worker, tenant_id)
    expire(worker, event)
    worker.storage.before = raising(StoreUnavailable("delete_all", reason="test"), on="delete_all")

    summary = exports.sweep(worker.context, Budget.of(BUDGET))

    assert (summary.deleted, summary.left) == (0, 1)
    assert kept(worker) == {export_of(event)}
    worker.storage.before = lambda _: None
    assert exports.sweep(worker.context, Budget.of(BUDGET)).deleted == 1


class Killed(BaseException):
    """The worker dies."""


def test_a_sweep_killed_after_the_file_deletes_the_row_later(
    worker: ExportWorker, tenant_id: TenantId
) -> None:
    event = completed(worker, tenant_id)
    expire(worker, event)

    def die(call: Call) -> None:
        if call.name == "delete_all":
            raise Killed

    worker.storage.after = die
    with pytest.raises(Killed):
        exports.sweep(worker.context, Budget.of(BUDGET))
    assert worker.left(event) == ([], [])
    worker.storage.after = lambda _: None

    assert exports.sweep(worker.context, Budget.of(BUDGET)).deleted == 1
    assert kept(worker) == set()


def test_old_files_that_no_export_has_are_deleted(
    worker: ExportWorker, tenant_id: TenantId
) -> None:
    active, done = requested(worker, tenant_id), completed(worker, tenant_id)
    worker.storage.clock = lambda: LONG_AGO
    keys = {
        name: object_keys.export_file(tenant_id, export_id, attempt=uuid4())
        for name, export_id in {
            "active": export_of(active),
            "earlier": export_of(done),
            "unknown": ExportId(uuid4()),
        }.items()
    }
    for key in keys.values():
        worker.storage.create_multipart(key, content_type="text/csv")
        _put(worker, key)
    worker.storage.clock = lambda: datetime.now(UTC)
    young = object_keys.export_file(tenant_id, ExportId(uuid4()), attempt=uuid4())
    _put(worker, young)

    report = exports.sweep_orphans(worker.context, Budget.of(BUDGET))

    assert (report.removed, report.failed) == (4, 0)
    left = {key for key in worker.storage.objects if key.startswith(object_keys.EXPORTS)}
    assert left == {keys["active"], young, worker.export(done).object_key}
    unfinished = worker.storage.multiparts_under(object_keys.EXPORTS)
    assert [each.multipart.key for each in unfinished] == [keys["active"]]


def test_the_file_of_a_deleted_job_is_an_orphan(worker: ExportWorker, tenant_id: TenantId) -> None:
    worker.storage.clock = lambda: LONG_AGO
    event = completed(worker, tenant_id)
    with worker.session() as session:
        session.delete(session.get_one(Job, event.job_id))

    report = exports.sweep_orphans(worker.context, Budget.of(BUDGET))

    assert report.removed == 1
    assert worker.left(event) == ([], [])


def _put(worker: ExportWorker, key: object_keys.ObjectKey) -> None:
    multipart = worker.storage.create_multipart(key, content_type="text/csv")
    worker.storage.complete(multipart, parts=[])
