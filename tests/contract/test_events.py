"""The wire form of every event type, byte for byte: receivers see every change here."""

from pathlib import Path

import msgspec
import pytest

from schemas.events import envelope
from schemas.events.envelope import MalformedEvent
from schemas.events.examples import example_envelope, example_of

GOLDEN = Path(__file__).parent / "golden" / "events"


def golden(event_type: str) -> bytes:
    return (GOLDEN / f"{event_type}.json").read_bytes()


def test_every_event_type_has_a_golden_file() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == envelope.EVENT_TYPES.keys()


@pytest.mark.parametrize("event_type", sorted(envelope.EVENT_TYPES))
def test_a_golden_event_is_encoded_as_it_was_decoded(event_type: str) -> None:
    event = envelope.decode(golden(event_type))
    assert event.type == event_type
    assert msgspec.json.format(envelope.encode(event), indent=2) + b"\n" == golden(event_type)


@pytest.mark.parametrize("event_type", sorted(envelope.EVENT_TYPES))
def test_a_golden_event_is_decoded_into_the_example_of_its_type(event_type: str) -> None:
    assert envelope.decode(golden(event_type)) == example_envelope(event_type)


@pytest.mark.parametrize("event_type", sorted(envelope.EVENT_TYPES))
def test_the_subject_is_the_id_of_the_upload_document_or_endpoint(event_type: str) -> None:
    noun = event_type.partition(".")[0]
    if noun in {"ping", "webhook"}:
        noun = "endpoint"
    event = envelope.decode(golden(event_type))
    assert event.subject == str(getattr(event.data, f"{noun}_id"))


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
    assert envelope.decode(msgspec.json.encode(wire)).data == example_of("upload.stored")


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
