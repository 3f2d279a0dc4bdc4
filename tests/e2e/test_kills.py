"""Processes die without warning; nothing accepted is lost and nothing happens twice."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import httpx
import pytest
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from dev.client import Client, chunks_of
from dev.demo import paper
from dev.stack.stack import Stack
from tests.fakes.receiver import Receiver
from tests.parts import Part
from tests.store import Bucket

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

PATIENCE = timedelta(minutes=3)
MIB = 1024 * 1024


def persistently(seconds: int = 120) -> Retrying:
    """What a client does that does not give up: ask again while the other side is away."""
    return Retrying(
        retry=retry_if_exception_type((httpx.TransportError, httpx.HTTPStatusError)),
        stop=stop_after_delay(seconds),
        wait=wait_random_exponential(multiplier=0.2, max=2),
        reraise=True,
    )


def settle(client: Client, job_id: str) -> dict[str, Any]:
    return persistently()(client.wait_until_settled, job_id, patience=PATIENCE)


@contextmanager
def uploaded(client: Client, path: Path) -> Iterator[str]:
    """Send every chunk of a file; finalizing is the caller's."""
    created = client.create_upload(filename=path.name, size=path.stat().st_size)
    client.send(created["upload_id"], chunks_of(path, chunk_size=created["chunk_size"]))
    yield created["upload_id"]


def random_file(path: Path, *, mebibytes: int, seed: int) -> str:
    """Write a file no store can shrink; return its sha256."""
    random, digest = Random(seed), hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(mebibytes):
            block = random.randbytes(MIB)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def test_a_worker_killed_in_the_middle_of_a_transfer_is_resumed_by_the_next(
    system: Stack, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "large.bin"
    sha256 = random_file(path, mebibytes=192, seed=3)
    with uploaded(client, path) as upload_id:
        job_id = client.finalize(upload_id).json()["job_id"]
        job = client.job(job_id)
        while job["bytes_done"] == 0:
            assert job["status"] in {"queued", "processing"}, "it ended before it could be killed"
            job = client.job(job_id)
        system.kill("transfer")
    assert job["bytes_done"] < path.stat().st_size, "it ended before it could be killed"
    assert settle(client, job_id)["status"] == "completed"
    bucket = Bucket(system.environment)
    assert bucket.sha256(bucket.key_of(upload_id)) == sha256
    assert bucket.open_multiparts() == []


def test_a_broker_killed_between_finalize_and_transfer_loses_nothing(
    parts: Mapping[str, Part], system: Stack, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "note.bin"
    sha256 = random_file(path, mebibytes=1, seed=4)
    system.processes["transfer"].stop()
    with uploaded(client, path) as upload_id:
        before = client.finalize(upload_id)
    parts["rabbitmq"].halt()
    with uploaded(client, path) as during_id:
        during = client.finalize(during_id)
    assert (before.status_code, during.status_code) == (202, 202)
    parts["rabbitmq"].start()
    system.processes["transfer"].start()
    bucket = Bucket(system.environment)
    for answer in (before, during):
        assert settle(client, answer.json()["job_id"])["status"] == "completed"
        assert bucket.sha256(bucket.key_of(answer.json()["upload_id"])) == sha256


def test_every_process_killed_once_during_fifty_uploads_changes_no_result(
    parts: Mapping[str, Part], system: Stack, client: Client, tmp_path: Path
) -> None:
    count = 50
    pdf = tmp_path / "consignment.pdf"
    paper.write_pdf(pdf, seed=5)
    sha256 = hashlib.sha256(pdf.read_bytes()).hexdigest()
    bucket = Bucket(system.environment)
    already_there = bucket.keys()
    victims: list[tuple[str, Part]] = [
        *system.processes.items(),
        *parts.items(),
    ]
    Random(6).shuffle(victims)

    def upload_once(number: int) -> str:
        key = uuid4().hex
        for attempt in persistently():
            with attempt:
                created = client.http.post(
                    "/uploads",
                    json={"filename": f"{number}.pdf", "size": pdf.stat().st_size},
                    headers={"Idempotency-Key": key},
                )
                created.raise_for_status()
        upload = created.json()
        for chunk in chunks_of(pdf, chunk_size=upload["chunk_size"]):
            for attempt in persistently():
                with attempt:
                    client.put_chunk(upload["upload_id"], chunk).raise_for_status()
        for attempt in persistently():
            with attempt:
                job = client.finalize(upload["upload_id"]).json()
        return str(job["job_id"])

    with Receiver() as receiver:
        webhook = client.create_webhook(receiver.url, event_types=["document.ingested"])
        with ThreadPoolExecutor(4) as pool:
            accepted = []
            for done in as_completed([pool.submit(upload_once, n) for n in range(count)]):
                accepted.append(done.result())
                if len(accepted) % 4 == 0 and victims:
                    victims.pop()[1].kill()
        assert not victims, f"never killed: {[name for name, _ in victims]}"
        settled = [settle(client, job_id) for job_id in accepted]
        told = receiver.wait_for(count, timeout=PATIENCE)
        events = [request.verified_with(webhook["secret"]) for request in told]
        for attempt in persistently():
            with attempt:
                client.http.delete(f"/webhooks/{webhook['webhook_id']}").raise_for_status()

    assert Counter(job["status"] for job in settled) == {"completed": count}
    uploads = {job["upload_id"] for job in settled}
    assert len(uploads) == count
    objects = bucket.keys() - already_there
    assert len(objects) == count
    assert {bucket.sha256(key) for key in objects} == {sha256}
    # A repeated delivery carries the id of the first: a receiver can tell.
    assert len({event["id"] for event in events}) == count
    assert {event["data"]["upload_id"] for event in events} == uploads
    assert bucket.open_multiparts() == []
