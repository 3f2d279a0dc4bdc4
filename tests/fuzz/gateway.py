"""A gateway process to fuzz."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from dev.stack.stack import Stack
from schemas.tables.uploads import Chunk, Upload

SETTINGS: Final = {
    # Small enough for a generator of bytes.
    "CHUNK_SIZE_MIN": "1",
    # Every example creates an upload, which stays until the final check.
    "QUOTA_OPEN_UPLOADS": "1000000",
    # A generator sends as fast as it can.
    "REQUEST_RATE": "1000000",
    # Every allowed size fits on the disk: an answer 507 would count as a failure.
    "UPLOAD_MAX_SIZE": "1GiB",
    # No request here has to wait for a result.
    "CHUNK_LOCK_WAIT": "200ms",
    "WAIT_MAX": "100ms",
    "SYNC_WAIT_MAX": "100ms",
}


@dataclass(frozen=True)
class Fuzzed:
    """The gateway, and the checks that hold after any requests."""

    stack: Stack
    key: str

    @property
    def url(self) -> str:
        return self.stack.url

    def failures(self) -> list[str]:
        """Return the log lines of internal errors; a line that is not JSON counts as one."""
        gateway = self.stack.processes["gateway"]
        assert gateway.restarts == 0, gateway.log_file.read_text()
        return [line for line in gateway.log_file.read_text().splitlines() if _is_failure(line)]

    def corrupt_chunks(self) -> list[str]:
        """Return the chunks whose row has another sha256 than the staged bytes."""
        staging = Path(self.stack.environment["STAGING_DIR"])
        engine = create_engine(self.stack.environment["DATABASE_URL"])
        with Session(engine) as session:
            rows = session.execute(
                select(Chunk, Upload.chunk_size).join(Upload, Upload.id == Chunk.upload_id)
            ).all()
        engine.dispose()
        assert rows, "no chunk was stored"
        return [
            f"{chunk.upload_id}/{chunk.index}"
            for chunk, chunk_size in rows
            if hashlib.sha256(
                _read(staging / str(chunk.upload_id), at=chunk.index * chunk_size, size=chunk.size)
            ).digest()
            != chunk.sha256
        ]


def _is_failure(line: str) -> bool:
    if not line.startswith("{"):
        return True
    return json.loads(line)["level"] in {"error", "critical"}


def _read(path: Path, *, at: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(at)
        return file.read(size)


@contextmanager
def started(infrastructure: Stack, *, template: str) -> Iterator[Fuzzed]:
    with infrastructure.scoped("fuzz", settings=SETTINGS, template=template) as stack:
        key = stack.create_api_key(tenant="fuzz")
        stack.start_services("gateway")
        yield Fuzzed(stack, key)
