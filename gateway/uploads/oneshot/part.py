"""The head of a part of a form: its name, filename and type, as clients send them.

Sources: https://www.rfc-editor.org/rfc/rfc7578 and
https://html.spec.whatwg.org/#multipart-form-data. Clients follow neither exactly: names arrive
with backslash escapes, without quotes, in legacy encodings, as encoded words of mail, or encoded
a second time in `filename*`. A name is never cut off: a cut name may have another extension.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header
from encodings import normalize_encoding
from encodings.aliases import aliases
from typing import Final, Self
from urllib.parse import unquote_to_bytes

import msgspec

from schemas.api.uploads import ContentType, known_type
from schemas.errors import DomainError, ErrorCode
from schemas.policy import media_types

FILE: Final = "file"

# RFC 7578, 4.7: other encodings are deprecated; if the encoding were ignored, the encoded content
# would be stored.
_PLAIN_ENCODINGS: Final = frozenset({"", "7bit", "8bit", "binary"})

_PARAMETER: Final = re.compile(r"[ \t]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=", re.ASCII)

_ENCODED_WORDS: Final = re.compile(
    r"=\?[^?\s]+\?[bq]\?[^?\s]*\?=(?:[ \t]+=\?[^?\s]+\?[bq]\?[^?\s]*\?=)*", re.ASCII | re.IGNORECASE
)

# By the codec's name, because charsets have many labels. Codecs that are no charsets, such as
# "unicode_escape", are excluded.
_CODECS: Final = re.compile(
    r"utf_8|ascii|latin_1|iso8859_(?:[2-9]|1[013-6])|cp125[0-8]|cp932|cp949|koi8_[ru]"
    r"|gb2312|gbk|gb18030|big5|shift_jis|euc_jp|iso2022_jp|euc_kr"
)

_LEGACY_CHARSETS: Final = ("cp1252", "latin-1")
"""The charsets of bytes that are not UTF-8; the last one decodes everything."""


class FormRefused(DomainError):
    """The form is malformed, or of a kind that this API does not accept."""

    code = ErrorCode.INVALID_REQUEST


@dataclass(frozen=True, kw_only=True)
class Part:
    """What the headers of a part declare.

    Attributes:
        name: of the field.
        filename: as it was sent; data, never a path. None for a part that is no file, and empty if
            the user of a browser has chosen no file.
        content_type: as the client declared it; None if the client does not know it.
        charset: of the content of a field; None without a declaration.
    """

    name: str
    filename: str | None
    content_type: str | None
    charset: str | None

    @classmethod
    def of(cls, headers: Iterable[tuple[str, str]], *, charset: str | None = None) -> Self:
        """Read the headers of a part.

        Args:
            headers: names in title case, values decoded as Latin-1.
            charset: of the form; names are UTF-8 without it.

        Raises:
            FormRefused: the part has no name, or an encoding.
        """
        by_name = dict(reversed(list(headers)))
        disposition = parameters_of(by_name.get("Content-Disposition", ""))
        name = text_of("name", parameters=disposition, charset=charset)
        if not name:
            raise FormRefused("the form has a part without a name")
        encoding = by_name.get("Content-Transfer-Encoding", "")
        if encoding.strip().lower() not in _PLAIN_ENCODINGS:
            raise FormRefused(
                f"the part {name!r} is stored as it is sent: no Content-Transfer-Encoding"
            )
        content_type = by_name.get("Content-Type", "")
        return cls(
            name=name,
            filename=text_of("filename", parameters=disposition, charset=charset),
            content_type=_declared(content_type),
            charset=parameters_of(content_type).get("charset"),
        )

    @property
    def is_file(self) -> bool:
        """Whether the part is the file of the form.

        Some widgets send a field of the same name before the file; it has no filename.
        """
        return self.name == FILE and self.filename is not None


def parameters_of(header: str) -> dict[str, str]:
    """Return the parameters of a header's value by their names in lower case, without quotes.

    An unquoted value may have spaces and semicolons: it ends at the next parameter. A quoted value
    may have unescaped quotes and backslashes, as browsers send them. Of repeated parameters the
    first counts.
    """
    found: list[tuple[str, str]] = []
    for piece in header.rstrip(" \t;").split(";")[1:]:
        begins = _PARAMETER.match(piece)
        value = found[-1][1] if found else ""
        if found and _is_open(value, begins_next=begins is not None):
            found[-1] = (found[-1][0], f"{value};{piece}")
        elif begins is not None:
            found.append((begins[1].lower(), piece[begins.end() :]))
    values = {name: _unquoted(value.strip(" \t")) for name, value in reversed(found)}
    return {name: value for name, value in values.items() if value is not None}


def text_of(name: str, *, parameters: Mapping[str, str], charset: str | None) -> str | None:
    """Return the text of a parameter, or None without it.

    The parameter `name*` (RFC 8187) counts before `name`, unless it cannot be decoded. RFC 7578
    forbids it in forms, and .NET and other clients send it; `name` then is an approximation.
    """
    extended = _extended(parameters.get(f"{name}*", ""))
    if extended is not None:
        return extended
    value = parameters.get(name)
    if value is None:
        return None
    words = _encoded_words(value)
    if words is not None:
        return words
    content = _percent_decoded(value).encode("latin-1")
    charsets = ("utf-8", *([charset] if charset else []), *_LEGACY_CHARSETS)
    return next(text for one in charsets if (text := decoded(content, charset=one)) is not None)


def decoded(content: bytes, *, charset: str) -> str | None:
    """Decode text; None if the charset is unknown, or not that of the content."""
    codec = _codec_of(charset)
    if codec is None:
        return None
    try:
        text = content.decode(codec)
        # A legacy codec must not let a lone surrogate through: the database refuses it.
        text.encode()
    except ValueError:
        return None
    return text


def _codec_of(charset: str) -> str | None:
    """Return the name of Python's codec for a charset; None if it is unknown.

    Python's own lookup keeps every label that it was asked for in memory, and clients send any.
    """
    label = normalize_encoding(charset.lower())
    codec = aliases.get(label, label)
    return codec if _CODECS.fullmatch(codec) else None


def _declared(content_type: str) -> str | None:
    """Return the declared media type; None if the client does not know it.

    A type that is no media type counts as unknown (RFC 2045, 5.2): libraries write "false" or
    nothing for a file whose type they do not know, and their user cannot change that.
    """
    try:
        declared = known_type(msgspec.convert(content_type, ContentType))
    except msgspec.ValidationError:
        return None
    # Clients that do not recognise the type of a file send this type.
    return None if (declared or "").lower() == media_types.UNKNOWN else declared


def _is_open(value: str, *, begins_next: bool) -> bool:
    """Return whether the text after a semicolon still belongs to the value before it."""
    value = value.strip(" \t")
    if not value.startswith('"'):
        return not begins_next
    if len(value) == 1 or not value.endswith('"'):
        return True
    inner = value[1:-1]
    # A browser does not escape a backslash at the end of a name.
    is_escaped = (len(inner) - len(inner.rstrip("\\"))) % 2 == 1
    return is_escaped and not begins_next


def _unquoted(value: str) -> str | None:
    """Return the value without its quotes; None if its quotes do not end."""
    if not value.startswith('"'):
        return value.rstrip(" \t;")
    if len(value) == 1 or not value.endswith('"'):
        return None
    inner = value[1:-1]
    # Browsers send backslashes as they are; only a client that escapes quotes escapes backslashes.
    return re.sub(r'\\(["\\])', r"\1", inner) if '\\"' in inner else inner


def _percent_decoded(value: str) -> str:
    """Decode what browsers encode, and nothing else: a name such as "100%25.pdf" stays as it is."""
    return value.replace("%0D", "\r").replace("%0A", "\n").replace("%22", '"')


def _extended(value: str) -> str | None:
    """Decode `charset'language'percent-encoded` (RFC 8187, 3.2)."""
    charset, first_quote, rest = value.partition("'")
    _language, second_quote, encoded = rest.partition("'")
    if not first_quote or not second_quote:
        return None
    return decoded(unquote_to_bytes(encoded.encode("latin-1")), charset=charset)


def _encoded_words(value: str) -> str | None:
    """Decode a value that consists of encoded words (RFC 2047), as .NET sends it."""
    if not _ENCODED_WORDS.fullmatch(value):
        return None
    try:
        words = [
            decoded(content, charset=charset or "")
            for content, charset in decode_header(value)
            if isinstance(content, bytes)
        ]
    except HeaderParseError:
        return None
    texts = [word for word in words if word is not None]
    return ("".join(texts) or None) if len(texts) == len(words) else None
