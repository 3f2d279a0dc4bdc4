"""Time limits, measured on an idle machine."""

import asyncio
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random
from time import monotonic

import pytest

from tests.e2e import persistent_client
from tests.e2e.cancellable_uploads import CancellableUploads
from tests.e2e.cut_connections import upload_over_bad_connections
from tests.e2e.deployment import Deployment
from tests.e2e.store_proxy import StoreProxy
from tests.eventually import eventually
from tests.integration.gateway.api import KIB64

pytestmark = pytest.mark.timeout(600)


def test_cancel_aborts_a_running_transfer_within_two_seconds(
    deployment: Deployment, store_proxy: StoreProxy, tmp_path: Path
) -> None:
    uploads = CancellableUploads(
        deployment=deployment, directory=tmp_path, store=store_proxy, options={}
    )
    for _ in range(5):
        with uploads.mid_transfer() as upload:
            began = monotonic()
            deployment.client.cancel(upload.upload_id)
            eventually(
                partial(deployment.traces.multiparts, upload.upload_id),
                until=lambda found: not found,
            )
            assert timedelta(seconds=monotonic() - began) < timedelta(seconds=2)
            assert deployment.client.job(str(upload.job_id))["status"] == "cancelled"
        store_proxy.lift_speed_limit()


def test_a_manifest_takes_under_a_second_while_a_chunk_hangs(
    deployment: Deployment, tmp_path: Path
) -> None:
    report = asyncio.run(
        upload_over_bad_connections(
            deployment, directory=tmp_path, clients=100, manifest_requests=100, seed=18
        )
    )

    assert len(report.uploads) == 100
    assert report.cut_requests > 100
    assert len(report.manifest_times) >= 100
    assert max(report.manifest_times) < timedelta(seconds=1)
    assert report.slow_status == 200
    deployment.assert_objects_complete(report.uploads)


def test_a_repeated_chunk_takes_over_from_a_silent_one_within_three_seconds(
    deployment: Deployment,
) -> None:
    async def take_over() -> timedelta:
        async with persistent_client.connected(
            deployment.key, urls=lambda: [deployment.system.url], random=Random(19)
        ) as client:
            upload_id = await client.create(size=KIB64)
            _, silent = await client.begin_chunk(upload_id, index=0, length=KIB64, body=b"x")
            with closing(silent):
                began = monotonic()
                answer = await client.put(upload_id, index=0, piece=bytes(KIB64))
                took = timedelta(seconds=monotonic() - began)
        assert answer.status_code == 200, answer.text
        return took

    assert max(asyncio.run(take_over()) for _ in range(5)) < timedelta(seconds=3)
