"""Trace context (https://www.w3.org/TR/trace-context/) as it travels in headers."""

import re
from typing import Final

TRACEPARENT_HEADER: Final = "traceparent"

_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)


def valid_traceparent(header: str | None) -> str | None:
    """Return the header if it is valid; the standard requires that an invalid header is ignored."""
    return header if header is not None and _TRACEPARENT.fullmatch(header) else None
