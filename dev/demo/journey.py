"""The steps of the demo; each raises an error if the system does not keep its promise."""

import csv
import hashlib
import io
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import boto3
import httpx
from botocore.config import Config
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from dev.client import Chunk, Client, chunks_of
from dev.demo import paper
from dev.demo.receiver import Verified, WebhookReceiver

CHUNK_SIZE: Final = 256 * 1024
TIMEOUT: Final = timedelta(seconds=60)
POLL_INTERVAL: Final = timedelta(milliseconds=50)


class CheckFailed(Exception):
    """A check of the demo failed."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    job: dict[str, Any]
    webhook: Verified


def make_document(path: Path, *, seed: int) -> str:
    """Write the PDF and return its sha256, hex."""
    paper.write_pdf(path, seed=seed)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def send(client: Client, path: Path, *, sha256: str, console: Console) -> dict[str, Any]:
    """Upload in parallel chunks with a progress bar, finalize, return the job."""
    created = client.create_upload(
        filename=path.name,
        size=path.stat().st_size,
        content_type="application/pdf",
        chunk_size=CHUNK_SIZE,
        sha256=sha256,
    )
    bar = Progress(
        TextColumn("  {task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        console=console,
    )
    with bar:
        shown = bar.add_task(f"{created['chunk_count']} chunks", total=created["size"])

        def advance(chunk: Chunk) -> None:
            bar.advance(shown, len(chunk.content))

        client.send(
            created["upload_id"],
            chunks_of(path, chunk_size=created["chunk_size"]),
            on_sent=advance,
        )
    answer = client.finalize(created["upload_id"])
    job: dict[str, Any] = answer.json()
    console.print(f"  finalize answered [bold]{answer.status_code}[/] with job {job['job_id']}")
    return job


def follow(client: Client, job: dict[str, Any], *, receiver: WebhookReceiver) -> Outcome:
    settled = _completed(client, job)
    webhook = receiver.wait_for("document.ingested", subject=job["upload_id"], timeout=TIMEOUT)
    return Outcome(job=settled, webhook=webhook)


def check_object(environment: Mapping[str, str], *, key: str, sha256: str) -> None:
    """Read the object back with boto3 and compare its digest."""
    store = boto3.client(
        "s3",
        endpoint_url=environment["S3_ENDPOINT_URL"],
        aws_access_key_id=environment["S3_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["S3_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )
    digest = hashlib.sha256()
    stored = store.get_object(Bucket=environment["S3_BUCKET"], Key=key)
    for block in stored["Body"].iter_chunks(1024 * 1024):
        digest.update(block)
    if digest.hexdigest() != sha256:
        raise CheckFailed(f"the object {key} has sha256 {digest.hexdigest()}, not {sha256}")


def show_document(client: Client, document_id: str, *, console: Console) -> None:
    document = client.get(f"/documents/{document_id}").json()
    first_page = client.get(f"/documents/{document_id}/pages/1").json()["text"]
    entities = client.get(f"/documents/{document_id}/entities", limit=8).json()["items"]
    if document["page_count"] != paper.PAGES or paper.TITLE not in first_page:
        raise CheckFailed(f"the document differs from the PDF: {document}")
    console.print(f"  {document['page_count']} pages; page 1 begins:")
    console.print(f"  [italic]{' '.join(first_page.split())[:150]}…[/]", highlight=False)
    table = Table("page", "entity", "text", title="the first entities", title_justify="left")
    for entity in entities:
        table.add_row(str(entity["page"]), entity["label"], entity["text"])
    console.print(table)


def show_table(client: Client, document_id: str, *, console: Console) -> None:
    """Show the table of the last page, once the document's tables are found and its passages indexed."""
    _await_index(client, document_id)
    (found,) = client.get(f"/documents/{document_id}/tables").json()["items"]
    table = client.get(f"/documents/{document_id}/tables/{found['number']}").json()
    cells = {(cell["row"], cell["column"]): cell["text"] for cell in table["cells"]}
    rows = [
        tuple(cells.get((row, column), "") for column in range(table["column_count"]))
        for row in range(table["row_count"])
    ]
    if (table["page"], rows) != (paper.PAGES, list(paper.CHARGES)):
        raise CheckFailed(f"the table differs from that of the PDF: {table}")
    header, *others = rows
    shown = Table(*header, title=f"the table on page {table['page']}", title_justify="left")
    for row in others:
        shown.add_row(*row)
    console.print(shown)


def show_search(client: Client, document_id: str, *, console: Console) -> None:
    """Search for a phrase, a number of the table, and the answer to a question in other words."""
    for query, expected in paper.QUERIES.items():
        answer = _searched(client, q=query, document_id=document_id, limit=3)
        hits = [hit for hit in answer["items"] if expected in hit["snippet"]["text"]]
        if not hits:
            raise CheckFailed(f"the first hits of {query!r} have no {expected!r}: {answer}")
        hit = hits[0]
        snippet = Text(hit["snippet"]["text"], style="italic")
        for marked in hit["snippet"]["highlights"]:
            snippet.stylize("bold yellow", marked["start"], marked["end"])
        by = " and ".join(hit["matched_by"])
        console.print(f"  {query}  →  page {hit['page']}, by {by}:", highlight=False)
        console.print(Text("  ").append_text(snippet))


def _searched(client: Client, **query: str | int) -> dict[str, Any]:
    """Return the answer of a search by words and by meaning.

    The first search of a gateway loads the model. On a slow machine this takes longer than
    `SEARCH_TIMEOUT`, and words alone answer.

    Raises:
        CheckFailed: words alone answered all the time.
    """
    deadline = time.monotonic() + TIMEOUT.total_seconds()
    while time.monotonic() < deadline:
        answer: dict[str, Any] = client.get("/search", **query).json()
        if answer["semantic"]["status"] == "ok":
            return answer
    raise CheckFailed(f"the meaning was not searched: {answer['semantic']}")


def _await_index(client: Client, document_id: str) -> None:
    """Return once the tables of a document are found and its vectors are made.

    Raises:
        CheckFailed: they were not in time.
    """
    deadline = time.monotonic() + TIMEOUT.total_seconds()
    while time.monotonic() < deadline:
        document = client.get(f"/documents/{document_id}").json()
        if (document["tables"], document["search"]) == ("complete", "complete"):
            return
        time.sleep(POLL_INTERVAL.total_seconds())
    raise CheckFailed(f"tables: {document['tables']}, search: {document['search']}")


def show_deliveries(
    client: Client,
    webhook_id: str,
    *,
    first: Verified,
    receiver: WebhookReceiver,
    console: Console,
) -> None:
    """Send a delivery again, and show the attempts that its log then has.

    Raises:
        CheckFailed: the log or the repeated webhook is not as it must be.
    """
    log = client.http.get(f"/webhooks/{webhook_id}/deliveries").raise_for_status().json()
    (delivery,) = log["items"]
    path = f"/deliveries/{delivery['delivery_id']}"
    client.http.post(f"{path}/resend").raise_for_status()
    again = receiver.wait_for(
        delivery["event_type"], subject=delivery["upload_id"], timeout=TIMEOUT
    )
    if again.event["id"] != first.event["id"]:
        raise CheckFailed("the resend has another id than the delivery")
    details = _settled_delivery(client, path, attempts=2)
    table = Table("attempt", "answer", "connect", "first byte", "total", "to")
    for attempt in details["attempts"]:
        timings = attempt["timings"]
        table.add_row(
            str(attempt["number"]),
            f"{attempt['status_code']} {attempt['outcome']}",
            *(
                "-" if timings[phase] is None else f"{timings[phase]:.1f} ms"
                for phase in ("connect_ms", "first_byte_ms", "total_ms")
            ),
            attempt["remote_address"],
        )
    console.print(f"  {delivery['event_type']}  webhook-id {delivery['event_id']}  sent again")
    console.print(table)


def _settled_delivery(client: Client, path: str, *, attempts: int) -> dict[str, Any]:
    """Return a delivery once it is settled after this many attempts.

    Raises:
        CheckFailed: it was not in time.
    """
    deadline = time.monotonic() + TIMEOUT.total_seconds()
    while time.monotonic() < deadline:
        details: dict[str, Any] = client.http.get(path).raise_for_status().json()
        if details["delivery"]["status"] == "delivered" and len(details["attempts"]) == attempts:
            return details
        time.sleep(POLL_INTERVAL.total_seconds())
    raise CheckFailed("the log has no second attempt")


def show_export(client: Client, filename: str, *, console: Console) -> None:
    """Export the tenant's documents as CSV, and read the file back.

    Raises:
        CheckFailed: the file has another digest or other rows than the export says.
    """
    answer = client.http.post(
        "/exports", json={"kind": "documents", "columns": ["document_id", "filename", "page_count"]}
    )
    job = answer.raise_for_status().json()
    _completed(client, job)
    export = client.get(f"/exports/{job['export_id']}").json()
    link = client.http.get(f"/exports/{job['export_id']}/file").headers["location"]
    content = httpx.get(link, trust_env=False).raise_for_status().content
    rows = list(csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True))
    if hashlib.sha256(content).hexdigest() != export["sha256"] or len(rows) != export["rows"]:
        raise CheckFailed(f"the file has not the digest or the rows of {export}")
    if filename not in {row["filename"] for row in rows}:
        raise CheckFailed(f"the export has no row of {filename}")
    console.print(f"  {export['filename']}: {export['rows']} documents, {len(content):,} bytes")
    console.print(f"  [italic]{content.splitlines()[-1].decode()}[/]", highlight=False)


def show_scan(client: Client, path: Path, *, console: Console) -> None:
    """Upload a document with a scanned page; OCR reads that page alone."""
    paper.write_scan(path)
    job = _completed(client, client.upload(path, content_type="application/pdf"))
    if job["result"]["pages_ocr"] != 1 or job["result"]["outcome"] != "complete":
        raise CheckFailed(f"OCR has not read the scanned page: {job['result']}")
    page = client.get(f"/documents/{job['result']['document_id']}/pages/2").json()
    found = " ".join(page["text"].split())
    if paper.SCANNED_TEXT[0] not in found:
        raise CheckFailed(f"OCR read {found!r}")
    console.print(
        f"  {path.name}: page 1 is text; page 2 is a picture, read by {page['engine']}"
        f" with a confidence of {page['confidence']:.2f}:"
    )
    console.print(f"  [italic]{found}[/]", highlight=False)


def show_partial(client: Client, path: Path, *, console: Console) -> None:
    """Upload a document with a damaged page; the result says which page is missing."""
    paper.write_damaged_pdf(path)
    job = _completed(client, client.upload(path, content_type="application/pdf"))
    if job["result"]["outcome"] != "partial" or job["error"] is not None:
        raise CheckFailed(f"the damaged document is not partial: {job}")
    (reason,) = job["result"]["reasons"]
    console.print(
        f"  {path.name}: [yellow]{job['result']['outcome']}[/], {job['result']['pages_read']} of"
        f" {job['result']['pages']} pages; page {reason['pages'][0][0]} is {reason['outcome']}:"
    )
    console.print(f"  [italic]{reason['reason']}[/]", highlight=False)


def _completed(client: Client, job: dict[str, Any]) -> dict[str, Any]:
    settled = client.wait_until_settled(job["job_id"], timeout=TIMEOUT)
    if settled["status"] != "completed":
        raise CheckFailed(f"the job ended as {settled['status']}: {settled['error']}")
    return settled


def show_events(events: list[dict[str, Any]], *, console: Console) -> None:
    table = Table("event", "source", "about", title="on the bus", title_justify="left")
    for event in events:
        table.add_row(event["type"], event["source"], event["subject"])
    console.print(table)


def show_timings(outcome: Outcome, *, console: Console) -> None:
    job = outcome.job
    moments = {
        stage: datetime.fromisoformat(job[field])
        for stage, field in (
            ("finalized", "created_at"),
            ("transfer started", "started_at"),
            ("stored in S3", "stored_at"),
            ("text and entities ready", "finished_at"),
        )
    }
    moments["webhook verified"] = outcome.webhook.at
    start = moments["finalized"]
    table = Table("stage", "after finalize", title="timings", title_justify="left")
    for stage, moment in moments.items():
        table.add_row(stage, f"{(moment - start).total_seconds() * 1000:8.0f} ms")
    console.print(table)
