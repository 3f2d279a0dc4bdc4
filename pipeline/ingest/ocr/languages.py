"""Which language data recognise a page: those of its document's language, or of its script."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

BY_LANGUAGE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ar": "ara", "bg": "bul", "bn": "ben", "ca": "cat", "cs": "ces", "da": "dan", "de": "deu",
        "el": "ell", "en": "eng", "es": "spa", "et": "est", "fa": "fas", "fi": "fin", "fr": "fra",
        "he": "heb", "hi": "hin", "hr": "hrv", "hu": "hun", "id": "ind", "it": "ita", "ja": "jpn",
        "ko": "kor", "lt": "lit", "lv": "lav", "nb": "nor", "nl": "nld", "no": "nor", "pl": "pol",
        "pt": "por", "ro": "ron", "ru": "rus", "sk": "slk", "sl": "slv", "sr": "srp", "sv": "swe",
        "th": "tha", "tr": "tur", "uk": "ukr", "vi": "vie", "zh": "chi_sim",
    }
)  # fmt: skip
"""ISO 639-1 → Tesseract's name."""

BY_SCRIPT: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "Arabic": ("ara", "fas"),
        "Bengali": ("ben",),
        "Cyrillic": ("rus", "ukr", "bul", "srp"),
        "Devanagari": ("hin",),
        "Greek": ("ell",),
        "Han": ("chi_sim", "chi_tra", "jpn"),
        "Hangul": ("kor",),
        "Hebrew": ("heb",),
        "Hiragana": ("jpn",),
        "Japanese": ("jpn",),
        "Katakana": ("jpn",),
        "Korean": ("kor",),
        "Thai": ("tha",),
    }
)
"""Script of an orientation → language data for it, the most common first; Latin has too many."""


def configured(value: Iterable[str], *, installed: frozenset[str]) -> tuple[str, ...]:
    """Return the configured language data that are installed, in their order."""
    return tuple(name for name in value if name in installed)


def of_document(code: str | None, *, installed: frozenset[str]) -> tuple[str, ...]:
    """Return the data of a document's language; none, if unknown or not installed.

    Args:
        code: ISO 639-1, of the document's pages with text.
        installed: the language data that can be used.
    """
    name = BY_LANGUAGE.get(code or "")
    return (name,) if name in installed else ()


def of_script(script: str, *, installed: frozenset[str]) -> tuple[str, ...]:
    """Return the first data for a script that are installed; none for Latin or a rare script."""
    return next(((name,) for name in BY_SCRIPT.get(script, ()) if name in installed), ())
