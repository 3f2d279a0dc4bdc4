"""`If-Match` and `If-None-Match` of a request that changes a resource (RFC 9110, 13).

The other conditions do not apply: resources have no modification date that clients see, and
`If-Modified-Since` and `If-Range` have a meaning only for reading (13.1.3 to 13.1.5).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Self

from gateway.http.problems import InvalidRequest
from schemas.errors import DomainError, ErrorCode

ANY: Final = "*"

# RFC 9110, 8.8.3; a comma may be part of a tag.
_TAG: Final = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")[ \t]*(?:,[ \t,]*|$)')


class PreconditionFailed(DomainError):
    """The condition of the request does not hold; nothing was changed."""

    code = ErrorCode.PRECONDITION_FAILED

    def __init__(self, field: str, *, etag: str | None) -> None:
        found = "it is not stored" if etag is None else f'its ETag is "{etag}"'
        super().__init__(f"{field} does not hold: {found}")


@dataclass(frozen=True, kw_only=True)
class Preconditions:
    """The conditions of a request.

    Attributes:
        if_match: strong tags, in quotes, of which one must be current; None without the field.
        if_none_match: tags, in quotes, of which none may be current; None without the field.
    """

    if_match: frozenset[str] | None = None
    if_none_match: frozenset[str] | None = None

    @classmethod
    def of(cls, lines: Callable[[str], Sequence[str]]) -> Self:
        """Parse the fields of a request.

        Raises:
            InvalidRequest: a field is malformed.
        """
        return cls(
            if_match=_tags(lines("If-Match"), field="If-Match", with_weak=False),
            if_none_match=_tags(lines("If-None-Match"), field="If-None-Match", with_weak=True),
        )

    def check(self, etag: str | None) -> None:
        """Compare the conditions with the strong ETag of the resource; None if it does not exist.

        Raises:
            PreconditionFailed: a condition does not hold.
        """
        current = frozenset() if etag is None else frozenset({ANY, f'"{etag}"'})
        if self.if_match is not None and self.if_match.isdisjoint(current):
            raise PreconditionFailed("If-Match", etag=etag)
        if self.if_none_match is not None and not self.if_none_match.isdisjoint(current):
            raise PreconditionFailed("If-None-Match", etag=etag)


UNCONDITIONAL: Final = Preconditions()


def _tags(lines: Sequence[str], *, field: str, with_weak: bool) -> frozenset[str] | None:
    if not lines:
        return None
    value = ", ".join(lines).strip(" \t")
    if value == ANY:
        return frozenset({ANY})
    tags, end = set(), 0
    while end < len(value) or not value:
        found = _TAG.match(value, end)
        if found is None:
            raise InvalidRequest('is "*", or entity tags in quotes', field=field)
        # A weak tag never matches strongly (RFC 9110, 8.8.3.2).
        if with_weak or found[1] is None:
            tags.add(found[2])
        end = found.end()
    return frozenset(tags)
