"""The wire of every event type, byte for byte: a change here is a change for every receiver."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from schemas.events import envelope
from schemas.events.documents import DocumentFailed, IngestedEvent
from schemas.events.envelope import Envelope, MalformedEvent
from schemas.events.uploads import StoredEvent, UploadCancelled, UploadFailed, UploadFinalized
from schemas.ids import DocumentId, EventId, JobId, TenantId, UploadId

GOLDEN = Path(__file__).parent / "golden" / "events"

UPLOAD = UploadId(UUID("0c0a7f5e-6ad5-4e8e-9d6c-3f0d6b6f0a01"))
JOB = JobId(UUID("0c0a7f5e-6ad5-4e8e-9d6c-3f0d6b6f0a02"))
DOCUMENT = DocumentId(UUID("0c0a7f5e-6ad5-4e8e-9d6c-3f0d6b6f0a03"))
TENANT = TenantId(UUID("0c0a7f5e-6ad5-4e8e-9d6c-3f0d6b6f0a04"))
EVENT = EventId(UUID("0c0a7f5e-6ad5-4e8e-9d6c-3f0d6b6f0a05"))
SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

EXAMPLES: dict[str, envelope.Event] = {
    example.TYPE: example
    for example in (
        UploadFinalized(upload_id=UPLOAD, job_id=JOB, filename="invoice.pdf", size=123456),
        StoredEvent(
            upload_id=UPLOAD,
            job_id=JOB,
            document_id=DOCUMENT,
            filename="invoice.pdf",
            size=123456,
            sha256=SHA256,
            content_type="application/pdf",
            object_key=f"originals/{TENANT}/{UPLOAD}",
            will_be_read=True,
        ),
        UploadFailed(
            upload_id=UPLOAD,
            job_id=JOB,
            filename="invoice.pdf",
            code="staging_corrupt",
            detail="chunk 3 was altered",
        ),
        UploadCancelled(upload_id=UPLOAD, job_id=None, filename="invoice.pdf"),
        IngestedEvent(
            document_id=DOCUMENT,
            upload_id=UPLOAD,
            job_id=JOB,
            filename="invoice.pdf",
            sha256=SHA256,
            pages=3,
            passages=41,
            entities=7,
            language="en",
            truncated=False,
        ),
        DocumentFailed(
            document_id=DOCUMENT,
            upload_id=UPLOAD,
            job_id=JOB,
            filename="invoice.pdf",
            code="pdf_encrypted",
            detail="the document needs a password",
        ),
    )
}


def enveloped(data: envelope.Event) -> Envelope:
    return Envelope(
        id=EVENT,
        source="/waybill/example",
        subject=str(UPLOAD),
        time=datetime(2026, 11, 20, 12, 30, 15, 250000, tzinfo=UTC),
        tenantid=TENANT,
        data=data,
    )


def test_every_event_type_has_an_example() -> None:
    assert EXAMPLES.keys() == envelope.EVENT_TYPES.keys()


@pytest.mark.parametrize("event_type", sorted(envelope.EVENT_TYPES))
def test_the_wire_form_is_the_golden_one(event_type: str) -> None:
    body = envelope.encode(enveloped(EXAMPLES[event_type]))
    assert (
        msgspec.json.format(body, indent=2) + b"\n" == (GOLDEN / f"{event_type}.json").read_bytes()
    )


@pytest.mark.parametrize("event_type", sorted(envelope.EVENT_TYPES))
def test_the_golden_form_is_read_back_whole(event_type: str) -> None:
    golden = (GOLDEN / f"{event_type}.json").read_bytes()
    assert envelope.decode(golden) == enveloped(EXAMPLES[event_type])


def test_a_field_of_a_later_version_is_ignored() -> None:
    wire = msgspec.json.decode((GOLDEN / "upload.stored.json").read_bytes())
    wire["dataschema"] = "https://example.com/later"
    wire["data"]["storage_class"] = "cold"
    assert envelope.decode(msgspec.json.encode(wire)).data == EXAMPLES["upload.stored"]


@pytest.mark.parametrize(
    "damage",
    [
        {"specversion": "0.3"},
        {"type": "upload.exploded"},
        {"id": "not-a-uuid"},
        {"time": "yesterday"},
        {"tenantid": None},
        {"data": {}},
        {"data": []},
        {"data": None},
    ],
)
def test_an_event_with_a_wrong_field_is_malformed(damage: dict[str, object]) -> None:
    wire = msgspec.json.decode((GOLDEN / "upload.stored.json").read_bytes())
    with pytest.raises(MalformedEvent):
        envelope.decode(msgspec.json.encode(wire | damage))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1]",
        b"null",
        b"\xff\xfe",
        b'{"specversion":"1.0"}',
        b"[" * 60_000,
        b" " * 70_000,
    ],
)
def test_bytes_that_are_no_event_are_malformed(body: bytes) -> None:
    with pytest.raises(MalformedEvent):
        envelope.decode(body)
