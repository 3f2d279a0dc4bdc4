"""What clients do with documents: open encrypted ones, read them again, fetch and delete them."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from dev.client import Client
from dev.demo import paper
from dev.stack.stack import Stack
from tests.bucket import Bucket
from tests.eventually import eventually
from tests.factories import pdfs

TIMEOUT = timedelta(seconds=90)
PASSWORD = "opensesame"  # noqa: S105  # of a test


def submitted(client: Client, content: bytes, *, filename: str, **fields: str) -> dict[str, Any]:
    """Submit a file in a form; return its settled job."""
    answer = client.http.post("/upload-async", data=fields, files={"file": (filename, content)})
    answer.raise_for_status()
    return client.wait_until_settled(answer.json()["job_id"], timeout=TIMEOUT)


def passwords_kept(system: Stack) -> int:
    url = system.environment["DATABASE_URL"].replace("+psycopg", "")
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM document_passwords").fetchone()
    assert row is not None
    return int(row[0])


def test_an_encrypted_document_is_read_with_its_password(system: Stack, client: Client) -> None:
    content = pdfs.locked("a sealed letter", opened_with=PASSWORD)

    without = submitted(client, content, filename="sealed.pdf")
    opened = submitted(client, content, filename="sealed.pdf", password=PASSWORD)

    assert (without["status"], without["error"]["code"]) == ("failed", "document_encrypted")
    assert opened["status"] == "completed"
    text = client.get(f"/documents/{opened['result']['document_id']}/text").text
    assert "a sealed letter" in text
    assert passwords_kept(system) == 0


def test_a_failed_document_is_read_again_with_its_password(system: Stack, client: Client) -> None:
    content = pdfs.locked("another sealed letter", opened_with=PASSWORD)
    failed = submitted(client, content, filename="sealed.pdf")
    document_id = failed["result"]["document_id"]
    assert client.get(f"/documents/{document_id}").json()["status"] == "failed"

    answer = client.http.post(f"/documents/{document_id}/reprocess", json={"password": PASSWORD})
    assert answer.status_code == 202
    job = client.wait_until_settled(answer.json()["job_id"], timeout=TIMEOUT)

    assert (job["status"], job["kind"]) == ("completed", "reprocess")
    document = client.get(f"/documents/{document_id}").json()
    assert (document["status"], document["outcome"]) == ("ingested", "complete")
    assert document["error"] is None
    assert "another sealed letter" in client.get(f"/documents/{document_id}/text").text
    assert passwords_kept(system) == 0


@pytest.fixture
def pdf(tmp_path: Path) -> bytes:
    path = tmp_path / "consignment.pdf"
    paper.write_pdf(path, seed=40)
    return path.read_bytes()


def test_a_document_is_fetched_read_again_and_deleted(
    system: Stack, client: Client, pdf: bytes
) -> None:
    job = submitted(client, pdf, filename="Frachtbrief Köln.pdf")
    document_id, upload_id = job["result"]["document_id"], job["upload_id"]
    before = client.get(f"/documents/{document_id}").json()
    picture = client.http.get(f"/documents/{document_id}/pages/1/image")
    file = client.http.get(f"/documents/{document_id}/file")
    with httpx.Client(trust_env=False) as store:
        assert store.get(picture.headers["location"]).content.startswith(b"\x89PNG")
        fetched = store.get(file.headers["location"])
    assert (fetched.content, fetched.headers["content-type"]) == (pdf, "application/pdf")
    assert "filename*=UTF-8''Frachtbrief%20K%C3%B6ln.pdf" in fetched.headers["content-disposition"]

    again = client.http.post(f"/documents/{document_id}/reprocess").json()
    settled = client.wait_until_settled(again["job_id"], timeout=TIMEOUT)
    after = client.get(f"/documents/{document_id}").json()
    assert (settled["status"], settled["document_id"]) == ("completed", document_id)
    assert (before["revision"], after["revision"]) == (1, 2)
    assert after["page_count"] == paper.PAGES

    assert client.http.delete(f"/documents/{document_id}").status_code == 204
    assert client.http.get(f"/documents/{document_id}").status_code == 404
    bucket = Bucket(system.environment)
    eventually(bucket.keys, until=lambda keys: not any(upload_id in key for key in keys))
