"""Many clients with a bad network, and one slow request, in front of several gateways."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from random import Random
from threading import Event
from time import monotonic, sleep

import httpx

from tests.e2e import persistent_client
from tests.e2e.deployment import Deployment
from tests.e2e.gateways import Gateways
from tests.e2e.persistent_client import AckedChunks, FinalizedUpload
from tests.integration.gateway.api import KIB64

POLL_INTERVAL = timedelta(seconds=0.05)


@dataclass(kw_only=True)
class BadNetworkReport:
    """The observations of the clients.

    Attributes:
        cut_requests: connections that broke in the middle of a chunk.
        manifest_times: how long each request for the manifest of the slow upload took.
        slow_status: the status of the answer to the slow request, once it was complete.
    """

    uploads: list[FinalizedUpload] = field(default_factory=list)
    cut_requests: int = 0
    manifest_times: list[timedelta] = field(default_factory=list)
    slow_status: int = 0


async def upload_over_bad_connections(
    deployment: Deployment,
    *,
    directory: Path,
    clients: int,
    manifest_requests: int = 1,
    gateways: int = 2,
    seed: int,
) -> BadNetworkReport:
    """Let each client send a file over breaking connections, while one request hangs.

    The manifest of the hanging request's upload is requested at least `manifest_requests` times,
    and until every client is done.
    """
    report = BadNetworkReport()
    async with (
        Gateways.started(
            gateways,
            # The slow request may last longer than the window in which its rate is measured.
            environment={**deployment.gateway_environment, "BODY_RATE_MIN": "0"},
            directory=directory,
        ) as running,
        persistent_client.connected(
            deployment.key, urls=lambda: running.urls, random=Random(seed)
        ) as client,
    ):
        slow_id = await client.create(size=KIB64)
        reader, writer = await client.begin_chunk(slow_id, index=0, length=KIB64, body=b"")
        missing = KIB64

        async def send_slowly() -> None:
            """Send single bytes, so that the gateway does not end the request as silent."""
            nonlocal missing
            while True:
                writer.write(b"x")
                missing -= 1
                await asyncio.sleep(POLL_INTERVAL.total_seconds())

        async def upload(number: int) -> FinalizedUpload:
            content = Random(seed + number).randbytes(3 * KIB64 + number)
            return await client.upload(content, acked=AckedChunks(), cut_share=0.5)

        clients_done = Event()
        with closing(writer):
            async with asyncio.TaskGroup() as group:
                sending_slowly = group.create_task(send_slowly())
                polling = group.create_task(
                    asyncio.to_thread(
                        _poll_manifests,
                        [f"{url}/api/v1/uploads/{slow_id}" for url in running.urls],
                        authorization=client.authorization,
                        at_least=manifest_requests,
                        until=clients_done,
                    )
                )
                try:
                    report.uploads = await asyncio.gather(*map(upload, range(clients)))
                finally:
                    clients_done.set()
                report.manifest_times = await polling
                sending_slowly.cancel()
            writer.write(b"x" * missing)
            report.slow_status = int((await reader.readline()).split()[1])
        report.cut_requests = client.cut_requests
    return report


def _poll_manifests(
    manifests: Sequence[str], *, authorization: Mapping[str, str], at_least: int, until: Event
) -> list[timedelta]:
    """Request the manifest from each gateway in turn; return how long each answer took.

    Runs on a thread of its own: on the clients' event loop it would wait for a hundred clients.
    """
    times: list[timedelta] = []
    with httpx.Client(headers=authorization, timeout=60, trust_env=False) as http:
        for manifest in cycle(manifests):
            if until.is_set() and len(times) >= at_least:
                break
            began = monotonic()
            answer = http.get(manifest)
            times.append(timedelta(seconds=monotonic() - began))
            assert answer.status_code == 200, answer.text
            assert answer.json()["chunks"] == []
            sleep(POLL_INTERVAL.total_seconds())
    return times
