"""Random files, and a client that sends them and retries."""

import hashlib
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from dev.client import Client, chunks_of

TIMEOUT = timedelta(minutes=3)
MIB = 1024 * 1024


def random_file(path: Path, *, mebibytes: int, seed: int) -> str:
    """Write a file that does not compress; return its sha256."""
    random, digest = Random(seed), hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(mebibytes):
            block = random.randbytes(MIB)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def retrying(seconds: int = 120) -> Retrying:
    """Retry requests that fail while a process restarts, as a client should."""
    return Retrying(
        retry=retry_if_exception_type((httpx.TransportError, httpx.HTTPStatusError)),
        stop=stop_after_delay(seconds),
        wait=wait_random_exponential(multiplier=0.2, max=2),
        reraise=True,
    )


def settled(client: Client, job_id: str, *, timeout: timedelta = TIMEOUT) -> dict[str, Any]:
    """Return the job once it is settled."""
    return retrying()(client.wait_until_settled, job_id, timeout=timeout)


def send_file(client: Client, path: Path, **options: Any) -> str:  # noqa: ANN401  # whatever the API takes
    """Create an upload and send every chunk of a file, without finalize; return the upload's id."""
    created = client.create_upload(filename=path.name, size=path.stat().st_size, **options)
    client.send(created["upload_id"], chunks_of(path, chunk_size=max(1, created["chunk_size"])))
    upload_id: str = created["upload_id"]
    return upload_id
