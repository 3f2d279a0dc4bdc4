"""Shows what foreign publishers wrote, without secrets and without terminal control characters."""

import json
import re
from typing import Any, Final

MASK: Final = "***"

EXCERPT_MAX: Final = 2048
"""Most characters of a text that is shown."""

JSON_BYTES_MAX: Final = 64 * 1024
"""Larger bodies are shown as an excerpt; no event is larger."""

_SECRET_NAME: Final = re.compile(
    r"authorization|cookie|credential|password|passwd|secret|token|api[-_]?key|signature",
    re.IGNORECASE,
)
_SECRET_TEXT: Final = re.compile(
    r"(?:whsec_|whsk_|wb_)[\w+/=-]+"  # secrets of webhooks, API keys
    r"|(?<=://)[^\s/@]+(?=@)"  # user and password of a URL
    r"|(?<=\bBearer )\S+"
    r"|(?<=\?)[^\s\"'<>]+"  # the query of a URL
)


def masked(value: Any) -> Any:  # noqa: ANN401  # any JSON value
    """Return a JSON value with its secrets masked: by the names of members, and by their form."""
    match value:
        case dict():
            return {
                masked(name): MASK if _SECRET_NAME.search(name) else masked(each)
                for name, each in value.items()
            }
        case list():
            return [masked(each) for each in value]
        case str():
            return _SECRET_TEXT.sub(MASK, value)
    return value


def as_json(body: bytes) -> Any | None:  # noqa: ANN401  # any JSON value
    """Return the masked JSON value of a body; None if the body is not JSON or is too large."""
    if len(body) > JSON_BYTES_MAX:
        return None
    try:
        return masked(json.loads(body, parse_constant=str))
    except (ValueError, RecursionError):
        return None


def excerpt(body: bytes) -> str:
    """Return the beginning of a body as one printable line."""
    text = printable(masked(body[:EXCERPT_MAX].decode(errors="backslashreplace")))
    return text if len(body) <= EXCERPT_MAX else f"{text}…"


def printable(text: str) -> str:
    """Escape what is not printable: a control character could change what a terminal shows."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
