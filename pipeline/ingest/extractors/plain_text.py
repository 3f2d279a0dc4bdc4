"""Plain text, in any encoding; tables, Markdown, JSON and logs are read as they are."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Final

import charset_normalizer

from pipeline.ingest.extractors import encodings, text_document
from pipeline.ingest.extractors.extractor import (
    DocumentMetadata,
    Extractor,
    OpenDocument,
    Structure,
)
from pipeline.ingest.extractors.text_document import TextDocument
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.outcomes import Outcome

# Colours and cursor movements of terminals, which logs have (ECMA-48).
_CONTROL_SEQUENCES: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])"
)


class PlainTextExtractor(Extractor):
    """Opens text files; their pages end at form feeds, else at paragraphs."""

    name: ClassVar[str] = "plain_text"

    @contextmanager
    def open(
        self,
        file: Path,
        *,
        limits: ReadingLimits,
        password: str | None,  # noqa: ARG002  # text is never encrypted
    ) -> Iterator[OpenDocument]:
        with file.open("rb") as opened:
            content = opened.read(limits.text_bytes)
            is_cut = bool(opened.read(1))
        decoded = encodings.decode(content, is_cut=is_cut)
        del content
        yield TextDocument(
            text_document.clean(_CONTROL_SEQUENCES.sub("", decoded.text)),
            limits=limits,
            engine=("charset-normalizer", charset_normalizer.__version__),
            structure=Structure(metadata=DocumentMetadata(extra={"encoding": decoded.encoding})),
            cut_by=(
                (Outcome.LIMIT_TEXT, f"Only the first {limits.text_bytes} bytes are read.")
                if is_cut
                else None
            ),
            warnings=decoded.replaced,
        )
