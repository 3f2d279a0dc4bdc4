"""How much the transfer worker grows while it sends a large file, in the running system."""

import os
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from dev.bench.memory import MIB, watched
from dev.client import Client

PATIENCE: Final = timedelta(minutes=10)


def growth_while_sending(client: Client, *, size: int, pid: int) -> float:
    """Upload a sparse file and return the worker's growth over idle, in MiB."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "large.bin"
        with path.open("wb") as file:
            os.truncate(file.fileno(), size)
        with watched({"transfer": pid}) as growth:
            job = client.upload(path, chunk_size=64 * MIB)
            settled = client.wait_until_settled(job["job_id"], patience=PATIENCE)
    if settled["status"] != "completed":
        raise RuntimeError(f"the job ended {settled['status']}: {settled['error']}")
    return growth.mib["transfer"]
