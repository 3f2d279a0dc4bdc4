"""Streaming parser for a form with one file; it buffers no part of the file.

Source: https://www.rfc-editor.org/rfc/rfc7578
"""

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Final, Self

import msgspec
from multipart import (  # type: ignore[import-untyped]  # it is published without type information
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
    content_disposition_unquote,
    parse_options_header,
)

from schemas.api.submissions import FormFields
from schemas.api.uploads import ContentType, Filename
from schemas.errors import DomainError, ErrorCode
from schemas.policy import media_types

FILE: Final = "file"
MEDIA_TYPE: Final = "multipart/form-data"

FRAME_BYTES_MAX: Final = 16 * 1024
"""Limit for the bytes of a form that do not belong to its file."""

FIELD_BYTES_MAX: Final = 4 * 1024

# RFC 2046, 5.1.1.
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")

# RFC 7578, 4.7: other encodings are deprecated; if the encoding were ignored, the encoded file
# would be stored.
_PLAIN_ENCODINGS: Final = frozenset({"7bit", "8bit", "binary"})


class FormRefused(DomainError):
    """The form is malformed, or of a kind that this API does not accept."""

    code = ErrorCode.INVALID_REQUEST


@dataclass(frozen=True, kw_only=True)
class FileHead:
    """What a form declares about its file before the first byte of the file.

    Attributes:
        filename: as it was sent; data, never a path.
        content_type: as the client declared it; None without a declaration.
        size_max: size of the file if only the end of the form follows the file.
    """

    filename: str
    content_type: str | None
    size_max: int


class Form:
    """Reads a form in order: the head of its file, the file, then the rest.

    Args:
        body: the bytes of the form, in pieces.
        boundary: separates the parts.
        length: size of the body in bytes.
    """

    def __init__(self, body: AsyncIterator[bytes], *, boundary: str, length: int) -> None:
        self.length = length
        self._end = f"\r\n--{boundary}--".encode("ascii")
        self._parser = PushMultipartParser(boundary)
        self._is_in_file = False
        self._fed = 0
        self._file_bytes = 0
        self._texts: dict[str, str] = {}
        self._field = bytearray()
        self._field_name = ""
        self._events = self._parsed(body)

    @classmethod
    def of(cls, body: AsyncIterator[bytes], *, content_type: str, length: int) -> Self:
        """Return the form of a request with this `Content-Type`.

        Raises:
            FormRefused: the type is not that of a form, or has no valid boundary.
        """
        media_type, options = parse_options_header(content_type)
        boundary = options.get("boundary", "")
        if media_type != MEDIA_TYPE or not _BOUNDARY.fullmatch(boundary):
            raise FormRefused(
                f"a form is sent as {MEDIA_TYPE}, with a boundary of at most 70 characters"
            )
        return cls(body, boundary=boundary, length=length)

    @property
    def fields(self) -> FormFields:
        """The fields that have arrived.

        Raises:
            FormRefused: a field is invalid.
        """
        try:
            return msgspec.convert(self._texts, FormFields)
        except msgspec.ValidationError as error:
            raise FormRefused(f"a field of the form is invalid: {error}") from error

    async def head(self) -> FileHead:
        """Read up to the first byte of the file.

        Raises:
            FormRefused: the form is malformed, or has no file.
        """
        async for event in self._events:
            if isinstance(event, MultipartSegment) and event.name == FILE:
                size_max = max(0, self.length - self._fed - len(self._end))
                return _head_of(event, size_max=size_max)
            self._take_field(event)
        raise FormRefused(f"there is no file in the form: no part named {FILE!r}")

    async def file(self) -> AsyncIterator[bytes]:
        """Yield the pieces of the file.

        Raises:
            FormRefused: the form ends within the file.
        """
        async for event in self._events:
            if not isinstance(event, bytes):
                self._is_in_file = False
                return
            self._file_bytes += len(event)
            yield event

    async def rest(self) -> None:
        """Read from the end of the file to the end of the form.

        Raises:
            FormRefused: the form is malformed, or has another file.
        """
        async for event in self._events:
            if isinstance(event, MultipartSegment) and event.name == FILE:
                raise FormRefused("there is more than one file in the form")
            self._take_field(event)

    async def _parsed(
        self, body: AsyncIterator[bytes]
    ) -> AsyncIterator[MultipartSegment | bytes | None]:
        try:
            async for piece in body:
                for portion in self._portions(piece):
                    self._fed += len(portion)
                    for event in self._parser.parse(portion):
                        if isinstance(event, MultipartSegment):
                            self._is_in_file = event.name == FILE
                        yield event
                if self._fed - self._file_bytes > FRAME_BYTES_MAX:
                    raise FormRefused(
                        f"the form has more than {FRAME_BYTES_MAX} bytes besides its file"
                    )
            self._parser.close()
        except MultipartError as error:
            raise FormRefused(f"the form is malformed: {error.args[0]}") from error

    def _portions(self, piece: bytes) -> Iterator[bytes]:
        """Yield a piece line by line until the file begins.

        This makes the position of the file's first byte exact, and so also `FileHead.size_max`.
        """
        rest = piece
        while rest:
            end = 0 if self._is_in_file else rest.find(b"\n") + 1
            portion, rest = (rest[:end], rest[end:]) if end else (rest, b"")
            yield portion

    def _take_field(self, event: MultipartSegment | bytes | None) -> None:
        if isinstance(event, MultipartSegment):
            if event.name not in FormFields.__struct_fields__:
                raise FormRefused(f"the form has a part with an unknown name: {event.name!r}")
            if event.name in self._texts:
                raise FormRefused(f"the form has more than one {event.name!r}")
            self._field_name = event.name
            self._field.clear()
        elif event is None:
            try:
                self._texts[self._field_name] = self._field.decode()
            except UnicodeDecodeError as error:
                raise FormRefused(f"the field {self._field_name!r} is not UTF-8") from error
        else:
            self._field += event
            if len(self._field) > FIELD_BYTES_MAX:
                raise FormRefused(
                    f"the field {self._field_name!r} has more than {FIELD_BYTES_MAX} bytes"
                )


def _head_of(part: MultipartSegment, *, size_max: int) -> FileHead:
    # The parser itself would cut off a part of the filename that looks like a path.
    _, options = parse_options_header(
        part.header("Content-Disposition", ""),
        unquote=lambda value, _is_filename: content_disposition_unquote(value),
    )
    encoding = part.header("Content-Transfer-Encoding", "binary")
    if encoding.strip().lower() not in _PLAIN_ENCODINGS:
        raise FormRefused("the file is stored as it is sent: no Content-Transfer-Encoding")
    declared = part.header("Content-Type", media_types.UNKNOWN)
    try:
        return FileHead(
            filename=msgspec.convert(options.get("filename"), Filename),
            # Clients that do not recognise the type of the file send this type.
            content_type=None
            if declared.lower() == media_types.UNKNOWN
            else msgspec.convert(declared, ContentType),
            size_max=size_max,
        )
    except msgspec.ValidationError as error:
        raise FormRefused(f"the file's name or type is missing or invalid: {error}") from error
