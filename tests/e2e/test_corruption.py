"""An upload whose staged bytes change fails, and no object with wrong bytes appears."""

from pathlib import Path

import pytest

from tests.e2e.deployment import Deployment
from tests.e2e.files import MIB, TIMEOUT, random_file, send_file, settled
from tests.eventually import eventually

pytestmark = pytest.mark.timeout(120)


def flipped(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 1
    return bytes(changed)


def flip_a_bit(deployment: Deployment, upload_id: str, *, path: Path, chunk_size: int) -> None:
    """Change one bit of the staged bytes."""
    staged = Path(deployment.system.environment["STAGING_DIR"]) / upload_id
    if staged.exists():
        staged.write_bytes(flipped(staged.read_bytes()))
        return
    index = 1
    chunk = path.read_bytes()[index * chunk_size : (index + 1) * chunk_size]
    key = sorted(deployment.traces.objects(upload_id))[index]
    deployment.bucket.put(key, flipped(chunk))


@pytest.mark.parametrize("chunk_size", [MIB, 6 * MIB], ids=["small chunks", "chunks of part size"])
def test_a_bit_flip_in_staged_bytes_fails_the_upload_and_leaves_nothing(
    deployment: Deployment, chunk_size: int, tmp_path: Path
) -> None:
    path = tmp_path / "file.bin"
    random_file(path, mebibytes=20, seed=20)
    upload_id = send_file(deployment.client, path, chunk_size=chunk_size)
    flip_a_bit(deployment, upload_id, path=path, chunk_size=chunk_size)

    job_id = deployment.client.finalize(upload_id).json()["job_id"]

    job = settled(deployment.client, job_id, timeout=TIMEOUT)
    assert (job["status"], job["error"]["code"]) == ("failed", "staging_corrupt")
    eventually(lambda: deployment.traces.objects(upload_id), until=lambda keys: not keys)
    eventually(lambda: deployment.traces.files(upload_id), until=lambda files: not files)
    assert deployment.traces.multiparts(upload_id) == []
    published = [event.type for event in deployment.traces.events(upload_id)]
    assert published == ["upload.finalized", "upload.failed"]
