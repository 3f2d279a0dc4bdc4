"""Gateways are killed at random moments while a crowd sends; what was acked stays acked."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.e2e import persistent_client
from tests.e2e.gateways import Gateways
from tests.e2e.persistent_client import Caller, Ledger, Sent
from tests.e2e.whole_system import Scene
from tests.integration.gateway.api import KIB64


@dataclass(kw_only=True)
class Outcome:
    sent: list[Sent] = field(default_factory=list)
    checked: int = 0
    """Promises that were looked after, all rounds together."""
    broken: int = 0
    """Requests whose gateway went away."""


async def upload_while_gateways_die(
    scene: Scene,
    *,
    directory: Path,
    kills: int,
    clients: int = 6,
    gateways: int = 3,
    seed: int,
) -> Outcome:
    """Kill so many gateways, one after the other, under the load of so many clients.

    After each kill every chunk that was acked until then is asked for.

    Raises:
        AssertionError: one was missing, or had another sha256.
    """
    outcome, ledger, enough = Outcome(), Ledger(), asyncio.Event()
    async with (
        Gateways.started(
            gateways, environment=scene.gateway_environment, directory=directory
        ) as running,
        persistent_client.caller(
            scene.key, urls=lambda: running.urls, random=Random(seed)
        ) as caller,
    ):

        async def send_on(random: Random) -> None:
            while not enough.is_set():
                content = random.randbytes(random.randrange(1, 24 * KIB64))
                outcome.sent.append(await caller.send(content, ledger=ledger))

        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                group.create_task(send_on(Random(seed + 1 + number)))
            moments = Random(seed)
            for _ in range(kills):
                await asyncio.sleep(moments.uniform(0.02, 0.6))
                await running.kill_one(moments)
                outcome.checked += await _kept(ledger, caller=caller)
            enough.set()
        outcome.broken = caller.broken
    return outcome


async def _kept(ledger: Ledger, *, caller: Caller) -> int:
    promised = ledger.copy()
    manifests = await asyncio.gather(*(caller.stored(upload_id) for upload_id in promised))
    for (upload_id, acked), stored in zip(promised.items(), manifests, strict=True):
        # One that was finalized meanwhile may be gone for a good reason.
        if ledger.is_open(upload_id):
            assert acked.items() <= stored.items(), f"upload {upload_id} lost what was acked"
    return sum(map(len, promised.values()))
