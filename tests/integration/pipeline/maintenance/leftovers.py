"""Uploads, staged bytes and multipart uploads as gateways and workers leave them."""

import hashlib
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from pipeline.context import Context
from pipeline.maintenance.exclusive import Budget
from pipeline.storage.port import Body, Multipart
from schemas import object_keys, staging_layout
from schemas.errors import StoreUnavailable
from schemas.events import envelope
from schemas.events.envelope import Envelope
from schemas.lifecycle import StagingKind, UploadStatus
from schemas.object_keys import ObjectKey
from schemas.steps import StepName
from schemas.tables.events import EventRecord
from schemas.tables.outbox import OutboxMessage
from schemas.tables.steps import Step
from schemas.tables.uploads import Upload
from tests.factories.abandoned import CHUNKS, add_abandoned_upload
from tests.factories.uploads import add_finalized_upload, add_tenant, upload_of
from tests.fakes.storage import FakeStorage, raising

DAY = timedelta(days=1)
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)

NO_GRACE = timedelta(seconds=-10)
"""A grace period that is over even for objects that the store, by its own clock, made just now."""


def without_grace(context: Context) -> Context:
    """Return the context with a grace period that is over for everything."""
    return replace(context, settings=context.settings.model_copy(update={"sweep_grace": NO_GRACE}))


def unavailable(call: str) -> FakeStorage:
    storage = FakeStorage()
    storage.before = raising(StoreUnavailable(call, reason="test"), on=call)
    return storage


def ample_budget() -> Budget:
    return Budget.of(timedelta(minutes=1))


def opened(
    context: Context,
    *,
    staging: StagingKind = StagingKind.DIRECTORY,
    expires_in: timedelta = -timedelta(minutes=1),
    status: UploadStatus = UploadStatus.OPEN,
) -> Upload:
    """Add an upload with two chunks, their rows and their staged bytes."""
    with context.transaction() as session:
        upload = add_abandoned_upload(
            session, staging=staging, expires_in=expires_in, status=status
        )
    if staging is StagingKind.DIRECTORY:
        staged_file(context, str(upload.id))
    else:
        for index in range(CHUNKS):
            key = staging_layout.chunk_key(
                upload.tenant_id, upload.id, index=index, sha256=bytes(32)
            )
            put(context, key)
    return upload


def staged_file(context: Context, name: str, *, age: timedelta = DAY) -> Path:
    assert context.settings.staging_dir is not None
    path = context.settings.staging_dir / name
    path.write_bytes(b"good")
    modified_at = (datetime.now(UTC) - age).timestamp()
    os.utime(path, (modified_at, modified_at))
    return path


def body(content: bytes) -> Body:
    return Body(content, md5=hashlib.md5(content, usedforsecurity=False).digest())


def put(context: Context, key: str) -> str:
    context.storage.put(
        ObjectKey(key), body=body(b"good"), content_type="text/plain", abandoned=Event()
    )
    return key


def begin(context: Context, key: ObjectKey, *, with_part: bool = True) -> Multipart:
    multipart = context.storage.create_multipart(key, content_type="text/plain")
    if with_part:
        context.storage.upload_part(multipart, number=1, body=body(b"good"), abandoned=Event())
    return multipart


def keys(context: Context) -> set[str]:
    return {found.key for found in context.storage.objects_under("")}


def open_multiparts(context: Context) -> set[str]:
    return {found.multipart.id for found in context.storage.multiparts_under("")}


def transferring(context: Context) -> tuple[Envelope, ObjectKey]:
    """Add a finalized upload whose job is in transfer; return its event and its object's key."""
    assert context.settings.staging_dir is not None
    with context.transaction() as session:
        event = add_finalized_upload(
            session,
            tenant_id=add_tenant(session),
            staging_dir=context.settings.staging_dir,
            content=b"good",
        )
    return event, object_keys.original(event.tenantid, upload_of(event))


def change_transfer(context: Context, event: Envelope, **values: object) -> None:
    with context.transaction() as session:
        session.execute(
            update(Step)
            .where(Step.job_id == event.job_id, Step.name == StepName.TRANSFER)
            .values(**values)
        )


def emitted(context: Context) -> list[Envelope]:
    with Session(context.engine) as session:
        bodies = session.scalars(
            select(EventRecord.body)
            .join(OutboxMessage, OutboxMessage.event_id == EventRecord.id)
            .order_by(OutboxMessage.id)
        )
        return [envelope.decode(each) for each in bodies]


def status_of(context: Context, upload: Upload) -> str:
    with Session(context.engine) as session:
        return session.get_one(Upload, upload.id).status


def count(context: Context, table: type) -> int:
    with Session(context.engine) as session:
        return session.scalar(select(func.count()).select_from(table)) or 0
