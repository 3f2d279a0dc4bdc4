"""The CloudEvents 1.0 envelope and its structured JSON form.

The same bytes are a message's body on the bus and the body of the webhook.
Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final, TypeAlias
from uuid import UUID

import msgspec

from schemas.events.documents import DocumentFailed, IngestedEvent
from schemas.events.uploads import StoredEvent, UploadCancelled, UploadFailed, UploadFinalized
from schemas.ids import EventId, TenantId

CONTENT_TYPE: Final = "application/cloudevents+json"
MAX_BYTES: Final = 64 * 1024
"""Events carry ids, keys and sizes, never file content; a larger body is a mistake."""

Event: TypeAlias = (
    UploadFinalized | StoredEvent | UploadFailed | UploadCancelled | IngestedEvent | DocumentFailed
)

EVENT_TYPES: Final[Mapping[str, type[Event]]] = MappingProxyType(
    {
        event.TYPE: event
        for event in (
            UploadFinalized,
            StoredEvent,
            UploadFailed,
            UploadCancelled,
            IngestedEvent,
            DocumentFailed,
        )
    },
)


class MalformedEvent(ValueError):
    """The bytes are not an event this system can read; they never will be."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"malformed event: {reason}")


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """An event with what the wire adds to it.

    Attributes:
        id: unique per fact; a repeated delivery carries the same one.
        source: the part of the system where the fact was made.
        subject: the id of the upload or document it is about.
        tenantid: CloudEvents extension; who may learn of it.
    """

    id: EventId
    source: str
    subject: str
    time: datetime
    tenantid: TenantId
    data: Event

    @property
    def type(self) -> str:
        return self.data.TYPE


class _Wire(msgspec.Struct, kw_only=True):
    specversion: str
    id: UUID
    source: str
    type: str
    subject: str
    time: datetime
    datacontenttype: str
    tenantid: UUID
    data: msgspec.Raw


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(_Wire)
_data_decoders: Final = {name: msgspec.json.Decoder(event) for name, event in EVENT_TYPES.items()}


def encode(envelope: Envelope) -> bytes:
    """Return the structured JSON form of an event."""
    return _encoder.encode(
        {
            "specversion": "1.0",
            "id": envelope.id,
            "source": envelope.source,
            "type": envelope.type,
            "subject": envelope.subject,
            "time": envelope.time,
            "datacontenttype": "application/json",
            "tenantid": envelope.tenantid,
            "data": envelope.data,
        },
    )


def decode(body: bytes) -> Envelope:
    """Read the structured JSON form; fields this version does not know are ignored.

    Raises:
        MalformedEvent: not JSON, too large, not CloudEvents 1.0, a type this
            version does not know, or data without a field its type requires.
    """
    if len(body) > MAX_BYTES:
        raise MalformedEvent(f"{len(body)} bytes, more than {MAX_BYTES}")
    try:
        wire = _decoder.decode(body)
        if wire.specversion != "1.0":
            raise MalformedEvent(f"specversion {wire.specversion!r}")
        if wire.type not in _data_decoders:
            raise MalformedEvent(f"type {wire.type!r}")
        data = _data_decoders[wire.type].decode(wire.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedEvent(str(error)) from error
    return Envelope(
        id=EventId(wire.id),
        source=wire.source,
        subject=wire.subject,
        time=wire.time,
        tenantid=TenantId(wire.tenantid),
        data=data,
    )
