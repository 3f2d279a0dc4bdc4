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
from typing import TYPE_CHECKING, Final

import msgspec

from pipeline.enrich import languages
from pipeline.enrich.annotations import DocumentSummary, Found, PageAnnotations, PageLimits
from pipeline.enrich.dates import DateOrder
from pipeline.enrich.detection import Detector, words
from pipeline.enrich.entities import entity, found_by_rules, merged
from pipeline.enrich.key_phrases import KeyPhrases
from pipeline.enrich.sentences import WALL, sentences

if TYPE_CHECKING:
    from spacy.language import Language as Pipeline

BLANK_PREFIX: Final = "blank:"
OFF: Final = "none"

_UNKNOWN_MAX: Final = (
    2_000  # characters of words kept of pages that have too few to have a language
)
_SHARE_MIN: Final = 0.4  # of the text with a language: less is a document without one language

_installed: "Enricher | None" = None


class LanguageModelNotFound(Exception):
    """No such spaCy pipeline is installed, or spaCy has no such language."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"spaCy has no pipeline {name!r}: install it, or use `{BLANK_PREFIX}<language>`"
        )


def install(spacy_model: str) -> None:
    """Build the enricher and keep it for the processes forked later.

    All processes share its memory, and a replacement process has it at once. A
    slow model that is loaded after the fork would exceed the time a new process
    has to start, and every replacement would be killed too.

    Raises:
        LanguageModelNotFound: no such spaCy pipeline is installed.
    """
    global _installed  # noqa: PLW0603  # one per worker, inherited by its processes
    _installed = Enricher(spacy_model)


def installed() -> "Enricher":
    if _installed is None:
        raise RuntimeError("no enricher: this worker was not started for a queue that reads")
    return _installed


class Enricher:
    """The models that enrich documents of all languages; not changed by use, so forks share it.

    Attributes:
        pipeline: the trained spaCy pipeline, or None if rules alone find entities.
        language: language of the pipeline; its rules hold for text without a clear language.
    """

    def __init__(self, spacy_model: str) -> None:
        """Load what `SPACY_MODEL` names.

        Args:
            spacy_model: an installed pipeline or a path; `blank:<language>` for rules alone; `none`
                for documents that are not enriched.

        Raises:
            LanguageModelNotFound: no such spaCy pipeline is installed.
        """
        self.pipeline: Pipeline | None = None
        self.language = languages.ANY
        self.detector: Detector | None = None
        if spacy_model == OFF:
            return
        if spacy_model.startswith(BLANK_PREFIX):
            self.language = spacy_model.removeprefix(BLANK_PREFIX)
            if not languages.is_known(self.language):
                raise LanguageModelNotFound(spacy_model)
        else:
            self.pipeline = _load(spacy_model)
            self.language = self.pipeline.lang or languages.ANY
        languages.load_common()
        self.detector = Detector()

    def document(self, state: bytes = b"") -> "DocumentEnricher":
        """Return an enricher for one document.

        Args:
            state: `DocumentEnricher.state()` after the pages that were enriched earlier, maybe by
                another process; empty for a document that starts.
        """
        return DocumentEnricher(self, state)


def _load(name: str) -> "Pipeline":
    # Imported here: spaCy takes 80 MB and a second of CPU time, and rules do without it.
    from pipeline.enrich import spacy_pipeline  # noqa: PLC0415

    try:
        return spacy_pipeline.load(name)
    except (OSError, ImportError) as error:
        raise LanguageModelNotFound(name) from error


class _State(msgspec.Struct, array_like=True):
    """What the pages so far say about the document.

    Attributes:
        languages: characters of the pages of a language, and the same times their confidence.
        unknown: words of pages that have too few to have a language.
        phrases: the frequent phrases and their counts.
        day_first: dates such as `13/5/2024`.
        month_first: dates such as `5/13/2024`.
    """

    languages: dict[str, tuple[int, float]] = {}
    unknown: str = ""
    phrases: list[tuple[str, int]] = []
    day_first: int = 0
    month_first: int = 0


class DocumentEnricher:
    """Enriches the pages of one document in order; its memory does not grow with the pages."""

    def __init__(self, enricher: Enricher, state: bytes) -> None:
        """See `Enricher.document`."""
        earlier = msgspec.msgpack.decode(state, type=_State) if state else _State()
        self._enricher = enricher
        self._languages = earlier.languages
        self._unknown = earlier.unknown
        self._phrases = KeyPhrases(earlier.phrases)
        self._order = DateOrder(day_first=earlier.day_first, month_first=earlier.month_first)
        self._last = max(self._languages, key=lambda code: self._languages[code][0], default=None)

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
        detector = self._enricher.detector
        if detector is None or not text or text.isspace():
            return PageAnnotations()
        content = _without(text, ignored)
        sample = words(content)
        detected = detector.detect_words(sample)
        if detected is not None:
            self._last = detected.code
            characters, weight = self._languages.get(detected.code, (0, 0.0))
            self._languages[detected.code] = (
                characters + len(content),
                weight + len(content) * detected.confidence,
            )
        elif len(self._unknown) < _UNKNOWN_MAX:
            self._unknown = f"{self._unknown} {sample}"[:_UNKNOWN_MAX].strip()
        rules = languages.rules(self._last or self._enricher.language)
        self._order.learn(content)
        self._phrases.add(content, rules=rules)

        # One more than the maximum shows that the page has more.
        found_sentences = list(islice(sentences(content, rules=rules), limits.sentences + 1))
        most = limits.entities + 1
        found = self._found(content, rules, most=most)
        found_entities = list(islice(filter(None, (entity(each, content) for each in found)), most))
        return PageAnnotations(
            sentences=tuple(found_sentences[: limits.sentences]),
            entities=tuple(found_entities[: limits.entities]),
            language=detected.code if detected else None,
            language_confidence=detected.confidence if detected else None,
            more_sentences=len(found_sentences) > limits.sentences,
            more_entities=len(found_entities) > limits.entities,
        )

    def state(self) -> bytes:
        """Return what `Enricher.document` needs to go on after the pages so far; at most 64 KiB."""
        return msgspec.msgpack.encode(
            _State(
                languages=self._languages,
                unknown=self._unknown,
                phrases=self._phrases.most_frequent(),
                day_first=self._order.day_first,
                month_first=self._order.month_first,
            )
        )

    def summary(self) -> DocumentSummary:
        """Return the language and the key phrases of the pages so far."""
        language, confidence = self._language()
        return DocumentSummary(
            language=language,
            language_confidence=confidence,
            key_phrases=self._phrases.best(),
        )

    def _language(self) -> tuple[str | None, float | None]:
        if not self._languages:
            detector = self._enricher.detector
            detected = detector.detect(self._unknown) if detector else None
            return (detected.code, detected.confidence) if detected else (None, None)
        total = sum(characters for characters, _ in self._languages.values())
        code = max(self._languages, key=lambda each: self._languages[each][0])
        characters, weight = self._languages[code]
        if characters < _SHARE_MIN * total:
            return None, None
        return code, round(weight / total, 3)

    def _found(self, content: str, rules: languages.Rules, *, most: int) -> list[Found]:
        by_rules = found_by_rules(content, rules=rules, order=self._order, most=most)
        pipeline = self._enricher.pipeline
        if pipeline is None or pipeline.lang not in {rules.code, languages.ANY}:
            return by_rules
        from pipeline.enrich import spacy_pipeline  # noqa: PLC0415  # see `_load`

        return merged(by_rules, spacy_pipeline.names(content, pipeline=pipeline))


def _without(text: str, ignored: Sequence[tuple[int, int]]) -> str:
    """Return `text` with walls in place of the ignored parts; all offsets stay."""
    parts: list[str] = []
    position = 0
    for start, end in ignored:
        parts += (text[position:start], WALL * (end - start))
        position = end
    return "".join([*parts, text[position:]]) if parts else text
