"""Which events an endpoint receives: exact types, all types of a noun (``document.*``), or all (``*``)."""

from collections.abc import Collection, Sequence
from typing import Final

EVERY_TYPE: Final = "*"
EVERY_TYPE_OF_NOUN: Final = ".*"

METADATA_COUNT_MAX: Final = 16
"""Most members of a filter by the metadata of the upload."""


class EventTypeUnknown(ValueError):
    """A filter selects no event of those that endpoints receive."""

    def __init__(self, event_type: str, *, known: Collection[str]) -> None:
        # The text comes from the client: a JSON string shows white space, and is short.
        shown = event_type if len(event_type) <= max(map(len, known)) else f"{event_type[:40]}…"
        nouns = sorted({f"{noun_of(each)}{EVERY_TYPE_OF_NOUN}" for each in known})
        super().__init__(f"{shown!r} is none of {', '.join((*sorted(known), *nouns, EVERY_TYPE))}")


def noun_of(event_type: str) -> str:
    return event_type.partition(".")[0]


def check_types(event_types: Sequence[str], *, known: Collection[str]) -> list[str]:
    """Return the filters without repetitions, in their order.

    Args:
        event_types: the filters; none of them means every type.
        known: the types that endpoints receive.

    Raises:
        EventTypeUnknown: a filter selects no known type.
    """
    nouns = {noun_of(each) for each in known}
    for event_type in event_types:
        noun = event_type.removesuffix(EVERY_TYPE_OF_NOUN)
        if event_type in known or event_type == EVERY_TYPE:
            continue
        if noun == event_type or noun not in nouns:
            raise EventTypeUnknown(event_type, known=known)
    return list(dict.fromkeys(event_types))


def selects(event_types: Sequence[str], event_type: str) -> bool:
    """Return whether an endpoint with these filters receives an event of this type."""
    return not event_types or not {
        EVERY_TYPE,
        event_type,
        noun_of(event_type) + EVERY_TYPE_OF_NOUN,
    }.isdisjoint(event_types)
