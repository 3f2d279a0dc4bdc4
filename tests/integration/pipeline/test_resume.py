"""A transfer that takes more than one delivery goes on where the one before it stopped."""

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
from pipeline.settings import Settings
from schemas import object_keys
from schemas.events.envelope import Envelope
from schemas.lifecycle import JobStatus
from schemas.runtime.s3 import client
from schemas.settings import MIB, DatabaseSettings, ObjectStoreSettings
from schemas.tables.jobs import Job
from schemas.tables.uploads import Chunk
from tests.factories.uploads import add_finalized_upload, add_tenant
from tests.integration.pipeline.transfer_worker import Hands, settings_of_a_worker

pytestmark = pytest.mark.integration

PART_SIZE = 5 * MIB
# The second chunk begins in the first part and ends in the second.
CHUNK_SIZE = 3 * MIB
CONTENT = Random(1).randbytes(4 * PART_SIZE + 12_345)
AT_ONCE = timedelta(microseconds=1)
NEVER = timedelta(hours=1)


@pytest.fixture
def settings(
    database: DatabaseSettings, object_store_settings: ObjectStoreSettings, tmp_path: Path
) -> Settings:
    store = object_store_settings.model_dump() | {"s3_part_size": PART_SIZE, "s3_parallel_parts": 1}
    return settings_of_a_worker(database, staging_dir=tmp_path, **store)


@pytest.fixture
def hands(settings: Settings) -> Iterator[Hands]:
    context = build_context(settings)
    yield Hands(context)
    context.engine.dispose()


@pytest.fixture
def event(hands: Hands, tmp_path: Path) -> Envelope:
    with Session(hands.context.engine) as session, session.begin():
        return add_finalized_upload(
            session,
            tenant_id=add_tenant(session),
            staging_dir=tmp_path,
            content=CONTENT,
            chunk_size=CHUNK_SIZE,
            sha256=hashlib.sha256(CONTENT).hexdigest(),
        )


def in_slices(hands: Hands, *, slice_: timedelta) -> Hands:
    settings = hands.context.settings.model_copy(update={"transfer_slice": slice_})
    return Hands(replace(hands.context, settings=settings))


def overwrite(staged: Path, *, before: int) -> None:
    """Make zeros of the bytes before an offset: who reads them finds another digest."""
    with staged.open("r+b") as file:
        file.write(bytes(before))


def stored_sha256(hands: Hands, event: Envelope) -> str:
    storage = client(hands.context.settings)
    key = object_keys.original(event.tenantid, event.data.upload_id)
    with storage.get_object(Bucket=hands.context.settings.s3_bucket, Key=key)["Body"] as body:
        digest = hashlib.sha256(body.read())
    storage.close()
    return digest.hexdigest()


def test_the_next_delivery_reads_nothing_before_the_checkpoint(
    hands: Hands, event: Envelope, tmp_path: Path
) -> None:
    staged = tmp_path / str(event.data.upload_id)
    one_part_each = in_slices(hands, slice_=AT_ONCE)
    seen: list[int] = []

    while not one_part_each.deliver(event):
        seen.append(hands.job(event).digested_bytes)
        overwrite(staged, before=seen[-1])

    job = hands.job(event)
    assert (job.status, job.error_detail) == (JobStatus.COMPLETED, None)
    assert seen == sorted(set(seen)), "each delivery got further than the one before"
    assert seen[0] >= PART_SIZE
    assert stored_sha256(hands, event) == hashlib.sha256(CONTENT).hexdigest()
    assert (job.digested_bytes, job.digest_state) == (len(CONTENT), None)


@pytest.mark.parametrize(
    "forget",
    [
        pytest.param(update(Job).values(digest_state=None, digested_bytes=0), id="no checkpoint"),
        pytest.param(update(Job).values(digest_state=b"of another machine"), id="one that is none"),
        pytest.param(update(Chunk).values(crc32c=None), id="a chunk begun that has no checksum"),
    ],
)
def test_a_delivery_without_a_usable_checkpoint_reads_from_the_first_byte(
    hands: Hands, event: Envelope, forget: Update
) -> None:
    assert not in_slices(hands, slice_=AT_ONCE).deliver(event)
    with Session(hands.context.engine) as session, session.begin():
        session.execute(forget)

    assert in_slices(hands, slice_=NEVER).deliver(event)

    assert hands.job(event).status == JobStatus.COMPLETED
    assert stored_sha256(hands, event) == hashlib.sha256(CONTENT).hexdigest()


def test_a_delivery_that_reads_from_the_first_byte_detects_changed_bytes(
    hands: Hands, event: Envelope, tmp_path: Path
) -> None:
    assert not in_slices(hands, slice_=AT_ONCE).deliver(event)
    overwrite(tmp_path / str(event.data.upload_id), before=1)
    with Session(hands.context.engine) as session, session.begin():
        session.execute(update(Job).values(digest_state=None))

    assert in_slices(hands, slice_=NEVER).deliver(event)

    assert hands.job(event).error_code == "staging_corrupt"
