"""Many clients with a bad network, and one that is stuck, in front of several gateways."""

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
from tests.e2e.gateways import Gateways
from tests.e2e.persistent_client import Ledger, Sent
from tests.e2e.whole_system import Scene
from tests.integration.gateway.api import KIB64

BETWEEN_LOOKS = timedelta(seconds=0.05)


@dataclass(kw_only=True)
class Outcome:
    sent: list[Sent] = field(default_factory=list)
    cut: int = 0
    """Connections that were lost in the middle of a chunk."""
    waits: list[timedelta] = field(default_factory=list)
    """How long the manifest of the stuck upload took, each time it was asked for."""
    stuck_answer: int = 0
    """The status of the stuck request's answer, once it was sent to its end."""


async def upload_over_bad_connections(
    scene: Scene,
    *,
    directory: Path,
    clients: int,
    looks: int = 1,
    gateways: int = 2,
    seed: int,
) -> Outcome:
    """Let each client send a file, losing connections; one request hangs all the while.

    The manifest it concerns is looked at until everybody is done, and at least so often.
    """
    outcome = Outcome()
    async with (
        Gateways.started(
            gateways, environment=scene.gateway_environment, directory=directory
        ) as running,
        persistent_client.caller(
            scene.key, urls=lambda: running.urls, random=Random(seed)
        ) as caller,
    ):
        stuck_id = await caller.create(size=KIB64)
        reader, writer = await caller.begin(stuck_id, index=0, length=KIB64, body=b"")
        left = KIB64

        async def drip() -> None:
            """Send a byte now and then: the request is slow, not dead."""
            nonlocal left
            while True:
                writer.write(b"x")
                left -= 1
                await asyncio.sleep(BETWEEN_LOOKS.total_seconds())

        async def send(number: int) -> Sent:
            content = Random(seed + number).randbytes(3 * KIB64 + number)
            return await caller.send(content, ledger=Ledger(), cut=0.5)

        everybody_is_done = Event()
        with closing(writer):
            async with asyncio.TaskGroup() as group:
                dripping = group.create_task(drip())
                looking = group.create_task(
                    asyncio.to_thread(
                        _look_on,
                        [f"{url}/api/v1/uploads/{stuck_id}" for url in running.urls],
                        authorization=caller.authorization,
                        at_least=looks,
                        until=everybody_is_done,
                    )
                )
                try:
                    outcome.sent = await asyncio.gather(*map(send, range(clients)))
                finally:
                    everybody_is_done.set()
                outcome.waits = await looking
                dripping.cancel()
            writer.write(b"x" * left)
            outcome.stuck_answer = int((await reader.readline()).split()[1])
        outcome.cut = caller.cut
    return outcome


def _look_on(
    manifests: Sequence[str], *, authorization: Mapping[str, str], at_least: int, until: Event
) -> list[timedelta]:
    """Ask one gateway after the other for the manifest; return how long each answer took.

    Runs on a thread of its own: on the clients' loop it would wait for a hundred of them.
    """
    waits: list[timedelta] = []
    with httpx.Client(headers=authorization, timeout=60, trust_env=False) as http:
        for manifest in cycle(manifests):
            if until.is_set() and len(waits) >= at_least:
                break
            began = monotonic()
            answer = http.get(manifest)
            waits.append(timedelta(seconds=monotonic() - began))
            assert answer.status_code == 200, answer.text
            assert answer.json()["chunks"] == []
            sleep(BETWEEN_LOOKS.total_seconds())
    return waits
