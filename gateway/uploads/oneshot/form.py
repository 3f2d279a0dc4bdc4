"""Streaming parser for a form with one file; it buffers no part of the file.

Source: https://www.rfc-editor.org/rfc/rfc7578
"""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import msgspec
from multipart import (  # type: ignore[import-untyped]  # it is published without type information
    MultipartError,
    MultipartSegment,
    PushMultipartParser,
)

from gateway.uploads.oneshot.part import FILE, FormRefused, Part, decoded, parameters_of
from gateway.uploads.oneshot.widgets import check_whole
from schemas.api.submissions import FormFields
from schemas.api.uploads import (
    METADATA_COUNT_MAX,
    Filename,
    MetadataName,
    MetadataValue,
    PipelineOptions,
)

MEDIA_TYPE: Final = "multipart/form-data"

FRAME_BYTES_MAX: Final = 64 * 1024
"""Limit for the bytes of a form that do not belong to its file."""

FIELD_BYTES_MAX: Final = 8 * 1024
"""The longest value of metadata in UTF-8, if every character has four bytes."""

LINE_BYTES_MAX: Final = 8 * 1024
"""A longer line is no boundary; the parser refuses a header of this length."""

NAME_SHOWN_MAX: Final = 64
"""Characters of a field's name that an error shows."""

CHARSET_FIELD: Final = "_charset_"
"""Declares the charset of the other fields (RFC 7578, 4.6)."""

PIPELINE: Final = "pipeline"
"""The only field whose text is JSON."""

DECLARATIONS: Final = frozenset(FormFields.__struct_fields__) - {"metadata"}
"""The fields with a meaning; every other field is metadata."""

# RFC 2046, 5.1.1.
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")


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


@dataclass(frozen=True, kw_only=True)
class Value:
    """A value of a field, and the charset that its part declares."""

    content: bytes
    charset: str | None


class Form:
    """Reads a form in order: the head of its file, the file, then the rest.

    Args:
        body: the bytes of the form, in pieces.
        boundary: separates the parts.
        length: size of the body in bytes.
    """

    def __init__(self, body: AsyncIterator[bytes], *, boundary: str, length: int) -> None:
        self.length = length
        self._delimiter = f"\r\n--{boundary}".encode("ascii")
        # Latin-1 maps every byte to one character: `Part` decodes names by their own charset.
        self._parser = PushMultipartParser(boundary, header_charset="latin-1")
        self._held = b""
        self._is_line_begun = False
        self._is_in_file = False
        self._fed = 0
        self._size_max = 0
        self._file_bytes = 0
        self._charset: str | None = None
        self._values: dict[str, list[Value]] = {}
        self._part: Part | None = None
        self._field = bytearray()
        self._events = self._parsed(body)

    @classmethod
    def of(cls, body: AsyncIterator[bytes], *, content_type: str, length: int) -> Self:
        """Return the form of a request with this `Content-Type`.

        Raises:
            FormRefused: the type is not that of a form, or has no valid boundary.
        """
        media_type = content_type.partition(";")[0].strip().lower()
        boundary = parameters_of(content_type).get("boundary", "")
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
        texts = {name: self._text_of(name) for name in self._values}
        declarations = {name: texts.pop(name) for name in DECLARATIONS & texts.keys()}
        check_whole(texts)
        _check_metadata(texts)
        try:
            # A browser sends an empty field for an input that its user left empty.
            present: dict[str, Any] = {name: text for name, text in declarations.items() if text}
            if PIPELINE in present:
                present[PIPELINE] = msgspec.json.decode(present[PIPELINE], type=PipelineOptions)
            return msgspec.convert({**present, "metadata": texts}, FormFields)
        except msgspec.DecodeError as error:
            raise FormRefused(f"a field of the form is invalid: {error}") from error

    async def head(self) -> FileHead:
        """Read up to the first byte of the file.

        Raises:
            FormRefused: the form is malformed, or has no file.
        """
        async for event in self._events:
            if isinstance(event, Part) and event.is_file:
                self._size_max = max(0, self.length - self._fed - len(self._delimiter) - len("--"))
                return _head_of(event, size_max=self._size_max)
            self._take_field(event)
        raise FormRefused(f"there is no file in the form: no part named {FILE!r} with a filename")

    async def file(self) -> AsyncIterator[bytes]:
        """Yield the pieces of the file.

        Raises:
            FormRefused: the form ends within the file.
        """
        async for event in self._events:
            if not isinstance(event, bytes):
                return
            self._file_bytes += len(event)
            # More bytes leave no room for the final boundary, and none were reserved for them.
            if self._file_bytes > self._size_max:
                raise _without_end()
            yield event
            del event

    async def rest(self) -> None:
        """Read from the end of the file to the end of the form.

        Raises:
            FormRefused: the form is malformed, or has another file.
        """
        async for event in self._events:
            if isinstance(event, Part) and event.is_file:
                raise FormRefused("there is more than one file in the form")
            self._take_field(event)

    async def _parsed(self, body: AsyncIterator[bytes]) -> AsyncIterator[Part | bytes | None]:
        has_parts = False
        try:
            async for portion in self._portions(body):
                for event in self._parser.parse(portion):
                    if isinstance(event, MultipartSegment):
                        part = Part.of(event.headerlist, charset=self._charset)
                        has_parts, self._is_in_file = True, part.is_file
                        yield part
                    else:
                        yield event
                # A form that stalls must not keep its last piece.
                event = None
                del portion
                if self._fed - self._file_bytes > FRAME_BYTES_MAX:
                    raise FormRefused(
                        f"the form has more than {FRAME_BYTES_MAX} bytes besides its file"
                        if has_parts
                        else "the form is malformed: it does not begin with its boundary"
                    )
        except MultipartError as error:
            raise FormRefused(f"the form is malformed: {error.args[0]}") from error
        try:
            self._parser.close()
        except MultipartError as error:
            raise _without_end() from error

    async def _portions(self, body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Yield the body for the parser: the file in pieces, everything else line by line.

        By lines, the position of the file's first byte is exact, and so also `FileHead.size_max`.
        White space after a boundary (RFC 2046, 5.1.1), which the parser refuses, is left out.
        """
        async for piece in body:
            content, start, portion = self._held + piece if self._held else piece, 0, b""
            while (end := self._end_of_portion(content, start)) > start:
                self._fed += end - start
                portion, start = content[start:end], end
                yield portion if self._is_in_file else self._line(portion)
            self._held = content[start:]
            del piece, content, portion  # see above
        if self._held:
            self._fed += len(self._held)
            yield self._held

    def _end_of_portion(self, content: bytes, start: int) -> int:
        """Return where the next portion ends; `start` if that depends on bytes yet to arrive."""
        if self._is_in_file:
            end = content.find(self._delimiter, start)
            if end < 0:
                return len(content) - _overlap(content, self._delimiter, start=start)
            if end > start:
                return end
            self._is_in_file, self._is_line_begun = False, True
        end = content.find(b"\n", start) + 1
        if end:
            return end
        return len(content) if len(content) - start > LINE_BYTES_MAX else start

    def _line(self, line: bytes) -> bytes:
        content = line.removesuffix(b"\r\n")
        is_boundary = not self._is_line_begun and content.rstrip(b" \t") == self._delimiter[2:]
        self._is_line_begun = content == line
        return self._delimiter[2:] + b"\r\n" if is_boundary else line

    def _text_of(self, name: str) -> str:
        """Return the text of a field; the values of a repeated field are lines."""
        texts = []
        for value in self._values[name]:
            charset = value.charset or self._charset or "utf-8"
            text = decoded(value.content, charset=charset)
            if text is None:
                raise FormRefused(f"the field {name!r} is not {charset}")
            texts.append(text)
        return "\n".join(texts)

    def _take_field(self, event: Part | bytes | None) -> None:
        if isinstance(event, Part):
            if event.filename:
                raise FormRefused(
                    f"the part {event.name!r} is a file: a form has one, in the part {FILE!r}"
                )
            if event.name in DECLARATIONS and event.name in self._values:
                raise FormRefused(f"the form has more than one {event.name!r}")
            self._part = event
            self._field.clear()
        elif event is not None:
            self._field += event
            if len(self._field) > FIELD_BYTES_MAX:
                name = self._part.name if self._part else ""
                raise FormRefused(f"the field {name!r} has more than {FIELD_BYTES_MAX} bytes")
        elif self._part is not None:
            self._end_field(self._part)

    def _end_field(self, part: Part) -> None:
        if part.filename is not None:
            # A browser sends an empty part for a file input without a chosen file.
            if self._field:
                raise FormRefused(f"the part {part.name!r} is a file without a filename")
        elif part.name == CHARSET_FIELD:
            self._charset = self._field.decode("latin-1") or None
        else:
            value = Value(content=bytes(self._field), charset=part.charset)
            self._values.setdefault(part.name, []).append(value)


def _overlap(content: bytes, delimiter: bytes, *, start: int) -> int:
    """Return how many bytes at the end of the content may be the beginning of the delimiter."""
    begin = content.rfind(b"\r", max(start, len(content) - len(delimiter) + 1))
    return len(content) - begin if begin >= 0 and delimiter.startswith(content[begin:]) else 0


def _without_end() -> FormRefused:
    return FormRefused("the form is malformed: its final boundary is missing")


def _check_metadata(texts: Mapping[str, str]) -> None:
    if len(texts) > METADATA_COUNT_MAX:
        raise FormRefused(f"the form has more than {METADATA_COUNT_MAX} fields of metadata")
    for name, text in texts.items():
        shown = repr(name[:NAME_SHOWN_MAX])
        try:
            msgspec.convert(name, MetadataName)
        except msgspec.ValidationError as error:
            raise FormRefused(f"the name of the field {shown} is invalid: {error}") from error
        try:
            msgspec.convert(text, MetadataValue)
        except msgspec.ValidationError as error:
            raise FormRefused(f"the field {shown} is invalid: {error}") from error


def _head_of(part: Part, *, size_max: int) -> FileHead:
    try:
        return FileHead(
            filename=msgspec.convert(part.filename, Filename),
            content_type=part.content_type,
            size_max=size_max,
        )
    except msgspec.ValidationError as error:
        raise FormRefused(f"the file's name is missing or invalid: {error}") from error
