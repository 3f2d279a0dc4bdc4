"""The `Content-Disposition` of a stored file: how a browser shows or names a download.

Sources: RFC 6266 (the header), RFC 8187 (names beyond ASCII).
"""

import re
import unicodedata
from typing import Final
from urllib.parse import quote

from schemas.policy import media_types
from schemas.policy.media_types import PDF, UNKNOWN

INLINE_TYPES: Final = frozenset(
    {PDF, "image/png", "image/jpeg", "image/gif", "image/webp", "image/tiff"}
)
"""Types that a browser may open: they run no script in the origin of the store."""

ACTIVE_TYPES: Final = frozenset(
    {
        "application/xhtml+xml",
        "application/xml",
        "image/svg+xml",
        "text/html",
        "text/javascript",
        "text/xml",
    }
)
"""Types that a browser may run if a proxy or a page drops the `attachment`."""

NAME_BYTES_MAX: Final = 255
"""Longest name on common file systems; a longer one would also make the URL too long for stores."""

SUFFIX_CHARACTERS_MAX: Final = 16
"""A longer text after the last dot is no suffix that must survive the cut."""

DEFAULT_NAME: Final = "document"

# The marks of RFC 8187, `attr-char`, that `quote` would encode.
_UNENCODED: Final = "!#$&+-.^_`|~"

# Slashes separate directories. Bidirectional controls can show "gpj.exe" as "exe.jpg".
_REPLACED: Final = re.compile(
    r"[/\\\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)

# In a quoted string, a quote and a backslash need an escape and a percent sign is decoded by some
# browsers. A full-width slash decomposes to a slash.
_NOT_IN_FALLBACK: Final = re.compile(r'[^ -~]|["\\%/]')


def media_type_of(content_type: str) -> str:
    """Return the type to serve a stored file with; a type that may run scripts becomes bytes."""
    essence = media_types.essence_of(content_type)
    return UNKNOWN if essence in ACTIVE_TYPES or essence.endswith("+xml") else content_type


def content_disposition(filename: str, *, content_type: str) -> str:
    """Return the header's value: `inline` for a type that a browser opens safely, else `attachment`.

    Args:
        filename: as the client sent it.
        content_type: media type of the stored file.
    """
    is_inline = media_types.essence_of(content_type) in INLINE_TYPES
    name = _cut(_REPLACED.sub("_", filename).strip(" .")) or DEFAULT_NAME
    decomposed = unicodedata.normalize("NFKD", name)
    fallback = _NOT_IN_FALLBACK.sub(
        "_", "".join(each for each in decomposed if not unicodedata.combining(each))
    ).strip(" .")
    fallback = fallback or DEFAULT_NAME
    extended = "" if fallback == name else f"; filename*=UTF-8''{quote(name, safe=_UNENCODED)}"
    return f'{"inline" if is_inline else "attachment"}; filename="{fallback}"{extended}'


def _cut(name: str) -> str:
    """Return the name with at most `NAME_BYTES_MAX` bytes; its suffix stays."""
    if len(name.encode()) <= NAME_BYTES_MAX:
        return name
    stem, dot, suffix = name.rpartition(".")
    if not dot or len(suffix) > SUFFIX_CHARACTERS_MAX:
        stem, dot, suffix = name, "", ""
    room = NAME_BYTES_MAX - len(f"{dot}{suffix}".encode())
    return stem.encode()[:room].decode(errors="ignore") + dot + suffix
