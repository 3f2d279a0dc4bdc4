"""A transfer over several deliveries: each continues from the last checkpoint."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import Update, update
from sqlalchemy.orm import Session

from pipeline.context import build_context
from pipeline.ingest.extractors import registry
from pipeline.settings import Settings
from schemas import object_keys
from schemas.events.envelope import Envelope
from schemas.lifecycle import JobStatus
from schemas.runtime.s3 import client
from schemas.settings import MIB, DatabaseSettings, ObjectStoreSettings
from schemas.tables.steps import Step
from schemas.tables.uploads import Chunk
from tests.factories.uploads import add_finalized_upload, add_tenant, upload_of
from tests.integration.pipeline.transfer_worker import TransferWorker, worker_settings

PART_SIZE = 5 * MIB
# The second chunk lies in two parts.
CHUNK_SIZE = 3 * MIB
CONTENT = Random(1).randbytes(4 * PART_SIZE + 12_345)
AT_ONCE = timedelta(microseconds=1)
NEVER = timedelta(hours=1)


@pytest.fixture
def settings(
    database: DatabaseSettings, object_store_settings: ObjectStoreSettings, tmp_path: Path
) -> Settings:
    store = object_store_settings.model_dump() | {"s3_part_size": PART_SIZE, "s3_parallel_parts": 1}
    return worker_settings(database, staging_dir=tmp_path, **store)


@pytest.fixture
def worker(settings: Settings) -> Iterator[TransferWorker]:
    context = build_context(settings, will_be_read=registry.will_be_read)
    yield TransferWorker(context)
    context.engine.dispose()


@pytest.fixture
def event(worker: TransferWorker, tmp_path: Path) -> Envelope:
    with Session(worker.context.engine) as session, session.begin():
        return add_finalized_upload(
            session,
            tenant_id=add_tenant(session),
            staging_dir=tmp_path,
            content=CONTENT,
            chunk_size=CHUNK_SIZE,
            sha256=hashlib.sha256(CONTENT).hexdigest(),
        )


def in_slices(worker: TransferWorker, *, slice_: timedelta) -> TransferWorker:
    settings = worker.context.settings.model_copy(update={"transfer_slice": slice_})
    return TransferWorker(replace(worker.context, settings=settings))


def overwrite(staged: Path, *, before: int) -> None:
    """Overwrite the bytes before an offset with zeros; reading them changes the digest."""
    with staged.open("r+b") as file:
        file.write(bytes(before))


def stored_sha256(worker: TransferWorker, event: Envelope) -> str:
    storage = client(worker.context.settings)
    key = object_keys.original(event.tenantid, upload_of(event))
    with storage.get_object(Bucket=worker.context.settings.s3_bucket, Key=key)["Body"] as body:
        digest = hashlib.sha256(body.read())
    storage.close()
    return digest.hexdigest()


def test_the_next_delivery_reads_nothing_before_the_checkpoint(
    worker: TransferWorker, event: Envelope, tmp_path: Path
) -> None:
    staged = tmp_path / str(event.upload_id)
    one_part_each = in_slices(worker, slice_=AT_ONCE)
    seen: list[int] = []

    while not one_part_each.deliver(event):
        seen.append(worker.job(event).digested_bytes)
        overwrite(staged, before=seen[-1])

    job = worker.job(event)
    assert (job.status, job.error_detail) == (JobStatus.COMPLETED, None)
    assert seen == sorted(set(seen)), "every delivery made progress"
    assert seen[0] >= PART_SIZE
    assert stored_sha256(worker, event) == hashlib.sha256(CONTENT).hexdigest()
    assert (job.bytes_done, job.digest_state) == (len(CONTENT), None)


@pytest.mark.parametrize(
    "forget",
    [
        pytest.param(
            update(Step).values(checkpoint=Step.checkpoint.op("-")("digest_state")),
            id="no checkpoint",
        ),
        pytest.param(
            update(Step).values(
                checkpoint=Step.checkpoint.op("||")({"digest_state": "b2YgYW5vdGhlciBtYWNoaW5l"})
            ),
            id="an invalid checkpoint",
        ),
        pytest.param(
            update(Chunk).values(crc32c=None), id="an unfinished chunk without a checksum"
        ),
    ],
)
def test_a_delivery_without_a_usable_checkpoint_reads_from_the_first_byte(
    worker: TransferWorker, event: Envelope, forget: Update
) -> None:
    assert not in_slices(worker, slice_=AT_ONCE).deliver(event)
    with Session(worker.context.engine) as session, session.begin():
        session.execute(forget)

    assert in_slices(worker, slice_=NEVER).deliver(event)

    assert worker.job(event).status == JobStatus.COMPLETED
    assert stored_sha256(worker, event) == hashlib.sha256(CONTENT).hexdigest()


def test_a_delivery_that_reads_from_the_first_byte_detects_changed_bytes(
    worker: TransferWorker, event: Envelope, tmp_path: Path
) -> None:
    assert not in_slices(worker, slice_=AT_ONCE).deliver(event)
    overwrite(tmp_path / str(event.upload_id), before=1)
    with Session(worker.context.engine) as session, session.begin():
        session.execute(update(Step).values(checkpoint=Step.checkpoint.op("-")("digest_state")))

    assert in_slices(worker, slice_=NEVER).deliver(event)

    assert worker.job(event).error_code == "staging_corrupt"
