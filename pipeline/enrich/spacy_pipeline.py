"""A trained spaCy pipeline: the names it finds that rules cannot."""

from collections.abc import Iterator
from typing import Final

import spacy
from spacy.language import Language
from spacy.pipeline import Tok2Vec
from spacy.tokenizer import Tokenizer

from pipeline.enrich.annotations import Found

# Shorter than spaCy's own limit of a million: the time limit of a page cannot interrupt a call into
# spaCy, and takes effect after the piece.
_PIECE_MAX: Final = 100_000

# spaCy splits punctuation off a word one character at a time and copies the rest each
# time: 40,000 apostrophes in a row take it 100 seconds.
_WORD_MAX: Final = 200

# Entities need none of these; without them en_core_web_sm is twice as fast.
_UNUSED: Final = frozenset(
    {"attribute_ruler", "lemmatizer", "morphologizer", "parser", "senter", "sentencizer", "tagger"}
    | {"textcat", "textcat_multilabel", "trainable_lemmatizer"}
)
_NEED_NO_OTHER: Final = frozenset({"ner", "tok2vec", "transformer"})


def load(name: str) -> Language:
    """Load an installed pipeline, or the one at a path, without the parts that no entity needs.

    Raises:
        OSError, ImportError: there is no such pipeline, or a part of it is not installed.
    """
    pipeline: Language = spacy.load(name)
    unused = [
        each for each in pipeline.pipe_names if pipeline.get_pipe_meta(each).factory in _UNUSED
    ]
    used = {pipeline.get_pipe_meta(each).factory for each in pipeline.pipe_names} - _UNUSED
    if used <= _NEED_NO_OTHER:  # a part of the operator's own may need any of them
        for each in unused:
            pipeline.remove_pipe(each)
        _remove_unheard(pipeline)
    _limit_words(pipeline)
    return pipeline


def _remove_unheard(pipeline: Language) -> None:
    """Remove a `tok2vec` whose vectors none of the other parts uses."""
    for each in pipeline.pipe_names:
        component = pipeline.get_pipe(each)
        if isinstance(component, Tok2Vec) and not set(component.listening_components) & set(
            pipeline.pipe_names
        ):
            pipeline.remove_pipe(each)


def names(text: str, *, pipeline: Language) -> Iterator[Found]:
    """Yield the entities that the pipeline finds; the normal form is in lower case.

    Words that are new to the pipeline are forgotten after each piece of the text.
    """
    for offset, piece in pieces(text, longest=_PIECE_MAX):
        with pipeline.memory_zone():
            for span in pipeline(piece).ents:
                written = span.text.strip()
                if written:
                    start = offset + span.start_char + span.text.index(written)
                    normal = " ".join(written.split()).casefold()
                    yield Found(span.label_, start, start + len(written), normal)


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


def _limit_words(pipeline: Language) -> None:
    tokenizer = pipeline.tokenizer
    if isinstance(tokenizer, Tokenizer):
        matches = tokenizer.token_match
        tokenizer.token_match = lambda word: (
            len(word) > _WORD_MAX or (matches is not None and matches(word))
        )
