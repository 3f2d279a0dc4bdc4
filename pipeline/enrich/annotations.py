"""Sentences and entities of one page.

What spaCy adds to the vocabulary stays in the process that calls `annotate`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

import msgspec
from spacy.language import Language
from spacy.tokens import Doc, Span

from pipeline.enrich import rules

# Shorter than spaCy's own limit of a million: the time limit of a page cannot interrupt a call into
# spaCy, and takes effect after the piece.
_PIECE_MAX: Final = 100_000
_ENTITY_MAX: Final = 500


class Passage(msgspec.Struct, frozen=True, array_like=True):
    """A sentence and its place in the text of its page.

    Attributes:
        ordinal: its place on the page, from 0.
        start: offset of its first character.
        end: offset after its last character.
    """

    ordinal: int
    start: int
    end: int


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
class Annotations:
    """The passages and entities of a page; `more_…` if the page has more than the maximum."""

    passages: tuple[Passage, ...] = ()
    entities: tuple[Entity, ...] = ()
    more_passages: bool = False
    more_entities: bool = False


def annotate(
    page_text: str, *, language: Language, passages_max: int, entities_max: int
) -> Annotations:
    """Return the sentences and entities of one page's text."""
    passages: list[Passage] = []
    entities: list[Entity] = []
    for offset, piece in pieces(page_text, longest=_PIECE_MAX):
        with language.memory_zone():
            doc = language(piece)
            # One more than the maximum shows that the page has more.
            passages += (
                Passage(ordinal, offset + start, offset + end)
                for ordinal, (start, end) in enumerate(
                    islice(_sentences(doc), passages_max + 1 - len(passages)), len(passages)
                )
            )
            entities += islice(_entities(doc, offset), entities_max + 1 - len(entities))
    return Annotations(
        passages=tuple(passages[:passages_max]),
        entities=tuple(entities[:entities_max]),
        more_passages=len(passages) > passages_max,
        more_entities=len(entities) > entities_max,
    )


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


def _sentences(doc: Doc) -> Iterator[tuple[int, int]]:
    return filter(None, map(_extent, doc.sents))


def _entities(doc: Doc, offset: int) -> Iterator[Entity]:
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
