"""A file in staging, and a worker that sends it."""

import threading
from pathlib import Path

import pytest

from pipeline.storage.port import Body, Multipart
from pipeline.transfer.errors import LeaseLost
from pipeline.transfer.plan import PartPlan
from pipeline.transfer.resume import PreviousAttempt
from pipeline.transfer.send import REREAD_MAX_BYTES, FileTransfer, SentObject
from pipeline.transfer.sources.staged_file import StagedFile
from schemas.errors import StoreRejected, StoreUnavailable
from schemas.object_keys import ObjectKey
from tests.fakes.storage import Call, FakeStorage, nothing, raising
from tests.unit.pipeline.transfer.recorder import Recorder
from tests.unit.pipeline.transfer.staging import CHUNK_SIZE, CONTENT, KEY, PART_SIZE, chunks_of, md5

UNAVAILABLE = StoreUnavailable("test", reason="down")
REJECTED = StoreRejected("test", reason="no")


def stage(
    directory: Path,
    content: bytes = CONTENT,
    *,
    chunk_size: int = CHUNK_SIZE,
    declared: str | None = None,
) -> StagedFile:
    path = directory / "staged"
    path.write_bytes(content)
    return StagedFile(
        path=path,
        size_bytes=len(content),
        chunk_size=chunk_size,
        chunks=chunks_of(content, chunk_size=chunk_size),
        sha256=declared,
        content_type=None,
    )


def send(
    staged: StagedFile,
    *,
    storage: FakeStorage,
    resume: str | PreviousAttempt | None = None,
    recorder: Recorder | None = None,
    part_size: int = PART_SIZE,
    parallel_parts: int = 3,
    reread_max_bytes: int = REREAD_MAX_BYTES,
) -> SentObject:
    return FileTransfer(
        staged,
        to=KEY,
        storage=storage,
        plan=PartPlan(staged.size_bytes, part_size=part_size),
        parallel_parts=parallel_parts,
        previous=PreviousAttempt(resume, checkpoint=None) if isinstance(resume, str) else resume,
        listener=(recorder or Recorder()).watch(),
        reread_max_bytes=reread_max_bytes,
    ).run()


def die_at_part(
    number: int, staged: StagedFile, *, storage: FakeStorage, parallel_parts: int = 1
) -> PreviousAttempt:
    """Have a worker die as it sends a part; return what it reported."""
    recorder = Recorder()
    storage.before = raising(UNAVAILABLE, on="upload_part", part=number)
    with pytest.raises(StoreUnavailable):
        send(staged, storage=storage, recorder=recorder, parallel_parts=parallel_parts)
    storage.before = nothing
    storage.calls.clear()
    return recorder.reported


class HangingDelete:
    """A DELETE that ends once it is told that nobody waits for it: `storage.before`."""

    def __init__(self) -> None:
        self.has_begun = threading.Event()
        self.was_abandoned: list[bool] = []

    def __call__(self, call: Call) -> None:
        if call.name == "delete":
            self.has_begun.set()
            assert call.abandoned is not None
            self.was_abandoned.append(call.abandoned.wait(timeout=10))

    def lose_lease(self, *_: Recorder) -> None:
        """Find, while it hangs, that another worker has the upload: the heartbeat."""
        if self.has_begun.is_set():
            raise LeaseLost


def store_parts(
    storage: FakeStorage, contents: dict[int, bytes], *, key: ObjectKey = KEY
) -> Multipart:
    """Leave an unfinished multipart upload behind, as a worker that died would."""
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
