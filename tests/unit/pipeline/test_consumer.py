from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from kombu.message import Message

from pipeline.messaging.consumer import read_event, register_serializer
from schemas.events import envelope
from schemas.events.envelope import CONTENT_TYPE, Envelope, MalformedEvent
from schemas.events.uploads import UploadCancelled
from schemas.ids import EventId, TenantId, UploadId

EVENT = Envelope(
    id=EventId(uuid4()),
    source="/waybill/tests",
    subject="",
    time=datetime(2026, 11, 20, tzinfo=UTC),
    tenantid=TenantId(uuid4()),
    data=UploadCancelled(upload_id=UploadId(uuid4()), filename="scan.pdf"),
)
BODY = envelope.encode(EVENT)


def a_message(
    body: Any,  # noqa: ANN401  # typed as text, but py-amqp passes bytes
    *,
    content_type: str | None = CONTENT_TYPE,
    encoding: str | None = "utf-8",
) -> Message:
    register_serializer()
    return Message(
        body=body,
        content_type=content_type,
        content_encoding=encoding,
        accept={CONTENT_TYPE, "application/json"},
    )


@pytest.mark.parametrize(
    ("content_type", "encoding"),
    [
        (CONTENT_TYPE, "utf-8"),
        (CONTENT_TYPE, "UTF8"),
        (CONTENT_TYPE, None),
        (f"{CONTENT_TYPE}; charset=utf-8", "utf-8"),
        (CONTENT_TYPE.upper(), "utf-8"),
    ],
)
def test_an_event_is_decoded_and_celery_reads_the_same_object(
    content_type: str, encoding: str | None
) -> None:
    message = a_message(BODY, content_type=content_type, encoding=encoding)

    event = read_event(message)

    assert event == EVENT
    _, arguments, _ = message.payload
    assert arguments["event"].envelope is event
    assert arguments["event"].body == BODY


@pytest.mark.parametrize("body", [None, b"", b"not json", b"\xff\xfe", b"[1]", b"{}", b"[" * 9_000])
def test_a_malformed_body_is_refused(body: bytes | None) -> None:
    with pytest.raises(MalformedEvent, match=r"^malformed event: (?!malformed)"):
        read_event(a_message(body))


@pytest.mark.parametrize("content_type", [None, "", "application/json", "text/plain"])
def test_another_content_type_is_refused(content_type: str | None) -> None:
    with pytest.raises(MalformedEvent, match="content type"):
        read_event(a_message(BODY, content_type=content_type))


def test_another_encoding_is_refused() -> None:
    with pytest.raises(MalformedEvent, match="content encoding"):
        read_event(a_message(BODY, encoding="rot13"))
