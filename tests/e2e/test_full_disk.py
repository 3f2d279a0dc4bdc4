"""The disk of the staging directory is full."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from dev.stack.stack import Stack
from tests import small_disk
from tests.e2e import persistent_client
from tests.e2e.files import MIB
from tests.e2e.gateways import Gateways
from tests.integration.gateway.api import KIB64, pieces_of

CONTENT = Random(12).randbytes(3 * MIB)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    with small_disk.mounted(tmp_path / "disk", mib=4) as directory:
        yield directory


def free(directory: Path) -> int:
    return os.statvfs(directory).f_bavail


def test_a_full_disk_keeps_acknowledged_chunks_and_no_bytes_of_refused_chunks(
    system: Stack, disk: Path, tmp_path: Path
) -> None:
    environment = system.environment | {
        "STAGING_DIR": str(disk),
        "STAGING_RESERVE": "0",
        "QUOTA_STAGED_BYTES": "1GiB",
    }
    pieces = pieces_of(CONTENT)

    async def fill_the_disk() -> None:
        async with (
            Gateways.started(1, environment=environment, directory=tmp_path) as gateways,
            persistent_client.connected(
                str(system.api_key), urls=lambda: gateways.urls, random=Random(13)
            ) as client,
        ):
            # Both fit when they are created, since their files are sparse.
            first, second = [await client.create(size=len(CONTENT)) for _ in range(2)]
            for index, piece in enumerate(pieces):
                assert (await client.put(first, index=index, piece=piece)).status_code == 200
            acked, index = {}, 0
            before = free(disk)
            while (answer := await client.put(second, index=index, piece=pieces[index])).is_success:
                acked[index] = answer.json()["sha256"]
                index += 1
                before = free(disk)

            assert (answer.status_code, answer.json()["code"]) == (507, "staging_full")
            assert answer.headers["content-type"] == "application/problem+json"
            assert await client.stored_chunks(second) == acked
            assert free(disk) == before
            assert len(acked) * KIB64 <= 4 * MIB - len(CONTENT)
            refused = await client.request(
                "POST", "/uploads", json={"filename": "another.bin", "size": MIB}
            )
            assert (refused.status_code, refused.json()["code"]) == (507, "staging_full")

            (await client.request("DELETE", f"/uploads/{first}")).raise_for_status()
            for rest in range(index, len(pieces)):
                answer = await client.put(second, index=rest, piece=pieces[rest])
                assert answer.status_code == 200
            assert (disk / second).read_bytes() == CONTENT

    asyncio.run(fill_the_disk())
