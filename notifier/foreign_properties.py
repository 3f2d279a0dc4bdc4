"""Decodes the properties of any message, whatever its publisher wrote.

pamqp raises an error for text that is not UTF-8, for a time out of range and for a damaged table.
aiormq then closes the connection, the broker delivers the message again, and so on: one message
would stop every consumer of the connection.
"""

from datetime import datetime
from typing import Any, Final

from pamqp import decode

UNDECODABLE: Final = "undecodable"
"""Name of the only header of a message whose headers cannot be decoded; its value is their hex."""

_ERRORS: Final = (ValueError, OverflowError, OSError, RecursionError)


def tolerate() -> None:
    """Make pamqp decode the properties of every message, in this process."""
    decode.METHODS.update(shortstr=_short_text, timestamp=_timestamp, table=_table)


def _short_text(value: bytes) -> tuple[int, str]:
    end = 1 + value[0]
    return end, value[1:end].decode(errors="replace")


def _timestamp(value: bytes) -> tuple[int, datetime | None]:
    try:
        return decode.timestamp(value)
    except _ERRORS:
        return 8, None


def _table(value: bytes) -> tuple[int, dict[str, Any]]:
    try:
        return decode.field_table(value)
    except _ERRORS:
        end = 4 + int.from_bytes(value[:4])
        return end, {UNDECODABLE: value[4:end].hex()}
