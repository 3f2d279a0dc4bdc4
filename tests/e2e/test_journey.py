"""The purpose of the system: a file arrives in chunks, and webhooks announce the result."""

import hashlib
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from dev.client import Client, chunks_of
from dev.demo import paper
from dev.stack.stack import Stack
from tests.bucket import Bucket
from tests.e2e.files import sha256_of
from tests.fakes.receiver import Receiver

TIMEOUT = timedelta(seconds=60)


@pytest.fixture
def pdf(tmp_path: Path) -> Path:
    path = tmp_path / "consignment.pdf"
    paper.write_pdf(path, seed=20_261_120)
    return path


def test_a_pdf_becomes_an_object_with_text_and_a_signed_webhook(
    system: Stack, client: Client, pdf: Path
) -> None:
    with Receiver() as receiver:
        webhook = client.create_webhook(receiver.url, event_types=["document.ingested"])
        created = client.create_upload(
            filename=pdf.name, size=pdf.stat().st_size, chunk_size=128 * 1024, sha256=sha256_of(pdf)
        )
        chunks = list(chunks_of(pdf, chunk_size=created["chunk_size"]))
        Random(1).shuffle(chunks)
        client.send(created["upload_id"], chunks + chunks[:3])
        answer = client.finalize(created["upload_id"])
        assert answer.status_code == 202
        job = client.wait_until_settled(answer.json()["job_id"], timeout=TIMEOUT)
        (delivered,) = receiver.wait_for(1, timeout=TIMEOUT)
        client.http.delete(f"/webhooks/{webhook['webhook_id']}").raise_for_status()

    assert job["status"] == "completed"
    assert job["progress"] == 100
    event = delivered.verified_with(webhook["secret"])
    assert event["type"] == "document.ingested"
    assert event["data"]["upload_id"] == created["upload_id"]
    assert event["data"]["pages"] == paper.PAGES
    assert delivered.headers["webhook-id"] == event["id"]

    bucket = Bucket(system.environment)
    assert bucket.sha256(bucket.key_of(created["upload_id"])) == sha256_of(pdf)
    assert not (Path(system.environment["STAGING_DIR"]) / created["upload_id"]).exists()

    document_id = job["result"]["document_id"]
    document = client.get(f"/documents/{document_id}").json()
    assert document["status"] == "ingested"
    assert document["metadata"]["title"] == paper.TITLE
    text = client.get(f"/documents/{document_id}/text").text
    assert text.count(paper.TITLE) == paper.PAGES
    entities = client.get(f"/documents/{document_id}/entities").json()["items"]
    assert {"EMAIL", "MONEY"} <= {entity["label"] for entity in entities}


def test_a_file_that_is_not_a_pdf_is_stored_and_not_read(
    system: Stack, client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "measurements.bin"
    path.write_bytes(Random(2).randbytes(300_000))
    job = client.upload(path)
    settled = client.wait_until_settled(job["job_id"], timeout=TIMEOUT)
    assert (settled["status"], settled["stage"]) == ("completed", "done")
    document = client.get(f"/documents/{settled['result']['document_id']}").json()
    assert (document["status"], document["page_count"]) == ("stored", None)
    bucket = Bucket(system.environment)
    assert bucket.sha256(bucket.key_of(job["upload_id"])) == sha256_of(path)


def test_an_empty_file_is_stored(system: Stack, client: Client, tmp_path: Path) -> None:
    path = tmp_path / "empty.bin"
    path.touch()
    job = client.upload(path)
    settled = client.wait_until_settled(job["job_id"], timeout=TIMEOUT)
    assert settled["status"] == "completed"
    bucket = Bucket(system.environment)
    assert bucket.sha256(bucket.key_of(job["upload_id"])) == hashlib.sha256(b"").hexdigest()


def test_a_callback_receives_events_of_its_upload_only(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "note.bin"
    path.write_bytes(b"a note")
    with Receiver() as receiver:
        created = client.create_upload(
            filename=path.name, size=path.stat().st_size, callback_url=receiver.url
        )
        client.send(created["upload_id"], chunks_of(path, chunk_size=created["chunk_size"]))
        other = client.upload(path)
        client.wait_until_settled(other["job_id"], timeout=TIMEOUT)
        job = client.finalize(created["upload_id"]).json()
        client.wait_until_settled(job["job_id"], timeout=TIMEOUT)
        (delivered,) = receiver.wait_for(1, timeout=TIMEOUT)
    event = delivered.verified_with(created["callback_secret"])
    assert event["type"] == "upload.stored"
    assert event["data"]["upload_id"] == created["upload_id"]


def test_finalize_with_prefer_wait_returns_the_settled_job(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "note.bin"
    path.write_bytes(b"wait for me")
    created = client.create_upload(filename=path.name, size=path.stat().st_size)
    client.send(created["upload_id"], chunks_of(path, chunk_size=created["chunk_size"]))
    answer = client.http.post(
        "/upload", json={"upload_id": created["upload_id"]}, headers={"Prefer": "wait=30"}
    )
    assert answer.status_code == 200
    assert answer.json()["status"] == "completed"
