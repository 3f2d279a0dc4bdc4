"""What is found on a page and in a document."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec
from spacy.tokens import Doc, Span

from pipeline.enrich import rules

# Shorter than spaCy's own limit of a million: the time limit of a page cannot interrupt a call into
# spaCy, and takes effect after the piece.
PIECE_MAX: Final = 100_000
_ENTITY_MAX: Final = 500


class Entity(msgspec.Struct, frozen=True, array_like=True):
    """A name, date, amount or address.

    Attributes:
        label: its kind, such as `EMAIL`, as the language model names it.
        text: its text with white space collapsed.
        normal: normal form; equal for all mentions of the same thing.
        start: offset of its first character in the text of the page.
        end: offset after its last character.
    """

    label: str
    text: str
    normal: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class PageLimits:
    """How many sentences and entities of one page are kept."""

    sentences: int
    entities: int


@dataclass(frozen=True, kw_only=True)
class PageAnnotations:
    """What was found on a page.

    Attributes:
        sentences: start and end of each sentence in the text of the page, in order.
        entities: in order, not overlapping.
        language: ISO 639-1 code; None if the page has too little text or no clear language.
        language_confidence: from 0 to 1; None without a language.
        more_sentences: the page has more sentences than the limit.
        more_entities: the page has more entities than the limit.
    """

    sentences: tuple[tuple[int, int], ...] = ()
    entities: tuple[Entity, ...] = ()
    language: str | None = None
    language_confidence: float | None = None
    more_sentences: bool = False
    more_entities: bool = False


@dataclass(frozen=True, kw_only=True)
class DocumentSummary:
    """What the pages of a document have in common.

    Attributes:
        language: language of most of its text, as on a page.
        language_confidence: mean confidence of the pages in that language, times their share of
            the text that has a language.
        key_phrases: the most telling phrases, best first.
    """

    language: str | None = None
    language_confidence: float | None = None
    key_phrases: tuple[str, ...] = ()


def pieces(text: str, *, longest: int) -> Iterator[tuple[int, str]]:
    """Yield `text` in pieces of at most `longest` characters, each with its offset.

    A piece ends after a line if possible, else after a word, else anywhere.
    """
    start = 0
    while len(text) - start > longest:
        end = (
            text.rfind("\n", start, start + longest) + 1
            or text.rfind(" ", start, start + longest) + 1
            or start + longest
        )
        yield start, text[start:end]
        start = end
    if start < len(text):
        yield start, text[start:]


def sentences(doc: Doc) -> Iterator[tuple[int, int]]:
    return filter(None, map(_extent, doc.sents))


def entities(doc: Doc, offset: int) -> Iterator[Entity]:
    for span in doc.ents:
        extent = _extent(span)
        if extent is None or extent[1] - extent[0] > _ENTITY_MAX:
            continue
        found = " ".join(span.text.split())
        normal = rules.normal_form(span.label_, found, lemmas=_lemmas(span))
        if normal is not None:
            yield Entity(span.label_, found, normal, offset + extent[0], offset + extent[1])


def _extent(span: Span) -> tuple[int, int] | None:
    """Return the start and end of a span without surrounding white space; None if it is blank."""
    content = span.text
    stripped = content.strip()
    if not stripped:
        return None
    start = span.start_char + len(content) - len(content.lstrip())
    return start, start + len(stripped)


def _lemmas(span: Span) -> str:
    return " ".join(token.lemma_ or token.lower_ for token in span if not token.is_space)
