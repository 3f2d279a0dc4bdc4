"""Processes whose clocks are days off: nothing is lost, and the logs say which clock is wrong."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import pytest

from dev.client import Client
from dev.demo import paper
from dev.stack.stack import Stack
from tests import wrong_clock
from tests.bucket import Bucket
from tests.e2e.deployment import SETTINGS
from tests.e2e.files import random_file, send_file, settled, sha256_of
from tests.e2e.gateways import Gateways
from tests.fakes.receiver import Receiver

pytestmark = pytest.mark.timeout(240)

UPLOADS = 10
DAYS = timedelta(days=2)
LOGGING = ("relay", "deliver", "transfer", "ingest")


def alarms(system: Stack, service: str) -> list[dict[str, object]]:
    lines = (system.state_dir / "log" / f"{service}.log").read_text().splitlines()
    entries = [json.loads(line) for line in lines if line.startswith("{")]
    return [entry for entry in entries if entry.get("event") == "clock.wrong"]


def send(client: Client, path: Path) -> str:
    answer = client.finalize(send_file(client, path))
    answer.raise_for_status()
    job_id: str = answer.json()["job_id"]
    return job_id


@pytest.mark.parametrize("shift", [DAYS, -DAYS], ids=["ahead", "behind"])
def test_ten_uploads_complete_although_every_clock_is_wrong(
    infrastructure: Stack, migrated_template: str, tmp_path: Path, shift: timedelta
) -> None:
    """The clocks of the gateway and of all other processes are wrong in opposite directions."""
    files = [tmp_path / f"{number}.bin" for number in range(UPLOADS - 1)]
    for number, path in enumerate(files):
        random_file(path, mebibytes=1, seed=number)
    files.append(tmp_path / "consignment.pdf")
    paper.write_pdf(files[-1], seed=5)
    # Every sweep runs again and again, and finds everything old that a wrong clock makes old.
    settings = SETTINGS | {"SWEEP_EVERY": "1s", "STEP_WATCH_EVERY": "1s"}

    with infrastructure.scoped(
        "clocks", settings=settings | wrong_clock.settings(shift), template=migrated_template
    ) as own:
        own.start_services("relay", "deliver", "transfer", "ingest", "metadata", "batch", "beat")
        key = own.create_api_key(tenant="acme")

        async def send_all() -> list[dict[str, object]]:
            environment = own.environment | wrong_clock.settings(-shift)
            async with Gateways.started(1, environment=environment, directory=tmp_path) as gateways:
                return await asyncio.to_thread(follow, gateways.urls[0])

        def follow(url: str) -> list[dict[str, object]]:
            with Client(url, api_key=key) as client, Receiver() as receiver:
                webhook = client.create_webhook(receiver.url, event_types=["upload.stored"])
                job_ids = [send(client, path) for path in files]
                jobs = [settled(client, job_id) for job_id in job_ids]
                received = receiver.wait_for(UPLOADS, timeout=timedelta(seconds=60))
                # The official library refuses a time that is five minutes off.
                events = [request.verified_with(webhook["secret"]) for request in received]
                assert {event["data"]["job_id"] for event in events} == set(job_ids)
                return jobs

        jobs = asyncio.run(send_all())

        assert [job["status"] for job in jobs] == ["completed"] * UPLOADS
        bucket = Bucket(own.environment)
        stored = [bucket.sha256(bucket.key_of(str(job["upload_id"]))) for job in jobs]
        assert stored == [sha256_of(path) for path in files]
        for service in LOGGING:
            assert alarms(own, service), service
            assert {alarm["level"] for alarm in alarms(own, service)} == {"error"}
