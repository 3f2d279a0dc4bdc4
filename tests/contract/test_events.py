"""The wire form of every event type, byte for byte: receivers see every change here."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from schemas.events import envelope
from schemas.events.envelope import Envelope, MalformedEvent
from schemas.events.uploads import StoredEvent
from schemas.ids import DocumentId, EventId, JobId, TenantId, UploadId

GOLDEN = Path(__file__).parent / "golden" / "events"

STORED = Envelope(
    id=EventId(UUID("0c0a7f5e-6ad5-4e8e-9d6c-3f0d6b6f0a05")),
    source="/waybill/example",
    subject="0c0a7f5e-6ad5-4e8e-9d6c-3f0d6b6f0a01",
    time=datetime(2026, 11, 20, 12, 30, 15, 250000, tzinfo=UTC),
    tenantid=TenantId(UUID("0c0a7f5e-6ad5-4e8e-9d6c-3f0d6b6f0a04")),
    data=StoredEvent(
        upload_id=UploadId(UUID("0c0a7f5e-6ad5-4e8e-9d6c-3f0d6b6f0a01")),
        job_id=JobId(UUID("0c0a7f5e-6ad5-4e8e-9d6c-3f0d6b6f0a02")),
        document_id=DocumentId(UUID("0c0a7f5e-6ad5-4e8e-9d6c-3f0d6b6f0a03")),
        filename="invoice.pdf",
        size=123456,
        sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        content_type="application/pdf",
        object_key="originals/0c0a7f5e-6ad5-4e8e-9d6c-3f0d6b6f0a04/0c0a7f5e-6ad5-4e8e-9d6c-3f0d6b6f0a01",
        will_be_read=True,
    ),
)


def golden(event_type: str) -> bytes:
    return (GOLDEN / f"{event_type}.json").read_bytes()


def test_every_event_type_has_a_golden_file() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == envelope.EVENT_TYPES.keys()


@pytest.mark.parametrize("event_type", sorted(envelope.EVENT_TYPES))
def test_a_golden_event_is_encoded_as_it_was_decoded(event_type: str) -> None:
    event = envelope.decode(golden(event_type))
    assert event.type == event_type
    assert msgspec.json.format(envelope.encode(event), indent=2) + b"\n" == golden(event_type)


def test_a_golden_event_is_decoded_into_its_values() -> None:
    assert envelope.decode(golden("upload.stored")) == STORED


@pytest.mark.parametrize(
    ("event_type", "subject"),
    [
        (event_type, "document_id" if event_type.startswith("document.") else "upload_id")
        for event_type in sorted(envelope.EVENT_TYPES)
    ],
)
def test_the_subject_is_the_id_of_the_upload_or_document(event_type: str, subject: str) -> None:
    data = envelope.decode(golden(event_type)).data
    assert data.subject == getattr(data, subject)


@pytest.mark.parametrize("event_type", sorted(envelope.EVENT_TYPES))
def test_the_references_of_an_event_are_its_ids(event_type: str) -> None:
    event = envelope.decode(golden(event_type))
    ids = {
        name: value
        for name, value in msgspec.structs.asdict(event.data).items()
        if name.endswith("_id")
    }
    assert event.references == dict.fromkeys(envelope.REFERENCES) | ids


def test_an_unknown_field_is_ignored() -> None:
    wire = msgspec.json.decode(golden("upload.stored"))
    wire["dataschema"] = "https://example.com/later"
    wire["data"]["storage_class"] = "cold"
    assert envelope.decode(msgspec.json.encode(wire)).data == STORED.data


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
    wire = msgspec.json.decode(golden("upload.stored"))
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
def test_bytes_that_are_not_an_event_are_malformed(body: bytes) -> None:
    with pytest.raises(MalformedEvent):
        envelope.decode(body)
