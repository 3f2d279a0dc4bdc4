"""Many clients with a bad network, and one that is stuck, in front of several gateways."""

from __future__ import annotations

import asyncio
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from time import monotonic
from typing import TYPE_CHECKING

from tests.e2e import crowd
from tests.e2e.crowd import KIB64, Caller, Ledger, Sent
from tests.e2e.gateways import Gateways

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

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
    *,
    environment: Mapping[str, str],
    key: str,
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
        Gateways.started(gateways, environment=environment, directory=directory) as running,
        crowd.caller(key, urls=lambda: running.urls, random=Random(seed)) as caller,
    ):
        stuck_id = await caller.create(size=KIB64)
        reader, writer = await caller.begin(stuck_id, index=0, length=KIB64, body=b"")
        with closing(writer):
            sending = [
                asyncio.create_task(
                    caller.send(
                        Random(seed + number).randbytes(3 * KIB64 + number),
                        ledger=Ledger(),
                        cut=0.5,
                    )
                )
                for number in range(clients)
            ]
            left = KIB64
            while len(outcome.waits) < looks or not all(one.done() for one in sending):
                # A byte now and then: it is slow, not dead.
                writer.write(b"x")
                left -= 1
                outcome.waits.append(await _look(caller, stuck_id))
                await asyncio.sleep(BETWEEN_LOOKS.total_seconds())
            outcome.sent = await asyncio.gather(*sending)
            writer.write(b"x" * left)
            outcome.stuck_answer = int((await reader.readline()).split()[1])
        outcome.cut = caller.cut
    return outcome


async def _look(caller: Caller, upload_id: str) -> timedelta:
    began = monotonic()
    assert await caller.stored(upload_id) == {}
    return timedelta(seconds=monotonic() - began)
