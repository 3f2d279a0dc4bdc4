"""How long finalize takes to answer for a small and for a large file."""

import time
from datetime import timedelta
from typing import Final

from dev.bench.figures import Spread
from dev.client import Chunk, Client

MIB: Final = 1024 * 1024
GIB: Final = 1024 * MIB
ROUNDS: Final = 5
PATIENCE: Final = timedelta(minutes=5)


def latency(client: Client, *, size: int, chunk_size: int, rounds: int = ROUNDS) -> Spread:
    """Upload files of this size and time the finalize call alone, in milliseconds."""
    waits = []
    for _ in range(rounds):
        created = client.create_upload(filename="large.bin", size=size, chunk_size=chunk_size)
        content = bytes(created["chunk_size"])
        client.send(
            created["upload_id"],
            (
                Chunk(
                    index=index, content=content[: min(len(content), size - index * len(content))]
                )
                for index in range(created["chunk_count"])
            ),
        )
        began = time.perf_counter()
        job_id = client.finalize(created["upload_id"]).json()["job_id"]
        waits.append((time.perf_counter() - began) * 1000)
        client.wait_until_settled(job_id, patience=PATIENCE)
    return Spread.of(waits)
