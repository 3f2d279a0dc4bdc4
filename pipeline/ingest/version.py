"""The version of the pipeline: two readings of the same bytes by one version give the same result."""

import hashlib
from functools import cache
from importlib.metadata import version
from typing import Final

from schemas.settings import IngestSettings, OcrSettings, PassageSettings

RULES_VERSION: Final = "3"
"""Increased with every change that gives other pages, sentences, entities or passages."""

_LIBRARIES: Final = ("pypdfium2", "pypdf", "spacy", "py3langid", "tesserocr")


def pipeline_version(
    settings: IngestSettings, *, ocr: OcrSettings, passages: PassageSettings
) -> str:
    """Return the version of the rules, with a digest of the settings and libraries that matter."""
    parts = (
        settings.spacy_model,
        settings.pdf_engine,
        str(settings.pdf_pages_max),
        str(int(settings.pdf_text_max)),
        ",".join(ocr.ocr_languages),
        str(ocr.ocr_dpi),
        str(ocr.ocr_confidence_min),
        str(passages.passage_tokens),
        str(passages.passage_overlap),
        *_library_versions(),
    )
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    return f"{RULES_VERSION}-{digest[:12]}"


@cache
def _library_versions() -> tuple[str, ...]:
    # Once: finding the metadata of a package takes milliseconds.
    return tuple(map(version, _LIBRARIES))
