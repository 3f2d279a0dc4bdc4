"""What describes an open document, part by part; the child's side."""

import io
from collections.abc import Callable, Iterator

from PIL import Image

from pipeline.enrich.annotations import PageLimits
from pipeline.enrich.enricher import Enricher
from pipeline.ingest.extractors.extractor import OpenDocument, PageImage
from pipeline.ingest.frames import Describe, LanguageFound, StructureRead, ThumbnailDrawn
from pipeline.ingest.sandbox.fork import TimeLimitReached, time_limit

Part = StructureRead | LanguageFound | ThumbnailDrawn

LANGUAGE_PAGES = 2
"""Pages whose language is that of the document until all pages are read."""

LANGUAGE_CHARACTERS = 5_000
"""Text of a page that is enough to find its language."""

_DPI = 72
_PIXELS_MAX = 1_000_000


def parts(document: OpenDocument, request: Describe, *, enricher: Enricher) -> Iterator[Part]:
    """Yield the parts that can be read, the picture last: drawing is most likely to end the child."""
    steps: tuple[Callable[[], Part | None], ...] = (
        lambda: StructureRead(structure=document.structure()),
        lambda: _language(document, enricher=enricher),
        lambda: _thumbnail(document, side=request.thumbnail_side),
    )
    for step in steps:
        try:
            with time_limit(request.part_timeout):
                part = step()
        except (Exception, TimeLimitReached):  # noqa: BLE001  # a damaged file raises anything; the other parts may be readable
            document.forget()
            continue
        if part is not None:
            yield part


def _language(document: OpenDocument, *, enricher: Enricher) -> LanguageFound:
    enriched = enricher.document()
    for number in range(1, min(document.page_count, LANGUAGE_PAGES) + 1):
        content = document.page(number).text[:LANGUAGE_CHARACTERS]
        enriched.page(content, limits=PageLimits(sentences=0, entities=0))
    summary = enriched.summary()
    return LanguageFound(language=summary.language, confidence=summary.language_confidence)


def picture(document: OpenDocument, *, number: int, side: int) -> bytes | None:
    """Return a page as a PNG; None if pages of this format have no image.

    Args:
        document: the document.
        number: of the page, from 1.
        side: longest side of the picture in pixels.
    """
    page = document.image(number, dpi=_DPI, pixels_max=_PIXELS_MAX, grey=False)
    return None if page is None else _png(page, side=side)


def _thumbnail(document: OpenDocument, *, side: int) -> ThumbnailDrawn | None:
    png = picture(document, number=1, side=side)
    return None if png is None else ThumbnailDrawn(png=png)


def _png(page: PageImage, *, side: int) -> bytes:
    image = Image.frombytes(
        "L" if page.channels == 1 else "RGB", (page.width, page.height), page.pixels
    )
    image.thumbnail((side, side))
    written = io.BytesIO()
    image.save(written, "PNG")
    return written.getvalue()
