"""Gateways side by side over one staging directory, dying and not, and clients that know nothing of them."""

import asyncio
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from dev.client import Client
from dev.stack.stack import Stack
from tests.e2e import persistent_client
from tests.e2e.cut_connections import upload_over_bad_connections
from tests.e2e.files import PATIENCE
from tests.e2e.gateways import Gateways
from tests.e2e.killed_gateways import upload_while_gateways_die
from tests.e2e.traces import Remains
from tests.e2e.whole_system import Scene
from tests.integration.gateway.api import KIB64, pieces_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def test_what_gateways_acked_outlives_them(scene: Scene, tmp_path: Path) -> None:
    outcome = asyncio.run(
        upload_while_gateways_die(scene, directory=tmp_path, kills=6, seed=20_261_120)
    )

    assert outcome.checked
    assert outcome.broken, "no gateway died with a request in its hands"
    scene.check_objects(outcome.sent)
    scene.check_no_files(outcome.sent)


# The soak does it with either.
@pytest.mark.parametrize("scene", ["system"], ids=["directory"], indirect=True)
def test_a_hundred_clients_with_cut_connections_corrupt_nothing_behind_any_gateway(
    scene: Scene, tmp_path: Path
) -> None:
    outcome = asyncio.run(
        upload_over_bad_connections(scene, directory=tmp_path, clients=100, seed=9)
    )

    assert len(outcome.sent) == 100
    assert outcome.cut > 100
    # Each came while another request of the same upload hung.
    assert outcome.waits
    assert outcome.stuck_answer == 200
    scene.check_objects(outcome.sent)


def test_fifty_finalizes_over_two_gateways_make_one_job_and_one_object(
    system: Stack, client: Client, remains: Remains, tmp_path: Path
) -> None:
    content = Random(10).randbytes(3 * KIB64)

    async def finalize_from_everywhere() -> tuple[str, set[str]]:
        async with (
            Gateways.started(2, environment=system.environment, directory=tmp_path) as gateways,
            persistent_client.caller(
                str(system.api_key), urls=lambda: gateways.urls, random=Random(11)
            ) as caller,
        ):
            pieces = pieces_of(content)
            upload_id = await caller.create(size=len(content))
            for index, piece in enumerate(pieces):
                (await caller.put(upload_id, index=index, piece=piece)).raise_for_status()
            jobs = await asyncio.gather(
                *(caller.finalize(upload_id, pieces=pieces) for _ in range(50))
            )
            return upload_id, set(jobs)

    upload_id, jobs = asyncio.run(finalize_from_everywhere())

    (job_id,) = jobs
    assert client.wait_until_settled(job_id, timeout=PATIENCE)["status"] == "completed"
    assert Counter(event.type for event in remains.told(upload_id)) == {
        "upload.finalized": 1,
        "upload.stored": 1,
    }
    assert len(remains.objects(upload_id)) == 1
