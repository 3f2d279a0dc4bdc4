"""Gateways are killed at random times while clients send; acknowledged chunks stay stored."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.e2e import persistent_client
from tests.e2e.deployment import Deployment
from tests.e2e.gateways import Gateways
from tests.e2e.persistent_client import AckedChunks, FinalizedUpload, PersistentClient
from tests.integration.gateway.api import KIB64


@dataclass(kw_only=True)
class KillReport:
    """The observations of the clients.

    Attributes:
        checked_chunks: acknowledged chunks that were looked up, all kills together.
        broken_requests: requests whose gateway died before the answer.
    """

    uploads: list[FinalizedUpload] = field(default_factory=list)
    checked_chunks: int = 0
    broken_requests: int = 0


async def upload_while_gateways_die(
    deployment: Deployment,
    *,
    directory: Path,
    kills: int,
    clients: int = 6,
    gateways: int = 3,
    seed: int,
) -> KillReport:
    """Kill gateways one after the other, while clients upload.

    After each kill, every chunk acknowledged so far is looked up.

    Raises:
        AssertionError: an acknowledged chunk was missing or had another sha256.
    """
    report, acked, enough = KillReport(), AckedChunks(), asyncio.Event()
    async with (
        Gateways.started(
            gateways, environment=deployment.gateway_environment, directory=directory
        ) as running,
        persistent_client.connected(
            deployment.key, urls=lambda: running.urls, random=Random(seed)
        ) as client,
    ):

        async def keep_uploading(random: Random) -> None:
            while not enough.is_set():
                content = random.randbytes(random.randrange(1, 24 * KIB64))
                report.uploads.append(await client.upload(content, acked=acked))

        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(keep_uploading(Random(seed + 1 + number)))
            random = Random(seed)
            for _ in range(kills):
                await asyncio.sleep(random.uniform(0.02, 0.6))
                await running.kill_one(random)
                report.checked_chunks += await _checked(acked, client=client)
            enough.set()
        report.broken_requests = client.broken_requests
    return report


async def _checked(chunks: AckedChunks, *, client: PersistentClient) -> int:
    """Look up the acknowledged chunks of open uploads; return how many chunks were expected."""
    expected = chunks.copy()
    manifests = await asyncio.gather(*(client.stored_chunks(upload_id) for upload_id in expected))
    for (upload_id, acked), stored in zip(expected.items(), manifests, strict=True):
        # The chunks of an upload that was finalized meanwhile may be deleted already.
        if chunks.is_open(upload_id):
            assert acked.items() <= stored.items(), f"upload {upload_id} lost acknowledged chunks"
    return sum(map(len, expected.values()))
