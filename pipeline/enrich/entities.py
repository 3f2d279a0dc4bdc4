"""Finds entities by rules: addresses, dates, amounts and account numbers.

The rules are few and precise; names of people, places and companies need a trained model.
"""

from bisect import bisect_right
from collections.abc import Iterable
from itertools import islice
from operator import attrgetter
from typing import Final

from pipeline.enrich import addresses, amounts, dates
from pipeline.enrich.annotations import Entity, Found
from pipeline.enrich.dates import DateOrder
from pipeline.enrich.languages import Rules

_LONGEST: Final = 500
_JOINED: Final = frozenset({"EMAIL", "URL"})  # white space inside is of the page, not of the text


def found_by_rules(text: str, *, rules: Rules, order: DateOrder, most: int) -> list[Found]:
    """Return at least the first `most` entities of a text, in order, not overlapping."""
    found = [
        *islice(addresses.urls(text), most),
        *islice(addresses.emails(text), most),
        *islice(addresses.ibans(text), most),
        *dates.dates(text, rules=rules, order=order),
        *islice(amounts.amounts(text, rules=rules), most),
    ]
    # Of two that begin at the same place, the kind that is listed first stays: the sort is stable.
    kept: list[Found] = []
    for each in sorted(found, key=attrgetter("start")):
        if not kept or each.start >= kept[-1].end:
            kept.append(each)
    return kept


def merged(found: list[Found], others: Iterable[Found]) -> list[Found]:
    """Return `found` and those of `others` that do not overlap any of it, in order."""
    starts = [each.start for each in found]

    def is_apart(other: Found) -> bool:
        place = bisect_right(starts, other.start)
        return (place == 0 or found[place - 1].end <= other.start) and (
            place == len(found) or found[place].start >= other.end
        )

    return sorted([*found, *filter(is_apart, others)], key=attrgetter("start"))


def entity(found: Found, text: str) -> Entity | None:
    """Return the entity; None if it is too long to be one."""
    if found.end - found.start > _LONGEST:
        return None
    words = text[found.start : found.end].split()
    written = ("" if found.label in _JOINED else " ").join(words)
    return Entity(found.label, written, found.normal, found.start, found.end)
