"""A bit changes where the chunks wait; nobody gets to see a wrong object."""

from pathlib import Path

import pytest

from tests.e2e.files import MIB, PATIENCE, random_file, settle, uploaded
from tests.e2e.whole_system import Scene
from tests.eventually import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def flipped(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


def flip_a_bit(scene: Scene, upload_id: str, *, path: Path, chunk_size: int) -> None:
    """Change a bit of what is staged, and nothing else about it."""
    staged = Path(scene.system.environment["STAGING_DIR"]) / upload_id
    if staged.exists():
        staged.write_bytes(flipped(staged.read_bytes()))
        return
    index = 1
    chunk = path.read_bytes()[index * chunk_size : (index + 1) * chunk_size]
    key = sorted(scene.remains.objects(upload_id))[index]
    scene.bucket.put(key, flipped(chunk))


@pytest.mark.parametrize("chunk_size", [MIB, 6 * MIB], ids=["small chunks", "chunks like parts"])
def test_a_bit_flipped_while_it_waits_fails_the_upload_and_leaves_nothing(
    scene: Scene, chunk_size: int, tmp_path: Path
) -> None:
    path = tmp_path / "file.bin"
    random_file(path, mebibytes=20, seed=20)
    upload_id = uploaded(scene.client, path, chunk_size=chunk_size)
    flip_a_bit(scene, upload_id, path=path, chunk_size=chunk_size)

    job_id = scene.client.finalize(upload_id).json()["job_id"]

    job = settle(scene.client, job_id, timeout=PATIENCE)
    assert (job["status"], job["error"]["code"]) == ("failed", "staging_corrupt")
    eventually(lambda: scene.remains.objects(upload_id), until=lambda keys: not keys)
    eventually(lambda: scene.remains.files(upload_id), until=lambda files: not files)
    assert scene.remains.multiparts(upload_id) == []
    told = [event.type for event in scene.remains.told(upload_id)]
    assert told == ["upload.finalized", "upload.failed"]
