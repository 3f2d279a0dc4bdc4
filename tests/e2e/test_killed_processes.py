"""Any process may die at any time; accepted work is done, and done once."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from random import Random
from uuid import uuid4

import pytest

from dev.client import Client, chunks_of
from dev.demo import paper
from dev.stack.stack import Stack
from schemas import object_keys
from tests.bucket import Bucket
from tests.e2e.files import TIMEOUT, random_file, retrying, send_file, settled
from tests.eventually import eventually
from tests.fakes.receiver import Receiver
from tests.killable import Killable

pytestmark = pytest.mark.timeout(420)


def test_a_broker_killed_between_finalize_and_transfer_loses_no_upload(
    infrastructure_processes: Mapping[str, Killable], system: Stack, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "note.bin"
    sha256 = random_file(path, mebibytes=1, seed=4)
    system.processes["transfer"].stop()
    before = client.finalize(send_file(client, path))
    infrastructure_processes["rabbitmq"].halt()
    during = client.finalize(send_file(client, path))
    assert (before.status_code, during.status_code) == (202, 202)
    infrastructure_processes["rabbitmq"].start()
    system.processes["transfer"].start()
    bucket = Bucket(system.environment)
    for answer in (before, during):
        assert settled(client, answer.json()["job_id"])["status"] == "completed"
        assert bucket.sha256(bucket.key_of(answer.json()["upload_id"])) == sha256


def test_fifty_uploads_complete_although_every_process_is_killed_once(
    infrastructure_processes: Mapping[str, Killable], system: Stack, client: Client, tmp_path: Path
) -> None:
    count = 50
    pdf = tmp_path / "consignment.pdf"
    paper.write_pdf(pdf, seed=5)
    sha256 = hashlib.sha256(pdf.read_bytes()).hexdigest()
    bucket = Bucket(system.environment)
    earlier_objects = bucket.keys()
    victims: list[tuple[str, Killable]] = [
        *system.processes.items(),
        *infrastructure_processes.items(),
    ]
    Random(6).shuffle(victims)
    kill_every = count // len(victims)

    def upload_pdf(number: int) -> str:
        key = uuid4().hex
        for attempt in retrying():
            with attempt:
                created = client.http.post(
                    "/uploads",
                    json={"filename": f"{number}.pdf", "size": pdf.stat().st_size},
                    headers={"Idempotency-Key": key},
                )
                created.raise_for_status()
        upload = created.json()
        for chunk in chunks_of(pdf, chunk_size=upload["chunk_size"]):
            for attempt in retrying():
                with attempt:
                    client.put_chunk(upload["upload_id"], chunk).raise_for_status()
        for attempt in retrying():
            with attempt:
                job = client.finalize(upload["upload_id"]).json()
        return str(job["job_id"])

    with Receiver() as receiver:
        webhook = client.create_webhook(receiver.url, event_types=["document.ingested"])
        with ThreadPoolExecutor(4) as pool:
            accepted = []
            for done in as_completed([pool.submit(upload_pdf, n) for n in range(count)]):
                accepted.append(done.result())
                if len(accepted) % kill_every == 0 and victims:
                    victims.pop()[1].kill()
        assert not victims, f"never killed: {[name for name, _ in victims]}"
        jobs = [settled(client, job_id) for job_id in accepted]
        # A repeated delivery carries the id of the first delivery, so that a receiver recognises it.
        eventually(
            lambda: {request.headers["webhook-id"] for request in receiver.received},
            until=lambda ids: len(ids) >= count,
            within=TIMEOUT,
        )
        events = [request.verified_with(webhook["secret"]) for request in receiver.received]
        for attempt in retrying():
            with attempt:
                client.http.delete(f"/webhooks/{webhook['webhook_id']}").raise_for_status()

    assert Counter(job["status"] for job in jobs) == {"completed": count}
    uploads = {job["upload_id"] for job in jobs}
    assert len(uploads) == count
    new = bucket.keys() - earlier_objects
    listed = {key for key in new if not key.startswith(object_keys.DERIVED)}
    prefix = next(iter(listed)).rpartition("/")[0]
    objects = {f"{prefix}/{upload}" for upload in uploads}
    # The listing may lack an object that was stored while the store's container server was down.
    assert listed <= objects
    assert {bucket.sha256(key) for key in objects} == {sha256}
    assert len({event["id"] for event in events}) == count
    assert {event["data"]["upload_id"] for event in events} == uploads
    assert bucket.open_multiparts() == []
