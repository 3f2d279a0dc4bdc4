"""A transfer against a real store: killed at any point, resumed, and read back."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from pipeline.storage.port import Multipart
from pipeline.storage.s3 import S3Storage, client
from pipeline.transfer import plan, upload
from pipeline.transfer.checksums import ChunkCorrupt
from pipeline.transfer.upload import Watch
from schemas.settings import MIB, ObjectStoreSettings
from tests.integration.storage.transfer_program import KEY, Death, Order, staged

if TYPE_CHECKING:
    from pipeline.transfer.upload import SentObject

pytestmark = pytest.mark.integration

CHECKOUT = Path(__file__).parents[3]
PART_SIZE = 5 * MIB
PARTS = 8
SIZE = (PARTS - 1) * PART_SIZE + 12_345
MEMORY_ALLOWED = 64 * MIB


@pytest.fixture
def settings(object_store_settings: ObjectStoreSettings) -> ObjectStoreSettings:
    return object_store_settings.model_copy(
        update={"s3_part_size": PART_SIZE, "s3_parallel_parts": 2}
    )


def run_until(death: Death, *, path: Path, settings: ObjectStoreSettings) -> list[str]:
    """Run a transfer in a process of its own and return the lines it managed to write."""
    store = settings.model_dump(mode="json", exclude_none=True) | {
        "s3_access_key_id": settings.s3_access_key_id.get_secret_value(),
        "s3_secret_access_key": settings.s3_secret_access_key.get_secret_value(),
    }
    order = Order({name: str(value) for name, value in store.items()}, str(path), death)
    ran = subprocess.run(
        [sys.executable, "-m", "tests.integration.storage.transfer_program"],
        input=msgspec.json.encode(order),
        stdout=subprocess.PIPE,
        cwd=CHECKOUT,
        check=death is Death.NEVER,
    )
    return ran.stdout.decode().splitlines()


def resume(
    path: Path, *, settings: ObjectStoreSettings, storage: S3Storage, multipart_id: str | None
) -> SentObject:
    file = staged(path)
    return upload.send(
        file,
        to=KEY,
        storage=storage,
        plan=plan.split(file.size_bytes, part_size=PART_SIZE, max_parts=settings.s3_max_parts),
        parallel_parts=settings.s3_parallel_parts,
        resume=multipart_id,
        watch=Watch(on_created=lambda _: None, on_progress=lambda _: None, heartbeat=lambda: None),
    )


def storage_that_tells_parts(settings: ObjectStoreSettings, *, sent: list[int]) -> S3Storage:
    """Return storage that notes the number of every part that goes out."""

    def note(params: dict[str, dict[str, str]], **_: object) -> None:
        sent.append(int(params["query_string"]["partNumber"]))

    connected = client(settings)
    connected.meta.events.register("before-call.s3.UploadPart", note)
    return S3Storage(connected, bucket=settings.s3_bucket, attempts=settings.s3_attempts)


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
def test_a_killed_transfer_is_resumed_without_sending_stored_parts_again(
    settings: ObjectStoreSettings, tmp_path: Path, death: Death, fewest_kept: int
) -> None:
    path = tmp_path / "staged"
    path.write_bytes(os.urandom(SIZE))
    recorded = run_until(death, path=path, settings=settings)
    multipart_id = recorded[0] if recorded else None
    parts_sent: list[int] = []
    storage = storage_that_tells_parts(settings, sent=parts_sent)
    kept = (
        {part.number for part in storage.list_parts(Multipart(KEY, id=multipart_id))}
        if multipart_id and death is not Death.AFTER_COMPLETE
        else set(range(1, fewest_kept + 1))
    )

    sent = resume(path, settings=settings, storage=storage, multipart_id=multipart_id)

    assert len(kept) >= fewest_kept
    assert sorted(parts_sent) == [n for n in range(1, PARTS + 1) if n not in kept]
    assert sent.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == read_back(settings)
    assert storage.open_multiparts(KEY) == []
    storage.close()


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
        upload.send(
            file,
            to=KEY,
            storage=storage,
            plan=plan.split(SIZE, part_size=PART_SIZE, max_parts=settings.s3_max_parts),
            parallel_parts=2,
            resume=None,
            watch=Watch(
                on_created=lambda _: None, on_progress=lambda _: None, heartbeat=lambda: None
            ),
        )

    other = client(settings)
    assert "Contents" not in other.list_objects_v2(Bucket=settings.s3_bucket)
    assert storage.open_multiparts(KEY) == []
    other.close()
    storage.close()


def test_memory_does_not_grow_with_the_file(
    object_store_settings: ObjectStoreSettings, tmp_path: Path
) -> None:
    path = tmp_path / "staged"
    with path.open("wb") as file:
        file.truncate(20 * object_store_settings.s3_part_size)

    lines = run_until(Death.NEVER, path=path, settings=object_store_settings)

    idle, most = (int(number) for number in lines[-1].split())
    assert most - idle < MEMORY_ALLOWED
