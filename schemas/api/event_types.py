"""The catalogue of events."""

from typing import Annotated, Any

import msgspec


class EventTypeView(msgspec.Struct, frozen=True, kw_only=True):
    """A type of events, with the schema and an example of the body of its webhook."""

    type: str
    description: str
    selectable: Annotated[
        bool,
        msgspec.Meta(
            description="whether `event_types` of an endpoint may name it; an endpoint receives "
            "the other types on request"
        ),
    ]
    schema: Annotated[
        dict[str, Any], msgspec.Meta(description="JSON Schema (2020-12) of the whole body")
    ]
    example: Annotated[dict[str, Any], msgspec.Meta(description="a whole body")]


class EventTypes(msgspec.Struct, frozen=True, kw_only=True):
    """Every type of events that an endpoint can receive."""

    items: list[EventTypeView]
