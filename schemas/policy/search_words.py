"""The words and marks by which search finds a passage: the column `search` of `passages`.

The column has the normal forms of the words in the language of the page, with weight A, and the
words as written, with weight D and without accents: `searched` is that text. Where the language is
unknown, the words as written are the normal forms too, and have weight A alone. A query takes the
same way: `to_tsquery` of a configuration for the normal forms, `AS_WRITTEN` of `searched(query)`
beside it.

The column also has marks, without positions, so that one index answers "these words, in the passages
of this tenant". A mark begins with a character that no word of PostgreSQL's parser begins with.
"""

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Final

from schemas.ids import DocumentId, TenantId
from schemas.lifecycle import PassageKind

AS_WRITTEN: Final = "simple"
"""The configuration that keeps every word as it is, in lower case."""

CONFIGURATIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ar": "arabic",
        "ca": "catalan",
        "da": "danish",
        "de": "german",
        "el": "greek",
        "en": "english",
        "es": "spanish",
        "et": "estonian",
        "eu": "basque",
        "fi": "finnish",
        "fr": "french",
        "ga": "irish",
        "hi": "hindi",
        "hu": "hungarian",
        "hy": "armenian",
        "id": "indonesian",
        "it": "italian",
        "lt": "lithuanian",
        "nb": "norwegian",
        "ne": "nepali",
        "nl": "dutch",
        "nn": "norwegian",
        "no": "norwegian",
        "pt": "portuguese",
        "ro": "romanian",
        "ru": "russian",
        "sr": "serbian",
        "sv": "swedish",
        "ta": "tamil",
        "tr": "turkish",
        "yi": "yiddish",
    }
)
"""By language, as a code of ISO 639-1: PostgreSQL's text search configuration."""


_BEYOND_ASCII: Final = re.compile(r"[^\W\x00-\x7f]|[\u0300-\u036f]+")
"""A letter or digit, or marks that make no single character with the letter before them."""
_SPELLINGS: Final = str.maketrans(
    {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O"}
    | {"đ": "d", "Đ": "D", "ł": "l", "Ł": "L", "\u0131": "i"}
)


def searched(text: str) -> str:
    """Return a text without accents of Latin letters and with one spelling of each letter.

    "café" is found by "cafe" and the other way round. Other scripts keep their accents, which make
    other letters there.
    """
    if text.isascii():
        return text
    return _BEYOND_ASCII.sub(lambda match: _spelling_of(match[0]), text)


@lru_cache(maxsize=10_000)
def _spelling_of(character: str) -> str:
    decomposed = unicodedata.normalize("NFKD", character).translate(_SPELLINGS)
    letters = "".join(each for each in decomposed if not unicodedata.combining(each))
    if not letters or (letters.isascii() and letters.isalnum()):
        return letters
    composed = unicodedata.normalize("NFKC", character)
    return composed if composed.isalnum() else character


def configuration_of(language: str | None) -> str:
    """Return the text search configuration of a language; `AS_WRITTEN` if PostgreSQL has none."""
    return CONFIGURATIONS.get(language or "", AS_WRITTEN)


def tenant_mark(tenant_id: TenantId) -> str:
    return f"#t:{tenant_id.hex}"


def document_mark(document_id: DocumentId) -> str:
    return f"#d:{document_id.hex}"


def kind_mark(kind: PassageKind) -> str:
    return f"#k:{kind.value}"


def language_mark(language: str | None) -> str:
    """Return the mark of a language; that of an unknown language is its own."""
    return f"#l:{language or ''}"
