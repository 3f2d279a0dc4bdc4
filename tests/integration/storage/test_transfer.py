"""Transfers to real stores: killed at several points, resumed, and read back."""

import asyncio
import hashlib
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event
from typing import Final
from uuid import uuid4

import msgspec
import pytest

from dev.stack.infrastructure import Store
from dev.stack.stack import Stack
from pipeline.storage import plan
from pipeline.storage.port import Multipart, StoredPart
from pipeline.storage.s3 import S3Storage
from pipeline.transfer.checks import Chunk, ChunkCorrupt
from pipeline.transfer.resume import PreviousAttempt
from pipeline.transfer.send import FileTransfer, SentObject, TransferListener
from pipeline.transfer.sources.staged_objects import StagedObjects
from schemas import staging_layout
from schemas.ids import TenantId, UploadId
from schemas.runtime.s3 import client
from schemas.settings import MIB, ObjectStoreSettings
from tests.contract.test_storage_port import body
from tests.forked_process import fork
from tests.integration.storage import transfer_program
from tests.integration.storage.transfer_program import KEY, Death, TransferOrder, staged
from tests.store_behaviour import StoreBehaviour

STDERR_FILENO: Final = 2
PART_SIZE = 5 * MIB
PARTS = 8
SIZE = (PARTS - 1) * PART_SIZE + 12_345
# Some parts lie in one chunk and are copied; some lie in two chunks and are sent.
CHUNK_SIZE = 12 * MIB
MEMORY_ALLOWED = 64 * MIB
LISTENER = TransferListener(
    on_created=lambda _: None, on_progress=lambda *_: None, heartbeat=lambda: None
)
PROCESS = {
    Store.SWIFT: "swift-proxy",
    Store.SWIFT_TLS: "swift-proxy-tls",
    Store.RCLONE: "rclone",
    Store.RCLONE_TLS: "rclone-tls",
}


@pytest.fixture
def settings(object_store_settings: ObjectStoreSettings) -> ObjectStoreSettings:
    return object_store_settings.model_copy(
        update={"s3_part_size": PART_SIZE, "s3_parallel_parts": 2}
    )


@pytest.fixture
def kill_store(infrastructure: Stack, store: Store) -> Callable[[], None]:
    """Kills the store, and returns once it serves again."""

    def kill() -> None:
        process = infrastructure.processes[PROCESS[store]]
        process.kill()
        process.wait_ready()

    return kill


def run_until(death: Death, *, path: Path, settings: ObjectStoreSettings) -> list[str]:
    """Run a transfer in a process of its own; return the lines that it printed."""
    store = settings.model_dump(mode="json", exclude_none=True) | {
        "s3_access_key_id": settings.s3_access_key_id.get_secret_value(),
        "s3_secret_access_key": settings.s3_secret_access_key.get_secret_value(),
    }
    order = TransferOrder({name: str(value) for name, value in store.items()}, str(path), death)
    exit_code, lines = asyncio.run(_run(msgspec.json.encode(order).decode()))
    assert exit_code == (0 if death is Death.NEVER else -signal.SIGKILL)
    return lines


async def _run(order: str) -> tuple[int, list[str]]:
    with TemporaryFile() as out:
        process = await fork(
            transfer_program.__name__, order, environment={}, out=out.fileno(), err=STDERR_FILENO
        )
        exit_code = await process.wait()
        out.seek(0)
        return exit_code, out.read().decode().splitlines()


def resume(
    path: Path, *, settings: ObjectStoreSettings, storage: S3Storage, multipart_id: str | None
) -> SentObject:
    file = staged(path)
    return FileTransfer(
        file,
        to=KEY,
        storage=storage,
        plan=plan.split(file.size_bytes, part_size=PART_SIZE, max_parts=settings.s3_max_parts),
        parallel_parts=settings.s3_parallel_parts,
        previous=None if multipart_id is None else PreviousAttempt(multipart_id, checkpoint=None),
        listener=LISTENER,
    ).run()


def storage_recording_parts(settings: ObjectStoreSettings, *, sent: list[int]) -> S3Storage:
    """Return storage that records the number of every part that is sent."""

    def note(params: dict[str, dict[str, str]], **_: object) -> None:
        sent.append(int(params["query_string"]["partNumber"]))

    connected = client(settings)
    connected.meta.events.register("before-call.s3.UploadPart", note)
    return S3Storage(connected, bucket=settings.s3_bucket, attempts=settings.s3_attempts)


class LosesTheAnswerOfComplete(S3Storage):
    """Repeats Complete, as after a broken connection."""

    def complete(self, multipart: Multipart, *, parts: Sequence[StoredPart]) -> None:
        super().complete(multipart, parts=parts)
        super().complete(multipart, parts=parts)


def read_back(settings: ObjectStoreSettings) -> str:
    """Return the sha256 of the object, as another client sees it."""
    digest = hashlib.sha256()
    other = client(settings)
    for block in other.get_object(Bucket=settings.s3_bucket, Key=KEY)["Body"].iter_chunks(MIB):
        digest.update(block)
    other.close()
    return digest.hexdigest()


@pytest.mark.parametrize(
    ("death", "fewest_kept"),
    [
        (Death.BEFORE_RECORD, 0),
        (Death.AFTER_RECORD, 0),
        (Death.AFTER_THREE_PARTS, 3),
        (Death.AFTER_COMPLETE, PARTS),
    ],
)
def test_a_killed_transfer_resumes_without_sending_stored_parts_again(
    settings: ObjectStoreSettings, tmp_path: Path, death: Death, fewest_kept: int
) -> None:
    path = tmp_path / "staged"
    path.write_bytes(os.urandom(SIZE))
    recorded = run_until(death, path=path, settings=settings)
    multipart_id = recorded[0] if recorded else None
    parts_sent: list[int] = []
    storage = storage_recording_parts(settings, sent=parts_sent)
    kept = (
        {part.number for part in storage.list_parts(Multipart(KEY, id=multipart_id))}
        if multipart_id and death is not Death.AFTER_COMPLETE
        else set(range(1, fewest_kept + 1))
    )

    sent = resume(path, settings=settings, storage=storage, multipart_id=multipart_id)

    assert len(kept) >= fewest_kept
    assert kept.isdisjoint(parts_sent)
    assert len(parts_sent) == len(set(parts_sent))
    # The store may finish parts that the killed process was sending after `kept` was listed.
    finished_later = set(range(1, PARTS + 1)) - kept - set(parts_sent)
    assert len(finished_later) <= settings.s3_parallel_parts
    assert sent.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == read_back(settings)
    assert storage.open_multiparts(KEY) == []
    storage.close()


def test_a_transfer_survives_a_restart_of_the_store(
    settings: ObjectStoreSettings,
    kill_store: Callable[[], None],
    behaviour: StoreBehaviour,
    tmp_path: Path,
) -> None:
    path = tmp_path / "staged"
    path.write_bytes(os.urandom(SIZE))
    multipart_id, *_ = run_until(Death.AFTER_THREE_PARTS, path=path, settings=settings)
    kill_store()
    parts_sent: list[int] = []
    storage = storage_recording_parts(settings, sent=parts_sent)

    sent = resume(path, settings=settings, storage=storage, multipart_id=multipart_id)

    if behaviour.keeps_multiparts_over_restart:
        assert len(parts_sent) <= PARTS - 3
    else:
        assert sorted(parts_sent) == list(range(1, PARTS + 1))
    assert sent.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == read_back(settings)
    assert storage.open_multiparts(KEY) == []
    storage.close()


def test_a_transfer_whose_answer_to_complete_was_lost_succeeds(
    settings: ObjectStoreSettings, tmp_path: Path
) -> None:
    path = tmp_path / "staged"
    path.write_bytes(os.urandom(SIZE))
    storage = LosesTheAnswerOfComplete.connect(settings)

    sent = resume(path, settings=settings, storage=storage, multipart_id=None)

    assert sent.sha256 == read_back(settings)
    assert storage.open_multiparts(KEY) == []
    storage.close()


def test_chunks_staged_in_the_bucket_become_one_object(
    settings: ObjectStoreSettings, behaviour: StoreBehaviour, tmp_path: Path
) -> None:
    path = tmp_path / "staged"
    path.write_bytes(os.urandom(SIZE))
    parts_sent: list[int] = []
    storage = storage_recording_parts(settings, sent=parts_sent)
    waiting = put_chunks(path, storage=storage)

    sent = FileTransfer(
        waiting,
        to=KEY,
        storage=storage,
        plan=plan.split(SIZE, part_size=PART_SIZE, max_parts=settings.s3_max_parts),
        parallel_parts=settings.s3_parallel_parts,
        previous=None,
        listener=LISTENER,
        work_dir=tmp_path,
    ).run()

    # A store that copies is sent only the parts that lie in two chunks.
    assert (len(parts_sent) < PARTS) is behaviour.copies_parts
    assert sent.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == read_back(settings)
    assert storage.open_multiparts(KEY) == []
    storage.close()


def put_chunks(path: Path, *, storage: S3Storage) -> StagedObjects:
    """Stage a file in the bucket as a gateway with `STAGING=s3` does."""
    tenant_id, upload_id = TenantId(uuid4()), UploadId(uuid4())
    content = path.read_bytes()
    chunks = []
    for index, start in enumerate(range(0, len(content), CHUNK_SIZE)):
        piece = content[start : start + CHUNK_SIZE]
        digest = hashlib.sha256(piece).digest()
        chunks.append(Chunk(index, size_bytes=len(piece), sha256=digest))
        storage.put(
            staging_layout.chunk_key(tenant_id, upload_id, index=index, sha256=digest),
            body=body(piece),
            content_type="application/octet-stream",
            abandoned=Event(),
        )
    return StagedObjects(
        storage=storage,
        tenant_id=tenant_id,
        upload_id=upload_id,
        size_bytes=len(content),
        chunk_size=CHUNK_SIZE,
        chunks=chunks,
        sha256=None,
        content_type=None,
    )


def test_a_bit_flipped_in_staging_leaves_no_object_and_no_parts(
    settings: ObjectStoreSettings, tmp_path: Path
) -> None:
    path = tmp_path / "staged"
    path.write_bytes(os.urandom(SIZE))
    file = staged(path)
    with path.open("r+b") as damaged:
        damaged.seek(SIZE - 1)
        last = damaged.read(1)[0]
        damaged.seek(SIZE - 1)
        damaged.write(bytes([last ^ 1]))
    storage = S3Storage.connect(settings)

    with pytest.raises(ChunkCorrupt):
        FileTransfer(
            file,
            to=KEY,
            storage=storage,
            plan=plan.split(SIZE, part_size=PART_SIZE, max_parts=settings.s3_max_parts),
            parallel_parts=2,
            previous=None,
            listener=LISTENER,
        ).run()

    other = client(settings)
    assert "Contents" not in other.list_objects_v2(Bucket=settings.s3_bucket)
    assert storage.open_multiparts(KEY) == []
    other.close()
    storage.close()


# The memory of the sender does not depend on the store.
@pytest.mark.parametrize("store", [Store.SWIFT, Store.SWIFT_TLS], ids=str)
def test_memory_does_not_grow_with_the_file(
    object_store_settings: ObjectStoreSettings, tmp_path: Path
) -> None:
    path = tmp_path / "staged"
    with path.open("wb") as file:
        file.truncate(8 * object_store_settings.s3_part_size)

    lines = run_until(Death.NEVER, path=path, settings=object_store_settings)

    idle, peak = (int(number) for number in lines[-1].split())
    assert peak - idle < MEMORY_ALLOWED
