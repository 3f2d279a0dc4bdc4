"""Transfers as a worker would run them, and workers that die."""

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from pipeline.steps.errors import LeaseLost
from pipeline.storage.plan import PartPlan
from pipeline.storage.port import Body, Multipart
from pipeline.transfer.resume import PreviousAttempt
from pipeline.transfer.send import REREAD_MAX_BYTES, FileTransfer, SentObject
from pipeline.transfer.sources.source import Source
from schemas.errors import StoreRejected, StoreUnavailable
from schemas.object_keys import ObjectKey
from tests.fakes.storage import Call, FakeStorage, nothing
from tests.unit.pipeline.transfer.recorder import Recorder
from tests.unit.pipeline.transfer.staging import KEY, PART_SIZE, md5

UNAVAILABLE = StoreUnavailable("test", reason="down")
REJECTED = StoreRejected("test", reason="no")


def send(
    source: Source,
    *,
    storage: FakeStorage,
    previous: str | PreviousAttempt | None = None,
    recorder: Recorder | None = None,
    part_size: int = PART_SIZE,
    parallel_parts: int = 3,
    heartbeat_interval: timedelta = timedelta(milliseconds=1),
    work_dir: Path | None = None,
    reread_max_bytes: int = REREAD_MAX_BYTES,
) -> SentObject:
    """Run a transfer; an id as `previous` stands for an attempt without a checkpoint."""
    return FileTransfer(
        source,
        to=KEY,
        storage=storage,
        plan=PartPlan(source.size_bytes, part_size=part_size),
        parallel_parts=parallel_parts,
        previous=(
            PreviousAttempt(previous, checkpoint=None) if isinstance(previous, str) else previous
        ),
        listener=(recorder or Recorder()).listener(heartbeat_interval=heartbeat_interval),
        work_dir=work_dir,
        reread_max_bytes=reread_max_bytes,
    ).run()


def die_at_part(
    number: int,
    source: Source,
    *,
    storage: FakeStorage,
    previous: PreviousAttempt | None = None,
    parallel_parts: int = 1,
) -> PreviousAttempt:
    """Run a transfer that fails at a part; return what it recorded for the next attempt."""
    recorder = Recorder(created=[] if previous is None else [previous.multipart_id])

    def fail(call: Call) -> None:
        if call.part == number and call.name in {"upload_part", "copy_part"}:
            raise UNAVAILABLE

    storage.before = fail
    with pytest.raises(StoreUnavailable):
        send(
            source,
            storage=storage,
            recorder=recorder,
            previous=previous,
            parallel_parts=parallel_parts,
        )
    storage.before = nothing
    storage.calls.clear()
    return recorder.attempt


class HangingDelete:
    """A `storage.before` hook: a delete that returns only when it is abandoned."""

    def __init__(self) -> None:
        self.has_begun = threading.Event()
        self.was_abandoned: list[bool] = []

    def __call__(self, call: Call) -> None:
        if call.name == "delete":
            self.has_begun.set()
            assert call.abandoned is not None
            self.was_abandoned.append(call.abandoned.wait(timeout=10))

    def lose_lease(self, *_: Recorder) -> None:
        """A heartbeat that fails once the delete has begun."""
        if self.has_begun.is_set():
            raise LeaseLost


def store_parts(
    storage: FakeStorage, contents: dict[int, bytes], *, key: ObjectKey = KEY
) -> Multipart:
    """Leave an open multipart upload, as a worker that died would."""
    multipart = storage.create_multipart(key, content_type="application/octet-stream")
    for number, content in contents.items():
        storage.upload_part(
            multipart,
            number=number,
            body=Body(content, md5=md5(content)),
            abandoned=threading.Event(),
        )
    storage.calls.clear()
    return multipart
