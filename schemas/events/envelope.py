"""The CloudEvents 1.0 envelope and its structured JSON form.

The bytes that the relay publishes are also the body of the webhook.
Source: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Final, TypeAlias, get_args
from uuid import UUID

import msgspec

from schemas.events.batches import BatchEvent
from schemas.events.documents import DocumentEvent
from schemas.events.endpoints import EndpointEvent
from schemas.events.exports import ExportEvent
from schemas.events.jobs import JobEvent
from schemas.events.uploads import UploadEvent
from schemas.ids import EventId, JobId, TenantId, UploadId

CONTENT_TYPE: Final = "application/cloudevents+json"
MAX_BYTES: Final = 64 * 1024
"""Limit of an encoded event. Events carry ids, keys and sizes, never file content."""

Event: TypeAlias = UploadEvent | DocumentEvent | EndpointEvent | ExportEvent | BatchEvent | JobEvent

EVENT_TYPES: Final[Mapping[str, type[Event]]] = MappingProxyType(
    {event.TYPE: event for event in get_args(Event)}
)


REFERENCES: Final = ("upload_id", "job_id", "document_id", "export_id", "batch_id", "endpoint_id")
"""What an event may refer to; each is optional, and a column of the table of events."""


class MalformedEvent(ValueError):
    """The bytes are not an event that this version can decode; a retry changes nothing."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"malformed event: {reason}")


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """An event and its CloudEvents attributes.

    Attributes:
        id: unique per event; a redelivery carries the same id.
        source: the component that emitted the event.
        subject: id of the upload, document, endpoint, export, batch or job that the event is about.
        tenantid: CloudEvents extension: the tenant that the event belongs to.
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

    @property
    def upload_id(self) -> UploadId | None:
        """The upload that the event is about; None for an event of another kind."""
        return getattr(self.data, "upload_id", None)

    @property
    def job_id(self) -> JobId | None:
        """The job that the event is about; None for an event without a job."""
        return getattr(self.data, "job_id", None)

    @property
    def references(self) -> dict[str, UUID | None]:
        """The things that the event is about, by the names in `REFERENCES`."""
        return {name: getattr(self.data, name, None) for name in REFERENCES}


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
    """Decode the structured JSON form; unknown fields are ignored.

    Raises:
        MalformedEvent: not JSON, too large, not CloudEvents 1.0, an unknown
            type, or data that lacks a required field.
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
