"""Sentences and entities of a page, by spaCy.

`load_language` is called once, before a worker forks; what `annotate` adds to the
vocabulary dies with the child it runs in.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import spacy
from spacy.language import Language
from spacy.lookups import load_lookups
from spacy.tokenizer import Tokenizer
from spacy.tokens import Doc, Span

from pipeline.ingest import rules, text
from pipeline.ingest.outcome import Entity, Passage, Truncation
from pipeline.ingest.sandbox.limits import ReadingLimits

BLANK_PREFIX: Final = "blank:"
_LEMMA_TABLE: Final = "lemma_lookup"

# Shorter than spaCy's own limit of a million, so that a page's time limit, which
# cannot interrupt one call, is looked at between pieces.
_PIECE_LONGEST: Final = 100_000
# spaCy peels punctuation off a word one character at a time and copies the rest each
# time: 40,000 apostrophes in a row take it 100 seconds.
_WORD_LONGEST: Final = 200
_ENTITY_LONGEST: Final = 500


class LanguageModelNotFound(Exception):
    """No such spaCy model is installed, or spaCy knows no such language."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"spaCy has no model {name!r}: install it, or use `{BLANK_PREFIX}<language>`"
        )


@dataclass(frozen=True, kw_only=True)
class Annotations:
    passages: tuple[Passage, ...]
    entities: tuple[Entity, ...]
    truncated: frozenset[Truncation]


NONE: Final = Annotations(passages=(), entities=(), truncated=frozenset())


def load_language(name: str) -> Language:
    """Load an installed spaCy model, or make a rule-based one for `blank:<language>`.

    Raises:
        LanguageModelNotFound: there is none of that name.
    """
    try:
        if name.startswith(BLANK_PREFIX):
            language = _rule_based(name.removeprefix(BLANK_PREFIX))
        else:
            language = _trained(name)
    except (OSError, ImportError) as error:
        raise LanguageModelNotFound(name) from error
    _bound_words(language)
    return language


def annotate(page_text: str, *, language: Language, limits: ReadingLimits) -> Annotations:
    """Find the sentences and entities of one page's text."""
    passages: list[Passage] = []
    entities: list[Entity] = []
    truncated: set[Truncation] = set()
    for offset, piece in text.pieces(page_text, longest=_PIECE_LONGEST):
        with language.memory_zone():
            doc = language(piece)
            room = limits.page_passages - len(passages)
            found = [
                Passage(len(passages) + index, offset + start, offset + end)
                for index, (start, end) in enumerate(islice(_sentences(doc), room + 1))
            ]
            if len(found) > room:
                truncated.add(Truncation.PAGE_PASSAGES)
            passages += found[:room]
            room = limits.page_entities - len(entities)
            named = list(islice(_entities(doc, offset), room + 1))
            if len(named) > room:
                truncated.add(Truncation.PAGE_ENTITIES)
            entities += named[:room]
    return Annotations(
        passages=tuple(passages), entities=tuple(entities), truncated=frozenset(truncated)
    )


def _rule_based(code: str) -> Language:
    language = spacy.blank(code)
    language.add_pipe("sentencizer")
    # Not `language.initialize()`: it would empty the entity ruler.
    if _LEMMA_TABLE in load_lookups(code, [_LEMMA_TABLE], strict=False):
        lemmatizer: Any = language.add_pipe("lemmatizer", config={"mode": "lookup"})
        lemmatizer.initialize()
    ruler: Any = language.add_pipe("entity_ruler")
    ruler.add_patterns(rules.PATTERNS)
    return language


def _trained(name: str) -> Language:
    language = spacy.load(name)
    marks_sentences = "token.is_sent_start"
    if not any(
        marks_sentences in language.get_pipe_meta(pipe).assigns for pipe in language.pipe_names
    ):
        language.add_pipe("sentencizer", first=True)
    return language


def _bound_words(language: Language) -> None:
    tokenizer = language.tokenizer
    if isinstance(tokenizer, Tokenizer):
        matches = tokenizer.token_match
        tokenizer.token_match = lambda word: (
            len(word) > _WORD_LONGEST or (matches is not None and matches(word))
        )


def _sentences(doc: Doc) -> Iterator[tuple[int, int]]:
    return filter(None, map(_extent, doc.sents))


def _entities(doc: Doc, offset: int) -> Iterator[Entity]:
    for span in doc.ents:
        extent = _extent(span)
        if extent is None or extent[1] - extent[0] > _ENTITY_LONGEST:
            continue
        found = text.one_line(span.text)
        normal = rules.normal_form(span.label_, found, lemmas=_lemmas(span))
        if normal is not None:
            yield Entity(span.label_, found, normal, offset + extent[0], offset + extent[1])


def _extent(span: Span) -> tuple[int, int] | None:
    """Return start and end of what the span holds, without white space around it."""
    content = span.text
    stripped = content.strip()
    if not stripped:
        return None
    start = span.start_char + len(content) - len(content.lstrip())
    return start, start + len(stripped)


def _lemmas(span: Span) -> str:
    return " ".join(token.lemma_ or token.lower_ for token in span if not token.is_space)
