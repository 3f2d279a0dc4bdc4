"""A process that sends a staged file and kills itself at a given point.

Its argument is a `TransferOrder`. Prints the id of the multipart upload when it is
recorded, and at the end its memory in bytes: before the transfer, and the peak.
"""

import hashlib
import os
import signal
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import google_crc32c
import msgspec
import psutil

from pipeline.storage import plan
from pipeline.storage.port import Multipart, StoredPart
from pipeline.storage.s3 import S3Storage
from pipeline.transfer.checks import Chunk
from pipeline.transfer.resume import Checkpoint
from pipeline.transfer.send import FileTransfer, TransferListener
from pipeline.transfer.sources.staged_file import StagedFile
from schemas.object_keys import ObjectKey
from schemas.settings import MIB, ObjectStoreSettings

KEY = ObjectKey("originals/tenant/upload")
CHUNK_SIZE = 3 * MIB


class Death(StrEnum):
    NEVER = "never"
    BEFORE_RECORD = "before_record"
    AFTER_RECORD = "after_record"
    AFTER_THREE_PARTS = "after_three_parts"
    AFTER_COMPLETE = "after_complete"


class TransferOrder(msgspec.Struct):
    store: dict[str, str]
    path: str
    death: Death


class DyingStorage(S3Storage):
    """Dies right after Complete."""

    def complete(self, multipart: Multipart, *, parts: Sequence[StoredPart]) -> None:
        super().complete(multipart, parts=parts)
        die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def staged(path: Path) -> StagedFile:
    chunks: list[Chunk] = []
    with path.open("rb") as file:
        while content := file.read(CHUNK_SIZE):
            digest = hashlib.sha256(content).digest()
            crc32c = google_crc32c.value(content).to_bytes(4, "big")
            chunks.append(Chunk(len(chunks), size_bytes=len(content), sha256=digest, crc32c=crc32c))
    return StagedFile(
        path=path,
        size_bytes=path.stat().st_size,
        chunk_size=CHUNK_SIZE,
        chunks=chunks,
        sha256=None,
        content_type=None,
    )


def listener(death: Death) -> TransferListener:
    stored = []

    def on_created(multipart_id: str) -> None:
        if death is Death.BEFORE_RECORD:
            die()
        sys.stdout.write(f"{multipart_id}\n")
        sys.stdout.flush()
        if death is Death.AFTER_RECORD:
            die()

    def on_progress(bytes_done: int, _: Checkpoint | None) -> None:
        stored.append(bytes_done)
        if death is Death.AFTER_THREE_PARTS and len(stored) == 3:
            die()

    return TransferListener(on_created=on_created, on_progress=on_progress, heartbeat=lambda: None)


def peak_memory() -> int:
    """Return the peak resident memory of this process; getrusage would include its parent."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].removesuffix("kB")) * 1024


def main() -> None:
    order = msgspec.json.decode(sys.argv[1], type=TransferOrder)
    settings = ObjectStoreSettings.model_validate(order.store)
    kind = DyingStorage if order.death is Death.AFTER_COMPLETE else S3Storage
    storage = kind.connect(settings)
    file = staged(Path(order.path))
    idle = psutil.Process().memory_info().rss
    FileTransfer(
        file,
        to=KEY,
        storage=storage,
        plan=plan.split(
            file.size_bytes, part_size=settings.s3_part_size, max_parts=settings.s3_max_parts
        ),
        parallel_parts=settings.s3_parallel_parts,
        previous=None,
        listener=listener(order.death),
    ).run()
    sys.stdout.write(f"{idle} {peak_memory()}\n")


if __name__ == "__main__":
    main()
