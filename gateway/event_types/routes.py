"""`/event-types`: the events that endpoints receive, each with its schema and an example."""

from typing import Any, Final

import msgspec
from litestar import Response, Router, get
from litestar.params import FromPath

from gateway.context import ApiRequest
from gateway.event_types import queries
from gateway.http import revalidation
from gateway.http.problems import answers
from gateway.http.security import requires
from schemas.api.event_types import EventTypes, EventTypeView
from schemas.api.scopes import Scope
from schemas.errors import ErrorCode

_CACHE_CONTROL: Final = "private, max-age=300"
"""The catalogue changes only with the version of the gateway."""


@get(
    "/event-types",
    summary="List the events that endpoints receive",
    opt=requires(Scope.WEBHOOKS_READ),
    responses=answers() | revalidation.NOT_MODIFIED,
)
async def list_event_types(request: ApiRequest) -> Response[EventTypes]:
    """Return every type of events with its JSON Schema and an example."""
    return _answer(request, queries.event_types())


@get(
    "/event-types/{event_type:str}",
    summary="Get a type of events",
    opt=requires(Scope.WEBHOOKS_READ),
    responses=answers(ErrorCode.EVENT_TYPE_NOT_FOUND) | revalidation.NOT_MODIFIED,
)
async def get_event_type(
    request: ApiRequest, *, event_type: FromPath[str]
) -> Response[EventTypeView]:
    """Return a type of events with its JSON Schema and an example."""
    return _answer(request, queries.event_type_of(event_type))


def _answer(request: ApiRequest, view: EventTypes | EventTypeView) -> Response[Any]:
    return revalidation.answer(request, msgspec.json.encode(view), cache_control=_CACHE_CONTROL)


router = Router("/", route_handlers=[list_event_types, get_event_type], tags=["webhooks"])
