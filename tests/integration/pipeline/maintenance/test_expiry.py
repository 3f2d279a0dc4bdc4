"""The sweep that ends uploads which were not finalized in time."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from pipeline.context import Context
from pipeline.maintenance import expiry, orphans
from schemas import staging_layout
from schemas.errors import ErrorCode
from schemas.events.uploads import UploadFailed
from schemas.lifecycle import StagingKind, UploadStatus
from schemas.tables.document_passwords import DocumentPassword
from schemas.tables.tenants import TenantUsage
from schemas.tables.uploads import Chunk, Upload
from tests.factories.abandoned import CHUNKS
from tests.integration.pipeline.maintenance.leftovers import (
    ample_budget,
    count,
    emitted,
    keys,
    opened,
    status_of,
    unavailable,
    without_grace,
)


@pytest.mark.parametrize("staging", [StagingKind.DIRECTORY, StagingKind.OBJECTS])
def test_an_expired_upload_ends_and_leaves_nothing(
    with_store: Context, staging: StagingKind
) -> None:
    upload = opened(with_store, staging=staging)
    swept = expiry.sweep(with_store, ample_budget())
    assert (swept.expired, swept.bytes_left, swept.complete) == (1, 0, True)
    assert status_of(with_store, upload) == UploadStatus.EXPIRED
    assert count(with_store, Chunk) == 0
    assert not keys(with_store)
    assert with_store.settings.staging_dir is not None
    assert [path.name for path in with_store.settings.staging_dir.iterdir()] == [
        staging_layout.MARKER
    ]
    (event,) = emitted(with_store)
    assert event.tenantid == upload.tenant_id
    assert isinstance(event.data, UploadFailed)
    assert event.data.upload_id == upload.id
    assert event.job_id is None
    assert event.data.code == ErrorCode.UPLOAD_EXPIRED
    assert upload.expires_at.isoformat() in event.data.detail


def test_an_expired_upload_uses_no_quota(context: Context) -> None:
    upload = opened(context)
    expiry.sweep(context, ample_budget())
    with Session(context.engine) as session:
        usage = session.get_one(TenantUsage, upload.tenant_id)
    assert (usage.bytes, usage.open_uploads) == (0, 0)


def test_the_password_of_an_expired_upload_is_deleted(context: Context) -> None:
    expired = opened(context)
    open_still = opened(context, expires_in=timedelta(hours=1))
    with context.transaction() as session:
        session.add_all(
            DocumentPassword(upload_id=upload.id, secret="token")  # noqa: S106  # of a test
            for upload in (expired, open_still)
        )
    expiry.sweep(context, ample_budget())
    with context.transaction() as session:
        assert session.scalars(select(DocumentPassword.upload_id)).all() == [open_still.id]


def test_an_expired_upload_emits_one_event(context: Context) -> None:
    opened(context)
    assert [expiry.sweep(context, ample_budget()).expired for _ in range(2)] == [1, 0]
    assert len(emitted(context)) == 1


def test_unexpired_and_finalized_uploads_are_kept(context: Context) -> None:
    open_still = opened(context, expires_in=timedelta(hours=1))
    finalized = opened(context, status=UploadStatus.FINALIZED)
    assert expiry.sweep(context, ample_budget()).expired == 0
    assert status_of(context, open_still) == UploadStatus.OPEN
    assert status_of(context, finalized) == UploadStatus.FINALIZED
    assert count(context, Chunk) == 4


def test_an_upload_that_is_being_finalized_is_skipped(context: Context) -> None:
    upload = opened(context)
    with Session(context.engine) as finalizing:
        finalizing.get_one(Upload, upload.id, with_for_update=True)
        assert expiry.sweep(context, ample_budget()).expired == 0
    assert expiry.sweep(context, ample_budget()).expired == 1


def test_more_uploads_than_one_batch_are_all_ended(context: Context) -> None:
    uploads = [opened(context) for _ in range(expiry.BATCH + 1)]
    assert expiry.sweep(context, ample_budget()).expired == len(uploads)
    assert {status_of(context, upload) for upload in uploads} == {UploadStatus.EXPIRED}


def test_uploads_expire_while_the_store_is_down(context: Context) -> None:
    in_store = opened(context, staging=StagingKind.OBJECTS)
    in_directory = opened(context)
    swept = expiry.sweep(replace(context, storage=unavailable("objects_under")), ample_budget())
    assert (swept.expired, swept.bytes_left, swept.complete) == (2, 1, True)
    assert status_of(context, in_store) == status_of(context, in_directory) == UploadStatus.EXPIRED
    assert orphans.sweep_staged_objects(without_grace(context), ample_budget()).removed == CHUNKS
