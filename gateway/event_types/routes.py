"""`/event-types`: the events that endpoints receive, each with its schema and an example."""

import hashlib
from http import HTTPStatus
from typing import Any, Final

import msgspec
from litestar import Response, Router, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from gateway.context import ApiRequest
from gateway.event_types import queries
from gateway.http.preconditions import ANY, Preconditions
from gateway.http.problems import answers
from gateway.http.security import requires
from schemas.api.event_types import EventTypes, EventTypeView
from schemas.api.scopes import Scope
from schemas.errors import ErrorCode

_CACHE_CONTROL: Final = "private, max-age=300"
"""The catalogue changes only with the version of the gateway."""

_NOT_MODIFIED: Final = {
    int(HTTPStatus.NOT_MODIFIED): ResponseSpec(
        data_container=None, description="the ETag of `If-None-Match` is current"
    )
}


@get(
    "/event-types",
    summary="List the events that endpoints receive",
    opt=requires(Scope.WEBHOOKS_READ),
    responses=answers() | _NOT_MODIFIED,
)
async def list_event_types(request: ApiRequest) -> Response[EventTypes]:
    """Return every type of events with its JSON Schema and an example."""
    return _answer(request, queries.event_types())


@get(
    "/event-types/{event_type:str}",
    summary="Get a type of events",
    opt=requires(Scope.WEBHOOKS_READ),
    responses=answers(ErrorCode.EVENT_TYPE_NOT_FOUND) | _NOT_MODIFIED,
)
async def get_event_type(
    request: ApiRequest, *, event_type: FromPath[str]
) -> Response[EventTypeView]:
    """Return a type of events with its JSON Schema and an example."""
    return _answer(request, queries.event_type_of(event_type))


def _answer(request: ApiRequest, view: EventTypes | EventTypeView) -> Response[Any]:
    etag = f'"{hashlib.sha256(msgspec.json.encode(view)).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": _CACHE_CONTROL}
    conditions = Preconditions.of(lambda field: request.headers.getall(field, []))
    if conditions.if_none_match is not None and conditions.if_none_match & {ANY, etag}:
        return Response(None, status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(view, headers=headers)


router = Router("/", route_handlers=[list_event_types, get_event_type], tags=["webhooks"])
