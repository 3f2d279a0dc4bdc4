"""Query parameters of the form `name:value`."""

from collections.abc import Sequence

from gateway.http.problems import InvalidRequest


def pairs_of(texts: Sequence[str] | None, *, field: str) -> dict[str, str]:
    """Return the names and values of a repeatable parameter; of a repeated name the last counts.

    Raises:
        InvalidRequest: a pair has no colon.
    """
    pairs = {}
    for text in texts or ():
        name, colon, value = text.partition(":")
        if not colon:
            raise InvalidRequest("is not of the form name:value", field=field)
        pairs[name] = value
    return pairs
