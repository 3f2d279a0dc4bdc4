"""The `webhooks` of the API description: the requests that endpoints receive."""

from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec
from litestar.openapi.spec import (
    OpenAPIHeader,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Parameter,
    PathItem,
    Reference,
    RequestBody,
    Schema,
)
from litestar.openapi.spec.base import BaseSchemaObject

from schemas.events import catalogue
from schemas.events.envelope import CONTENT_TYPE, encode
from schemas.events.examples import example_envelope
from schemas.topology import DELIVERED


@dataclass
class _Verbatim(BaseSchemaObject):
    """A part of the description as it is; Litestar drops the nulls of other values."""

    part: dict[str, Any]

    def to_schema(self) -> dict[str, Any]:
        return self.part


_TEXT: Final = Schema(type=OpenAPIType.STRING)


def webhooks() -> dict[str, PathItem | Reference]:
    """Return the requests that endpoints receive, by the type of their event."""
    return {event_type: PathItem(post=_delivery_of(event_type)) for event_type in sorted(DELIVERED)}


def _delivery_of(event_type: str) -> Operation:
    envelope = example_envelope(event_type)
    return Operation(
        operation_id=f"receive_{event_type.replace('.', '_')}",
        summary=event_type,
        description=catalogue.description_of(event_type),
        tags=["webhooks"],
        security=[],  # the signature takes the place of a key
        parameters=[
            _signed_field(
                "webhook-id",
                "the `id` of the event: the same in every attempt, resend and replay",
                example=str(envelope.id),
            ),
            _signed_field(
                "webhook-timestamp",
                "the time of the attempt in Unix seconds; refuse a time that is more than five "
                "minutes away",
                example=str(int(envelope.time.timestamp())),
            ),
            _signed_field(
                "webhook-signature",
                "signatures separated by spaces, one for each valid secret: `v1,` with base64 of "
                "HMAC-SHA256, `v1a,` with base64 of ed25519, both over "
                "`{webhook-id}.{webhook-timestamp}.{body}`",
                example="v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
            ),
        ],
        request_body=RequestBody(
            required=True,
            description="CloudEvents 1.0 in JSON; verify the signature over the bytes as received",
            content={
                CONTENT_TYPE: OpenAPIMediaType(
                    schema=cast("Schema", _Verbatim(part=catalogue.schema_of(event_type))),
                    example=_Verbatim(part=msgspec.json.decode(encode(envelope))),
                )
            },
        ),
        responses={
            "2XX": OpenAPIResponse(
                description="the event is stored; answer before working on it. The body is ignored"
            ),
            "410": OpenAPIResponse(description="the endpoint is disabled"),
            "429": _later("the endpoint is slowed down, and the event is sent again"),
            "503": _later("the endpoint is slowed down, and the event is sent again"),
            "default": OpenAPIResponse(
                description="the attempt failed, and the event is sent again; redirects are not "
                "followed"
            ),
        },
    )


def _signed_field(name: str, description: str, *, example: str) -> Parameter:
    return Parameter(
        name=name,
        param_in="header",
        required=True,
        schema=_TEXT,
        description=description,
        example=example,
    )


def _later(description: str) -> OpenAPIResponse:
    retry_after = OpenAPIHeader(
        schema=_TEXT, description="seconds or an HTTP date; no attempt is made before it"
    )
    return OpenAPIResponse(description=description, headers={"Retry-After": retry_after})
