"""The sweep of old rows, killed at random: nothing is left, nothing is deleted or announced twice."""

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select, update

from dev.stack.checkout import CHECKOUT
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
    context: Context, environment: Mapping[str, str], *, extent: Extent
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

    killed = sum(_kill(environment) for _ in range(extent.kills))

    assert killed > 0, "every sweep ended before it was killed"
    _sweep_until_nothing_is_due(context, environment)
    with context.transaction() as session:
        # The uploads of the deleted documents are kept for a time.
        session.execute(
            update(Upload)
            .where(Upload.status == UploadStatus.CANCELLED, Upload.finalized_at.is_(None))
            .values(expires_at=ended.LONG_AGO)
        )
    _sweep_until_nothing_is_due(context, environment)
    assert {table: count(context, table) for table in TABLES} == before
    assert keys(context) == objects
    announced = Counter(event.upload_id for event in emitted(context))
    assert announced == Counter(document.upload_id for document in old)
    assert count(context, EventRecord) == count(context, OutboxMessage) == len(old)
    with context.transaction() as session:
        assert session.scalars(select(TenantUsage.bytes)).one() == kept.size


_COMMAND = (sys.executable, "-m", "tests.integration.pipeline.maintenance.sweep_program")


def _kill(environment: Mapping[str, str]) -> bool:
    """Start a sweep and kill it after a random time; False if it had ended before."""
    with subprocess.Popen(
        _COMMAND, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begins\n"
        time.sleep(random.uniform(0, 0.4))  # the moment of the kill
        was_running = process.poll() is None
        process.kill()
    return was_running


def _sweep_until_nothing_is_due(context: Context, environment: Mapping[str, str]) -> None:
    for _ in range(RUNS_MAX):
        subprocess.run(_COMMAND, cwd=CHECKOUT, env=environment, check=True, timeout=300)
        if not _is_due(context):
            break


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
