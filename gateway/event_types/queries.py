"""Reads the catalogue, which is constant while the process runs."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from schemas.api.event_types import EventTypes, EventTypeView
from schemas.errors import DomainError, ErrorCode
from schemas.events.catalogue import description_of, schema_of
from schemas.events.envelope import encode
from schemas.events.examples import example_envelope
from schemas.queues import NOTIFY
from schemas.topology import DELIVERED, SUBSCRIPTIONS


class EventTypeNotFound(DomainError):
    """No endpoint receives events of this type."""

    code = ErrorCode.EVENT_TYPE_NOT_FOUND

    def __init__(self, event_type: str) -> None:
        super().__init__(
            f"there is no event type {event_type!r}; there are {', '.join(sorted(DELIVERED))}"
        )


def event_types() -> EventTypes:
    return _ALL


def event_type_of(name: str) -> EventTypeView:
    """Return a type of events.

    Raises:
        EventTypeNotFound: no endpoint receives events of this type.
    """
    found = _BY_NAME.get(name)
    if found is None:
        raise EventTypeNotFound(name)
    return found


def _view(name: str) -> EventTypeView:
    return EventTypeView(
        type=name,
        description=description_of(name),
        selectable=name in SUBSCRIPTIONS[NOTIFY],
        schema=schema_of(name),
        example=msgspec.json.decode(encode(example_envelope(name))),
    )


_BY_NAME: Final[Mapping[str, EventTypeView]] = MappingProxyType(
    {name: _view(name) for name in sorted(DELIVERED)}
)
_ALL: Final = EventTypes(items=list(_BY_NAME.values()))
