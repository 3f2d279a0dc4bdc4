"""Several gateways over one staging: clients may use any of them, and any of them may die."""

import asyncio
import hashlib
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from dev.client import Client
from dev.stack.stack import Stack
from tests.e2e import persistent_client
from tests.e2e.cut_connections import upload_over_bad_connections
from tests.e2e.deployment import Deployment
from tests.e2e.files import TIMEOUT
from tests.e2e.gateways import Gateways
from tests.e2e.killed_gateways import upload_while_gateways_die
from tests.e2e.persistent_client import FinalizedUpload
from tests.e2e.traces import Traces
from tests.integration.gateway.api import KIB64, pieces_of

pytestmark = pytest.mark.timeout(240)


def test_acknowledged_chunks_survive_the_death_of_their_gateway(
    deployment: Deployment, tmp_path: Path
) -> None:
    report = asyncio.run(
        upload_while_gateways_die(deployment, directory=tmp_path, kills=6, seed=20_261_120)
    )

    assert report.checked_chunks
    assert report.broken_requests, "no gateway died while it handled a request"
    deployment.assert_objects_complete(report.uploads)
    deployment.assert_no_files_left(report.uploads)


# The soak tests cover both kinds of staging.
@pytest.mark.parametrize("deployment", ["system"], ids=["directory"], indirect=True)
def test_a_hundred_clients_with_breaking_connections_corrupt_nothing(
    deployment: Deployment, tmp_path: Path
) -> None:
    report = asyncio.run(
        upload_over_bad_connections(deployment, directory=tmp_path, clients=100, seed=9)
    )

    assert len(report.uploads) == 100
    assert report.cut_requests > 100
    # Each manifest arrived while a chunk request of the same upload hung.
    assert report.manifest_times
    assert report.slow_status == 200
    deployment.assert_objects_complete(report.uploads)


def test_the_object_has_the_bytes_of_the_request_that_took_its_chunk_over(
    deployment: Deployment, tmp_path: Path
) -> None:
    lost, content = Random(12).randbytes(KIB64), Random(13).randbytes(KIB64)

    async def take_over() -> FinalizedUpload:
        async with (
            Gateways.started(
                2, environment=deployment.gateway_environment, directory=tmp_path
            ) as gateways,
            persistent_client.connected(
                deployment.key, urls=lambda: gateways.urls[:1], random=Random(14)
            ) as one,
            persistent_client.connected(
                deployment.key, urls=lambda: gateways.urls[1:], random=Random(15)
            ) as other,
        ):
            upload_id = await one.create(size=KIB64)
            _, silent = await one.begin_chunk(
                upload_id, index=0, length=KIB64, body=lost[: KIB64 // 2]
            )
            with closing(silent):
                answer = await other.put(upload_id, index=0, piece=content)
                assert answer.status_code == 200, answer.text
                silent.write(lost[KIB64 // 2 :])
                job_id = await other.finalize(upload_id, pieces=[content])
        return FinalizedUpload(
            upload_id=upload_id, job_id=job_id, sha256=hashlib.sha256(content).hexdigest()
        )

    deployment.assert_objects_complete([asyncio.run(take_over())])


def test_fifty_finalizes_over_two_gateways_create_one_job_and_one_object(
    system: Stack, client: Client, traces: Traces, tmp_path: Path
) -> None:
    content = Random(10).randbytes(3 * KIB64)

    async def finalize_fifty_times() -> tuple[str, set[str]]:
        async with (
            Gateways.started(2, environment=system.environment, directory=tmp_path) as gateways,
            persistent_client.connected(
                str(system.api_key), urls=lambda: gateways.urls, random=Random(11)
            ) as any_gateway,
        ):
            pieces = pieces_of(content)
            upload_id = await any_gateway.create(size=len(content))
            for index, piece in enumerate(pieces):
                (await any_gateway.put(upload_id, index=index, piece=piece)).raise_for_status()
            jobs = await asyncio.gather(
                *(any_gateway.finalize(upload_id, pieces=pieces) for _ in range(50))
            )
            return upload_id, set(jobs)

    upload_id, jobs = asyncio.run(finalize_fifty_times())

    (job_id,) = jobs
    assert client.wait_until_settled(job_id, timeout=TIMEOUT)["status"] == "completed"
    assert Counter(event.type for event in traces.events(upload_id)) == {
        "upload.finalized": 1,
        "upload.stored": 1,
    }
    assert len(traces.objects(upload_id)) == 1
