"""The sweep of old rows, killed at random: nothing is left, nothing is deleted or announced twice."""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import func, select, update

from pipeline.context import Context
from schemas.lifecycle import JobStatus, UploadStatus
from schemas.object_keys import page_image
from schemas.tables import retention
from schemas.tables.documents import Document, Entity, Page, PageImage, Revision
from schemas.tables.events import EventRecord
from schemas.tables.jobs import Job
from schemas.tables.outbox import OutboxMessage
from schemas.tables.steps import Step
from schemas.tables.tenants import TenantUsage
from schemas.tables.uploads import Chunk, Upload
from tests.factories import ended
from tests.factories.uploads import add_tenant
from tests.integration.pipeline.maintenance.leftovers import count, emitted, keys, put
from tests.service_process import ServiceProcess, new_log_file, spawn

TABLES = (Upload, Chunk, Job, Step, Document, Revision, Page, Entity, PageImage)
RUNS_MAX = 20
"""Runs after the last kill; one is enough unless the database still has the lock of a killed one."""


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is swept, and how often the sweep is killed."""

    kills: int
    documents: int
    jobs: int


def assert_killed_sweeps_end_right(
    context: Context, environment: Mapping[str, str], *, extent: Extent, directory: Path
) -> None:
    """Kill sweeps until `extent.kills`, let one end, and compare every table and the bucket."""
    with context.transaction() as session:
        tenant_id = add_tenant(session)
        ended.keep_documents_for(session, tenant_id, timedelta(days=90))
        kept = ended.add_document(session, tenant_id, at=ended.yesterday(session))
        ended.add_image(
            session, kept, page=1, status=JobStatus.COMPLETED, at=ended.yesterday(session)
        )
    _store(context, kept)
    before = {table: count(context, table) for table in TABLES}
    objects = keys(context)
    with context.transaction() as session:
        old = [ended.add_document(session, tenant_id) for _ in range(extent.documents)]
        for document in old:
            ended.add_image(session, document, page=1, status=JobStatus.COMPLETED)
        for _ in range(extent.jobs):
            upload = ended.add_upload(session, tenant_id, status=UploadStatus.FAILED, chunks=3)
            ended.add_job(session, tenant_id, status=JobStatus.FAILED, upload=upload)
    for document in old:
        _store(context, document)

    killed = asyncio.run(_kill(environment, times=extent.kills, directory=directory))

    assert killed > 0, "every sweep ended before it was killed"
    asyncio.run(_sweep_until_nothing_is_due(context, environment, directory=directory))
    with context.transaction() as session:
        # The uploads of the deleted documents are kept for a time.
        session.execute(
            update(Upload)
            .where(Upload.status == UploadStatus.CANCELLED, Upload.finalized_at.is_(None))
            .values(expires_at=ended.LONG_AGO)
        )
    asyncio.run(_sweep_until_nothing_is_due(context, environment, directory=directory))
    assert {table: count(context, table) for table in TABLES} == before
    assert keys(context) == objects
    announced = Counter(event.upload_id for event in emitted(context))
    assert announced == Counter(document.upload_id for document in old)
    assert count(context, EventRecord) == count(context, OutboxMessage) == len(old)
    with context.transaction() as session:
        assert session.scalars(select(TenantUsage.bytes)).one() == kept.size


_PROGRAM: Final = "tests.integration.pipeline.maintenance.sweep_program"


async def _kill(environment: Mapping[str, str], *, times: int, directory: Path) -> int:
    """Start sweeps and kill each after a random time; return how many had not ended before."""
    running = 0
    for _ in range(times):
        sweep = await _started(environment, directory=directory)
        await sweep.until(lambda: "begins\n" in sweep.log_file.read_text())  # noqa: B023  # called here
        await asyncio.sleep(random.uniform(0, 0.4))  # the moment of the kill
        running += sweep.is_running
        await sweep.kill()
    return running


async def _sweep_until_nothing_is_due(
    context: Context, environment: Mapping[str, str], *, directory: Path
) -> None:
    for _ in range(RUNS_MAX):
        sweep = await _started(environment, directory=directory)
        async with asyncio.timeout(300):
            assert await sweep.process.wait() == 0, sweep.log_file.read_text()
        if not _is_due(context):
            break


async def _started(environment: Mapping[str, str], *, directory: Path) -> ServiceProcess:
    log_file = new_log_file(directory, name="sweep")
    process = await spawn(_PROGRAM, environment=environment, log_file=log_file)
    return ServiceProcess(process=process, log_file=log_file)


def _store(context: Context, document: Document) -> None:
    assert document.revision_id is not None
    put(context, document.object_key)
    put(context, page_image(document.upload_id, document.revision_id, number=1))


def _is_due(context: Context) -> bool:
    with context.transaction() as session:
        left = session.scalar(select(func.count()).where(Upload.removed_at.is_not(None)))
        return bool(left) or any(
            session.scalar(select(func.count()).select_from(area.due.subquery()))
            for area in retention.areas(context.settings)
        )


def environment_of(context: Context) -> dict[str, str]:
    """Return the settings of a context as environment variables of a process."""
    settings = context.settings
    return {
        "DATABASE_URL": settings.database_url.get_secret_value(),
        "RABBITMQ_URL": settings.rabbitmq_url.get_secret_value(),
        "STAGING_DIR": str(settings.staging_dir),
        "SECRET_KEYS": settings.secret_keys.get_secret_value(),
        "S3_ENDPOINT_URL": settings.s3_endpoint_url or "",
        "S3_BUCKET": settings.s3_bucket,
        "S3_ACCESS_KEY_ID": settings.s3_access_key_id.get_secret_value(),
        "S3_SECRET_ACCESS_KEY": settings.s3_secret_access_key.get_secret_value(),
    }
