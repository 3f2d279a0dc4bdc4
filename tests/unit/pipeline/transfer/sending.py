"""A file in staging, and a worker that sends it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from pipeline.storage.errors import StoreRejected, StoreUnavailable
from pipeline.storage.port import Body, Multipart
from pipeline.transfer import upload
from pipeline.transfer.plan import PartPlan
from pipeline.transfer.staged import StagedFile
from pipeline.transfer.upload import Earlier, SentObject
from tests.unit.pipeline.transfer.recorder import Recorder
from tests.unit.pipeline.transfer.stages import CHUNK_SIZE, CONTENT, KEY, PART_SIZE, chunks_of, md5

if TYPE_CHECKING:
    from pathlib import Path

    from schemas.object_keys import ObjectKey
    from tests.fakes.storage import FakeStorage

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
    resume: str | Earlier | None = None,
    recorder: Recorder | None = None,
    part_size: int = PART_SIZE,
    parallel_parts: int = 3,
    read_again_at_most: int = upload.READ_AGAIN_AT_MOST,
) -> SentObject:
    return upload.send(
        staged,
        to=KEY,
        storage=storage,
        plan=PartPlan(staged.size_bytes, part_size=part_size),
        parallel_parts=parallel_parts,
        resume=Earlier(resume, checkpoint=None) if isinstance(resume, str) else resume,
        watch=(recorder or Recorder()).watch(),
        read_again_at_most=read_again_at_most,
    )


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
