"""Decoding of a JSON body; every refusal names the field."""

import codecs
import json
import math
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from gateway.http.problems import InvalidRequest

WHOLE: Final = "body"
DIGITS_MAX: Final = 400
"""Python refuses to convert integers of thousands of digits; msgspec refuses far shorter ones."""


def decode(body: bytes) -> Any:  # noqa: ANN401  # JSON of any kind
    """Decode a body; a byte order mark is ignored (RFC 8259, 8.1).

    Of repeated keys the last counts.

    Raises:
        InvalidRequest: the body is not JSON, or has a value that no field can have.
    """
    try:
        return msgspec.json.decode(body.removeprefix(codecs.BOM_UTF8))
    except RecursionError as error:
        raise InvalidRequest("is nested too deeply", field=WHOLE) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _reason(body.removeprefix(codecs.BOM_UTF8), error=error) from error


def _reason(body: bytes, *, error: Exception) -> InvalidRequest:
    """Return why a body was refused, in the field that is the cause."""
    try:
        # A tolerant decoder finds the field in which the strict decoder stopped.
        value = json.loads(body.decode("utf-8", "surrogatepass"), parse_int=_number)
    except UnicodeDecodeError as not_utf8:
        return InvalidRequest(f"is not UTF-8 at byte {not_utf8.start}", field=WHOLE)
    except (ValueError, RecursionError):
        return _not_json(error)
    for field, reason in _faults(value):
        return InvalidRequest(reason, field=field)
    return _not_json(error)


def _not_json(error: Exception) -> InvalidRequest:
    return InvalidRequest(
        f"is not JSON: {str(error).removeprefix('JSON is malformed: ')}", field=WHOLE
    )


def _faults(value: Any, *, field: str = "") -> Iterator[tuple[str, str]]:  # noqa: ANN401  # JSON of any kind
    if isinstance(value, str) and not _is_text(value):
        yield field or WHOLE, "has half of a surrogate pair: the text was cut within a character"
    elif isinstance(value, float) and not math.isfinite(value):
        yield field or WHOLE, "the number is out of range"
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _faults(item, field=f"{field}[{index}]")
    elif isinstance(value, dict):
        for name, item in value.items():
            shown = (
                name.encode("ascii", "backslashreplace").decode() if not _is_text(name) else name
            )
            path = f"{field}.{shown}" if field else shown
            yield from _faults(name, field=path)
            yield from _faults(item, field=path)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(digits: str) -> float:
    return int(digits) if len(digits) <= DIGITS_MAX else math.inf
