"""Loads spaCy pipelines."""

from typing import Any, Final

import spacy
from spacy.language import Language
from spacy.lookups import load_lookups
from spacy.tokenizer import Tokenizer

from pipeline.enrich import rules

BLANK_PREFIX: Final = "blank:"
_LEMMA_TABLE: Final = "lemma_lookup"

# spaCy splits punctuation off a word one character at a time and copies the rest each
# time: 40,000 apostrophes in a row take it 100 seconds.
_WORD_MAX: Final = 200


class LanguageModelNotFound(Exception):
    """No such spaCy model is installed, or spaCy has no such language."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"spaCy has no model {name!r}: install it, or use `{BLANK_PREFIX}<language>`"
        )


def load(name: str) -> Language:
    """Load an installed spaCy model, or build a rule-based one for `blank:<language>`.

    Raises:
        LanguageModelNotFound: there is no such model or language.
    """
    try:
        if name.startswith(BLANK_PREFIX):
            language = _rule_based(name.removeprefix(BLANK_PREFIX))
        else:
            language = _trained(name)
    except (OSError, ImportError) as error:
        raise LanguageModelNotFound(name) from error
    _limit_words(language)
    return language


def _rule_based(code: str) -> Language:
    language = spacy.blank(code)
    language.add_pipe("sentencizer")
    # Not `language.initialize()`, which would empty the entity ruler.
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


def _limit_words(language: Language) -> None:
    tokenizer = language.tokenizer
    if isinstance(tokenizer, Tokenizer):
        matches = tokenizer.token_match
        tokenizer.token_match = lambda word: (
            len(word) > _WORD_MAX or (matches is not None and matches(word))
        )
