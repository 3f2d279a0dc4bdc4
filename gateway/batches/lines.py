"""The lines of a batch: found in the pieces of its body, decoded and checked one by one.

A line that is broken rejects itself and no other line.
"""

import codecs
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from gateway.http import json_body
from gateway.http.problems import InvalidRequest
from schemas.api.batches import BatchLine
from schemas.ids import TenantId
from schemas.policy.references import name_in

LINE: Final = "line"
"""The field that an error names if it concerns the whole line."""

_DECODER: Final = msgspec.json.Decoder(BatchLine)

# How msgspec names the field that is invalid.
_INVALID_FIELD: Final = re.compile(r"(?P<reason>.*) - at `\$\.?(?P<field>.*)`", re.DOTALL)


class LineSplitter:
    """Finds lines in the pieces of a body; keeps at most one incomplete line.

    Lines are numbered from 1 as an editor shows them. Lines of white space count, but are not
    yielded. A line that is too long is yielded as None, and its bytes are dropped while they arrive.
    """

    def __init__(self, *, line_bytes_max: int) -> None:
        self._line_bytes_max = line_bytes_max
        self._begun = bytearray()
        self._is_too_long = False
        self._number = 0

    @property
    def kept_bytes(self) -> int:
        return len(self._begun)

    def lines_of(self, piece: bytes) -> Iterator[tuple[int, bytes | None]]:
        """Yield the number and the content of each line that ends in the piece."""
        first_end = piece.find(b"\n")
        if first_end < 0:
            self._begin(piece)
            return
        self._begin(piece[:first_end])
        yield from self._end()
        *whole, rest = piece[first_end + 1 :].split(b"\n")
        for line in whole:
            self._number += 1
            if len(line) > self._line_bytes_max:
                yield self._number, None
            elif line and not line.isspace():
                yield self._number, line
        self._begin(rest)

    def last(self) -> Iterator[tuple[int, bytes | None]]:
        """Yield the line that the end of the body ends, if there is one."""
        if self._begun or self._is_too_long:
            yield from self._end()

    def _begin(self, content: bytes) -> None:
        if self._is_too_long:
            return
        self._begun += content
        if len(self._begun) > self._line_bytes_max:
            self._begun.clear()
            self._is_too_long = True

    def _end(self) -> Iterator[tuple[int, bytes | None]]:
        line = bytes(self._begun)
        is_too_long = self._is_too_long
        self._begun.clear()
        self._is_too_long = False
        self._number += 1
        if self._number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if is_too_long:
            yield self._number, None
        elif line and not line.isspace():
            yield self._number, line


def decode(content: bytes, *, tenant_id: TenantId) -> BatchLine:
    """Decode and check a line; an object without a filename gets the last part of its key.

    Raises:
        InvalidRequest: the line is not JSON, or a field is invalid.
        ReferenceRefused: the tenant may not submit the named object.
    """
    try:
        line = _DECODER.decode(content)
    except msgspec.ValidationError as error:
        found = _INVALID_FIELD.fullmatch(str(error))
        reason, field = (found["reason"], found["field"]) if found else (str(error), LINE)
        raise InvalidRequest(reason, field=field or LINE) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _fault_of(content, error=error) from error
    if line.object_key is None:
        return line
    name = name_in(line.object_key, tenant_id=tenant_id)
    return line if line.filename else msgspec.structs.replace(line, filename=name)


def shown(detail: str, *, length_max: int = 500) -> str:
    """Return the text of an error as it is stored: it may quote what the client sent.

    PostgreSQL refuses NUL, and a line break could forge a line in a client's log.
    """
    return "".join(each if each.isprintable() else "\ufffd" for each in detail[:length_max])


def _fault_of(content: bytes, *, error: Exception) -> InvalidRequest:
    try:
        json_body.decode(content)
    except InvalidRequest as fault:
        return InvalidRequest(fault.reason, field=LINE) if fault.field == json_body.WHOLE else fault
    return InvalidRequest(str(error), field=LINE)
