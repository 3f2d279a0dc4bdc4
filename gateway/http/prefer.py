"""The `Prefer` header (RFC 7240): how long a client waits for the end of its job."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final

from litestar.params import HeaderParameter

Prefer = Annotated[
    str | None,
    HeaderParameter(
        name="Prefer",
        required=False,
        description="`wait=N` holds the request for up to N seconds; `respond-async` answers "
        "without waiting, also where the server waits by default (RFC 7240)",
    ),
]

_WAIT: Final = re.compile(
    r"(?:^|,)[ \t]*wait[ \t]*=[ \t]*\"?([0-9]{1,9})\"?[ \t]*(?:[,;]|$)", re.IGNORECASE
)
_RESPOND_ASYNC: Final = re.compile(r"(?:^|,)[ \t]*respond-async[ \t]*(?:[,;]|$)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """The preferences that the server honours."""

    wait: timedelta | None
    respond_async: bool


def preferences_of(lines: Sequence[str]) -> Preferences:
    """Parse the lines of the header; a preference that is unknown or malformed is ignored."""
    header = ", ".join(lines)
    wait = _WAIT.search(header)
    return Preferences(
        wait=timedelta(seconds=int(wait[1])) if wait else None,
        respond_async=_RESPOND_ASYNC.search(header) is not None,
    )
