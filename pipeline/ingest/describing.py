"""What describes an open document, part by part; the child's side."""

import io
import math
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

_POINTS_PER_INCH = 72
_PART_DPI = 150
_PART_PIXELS_MAX = 9_000_000  # A3 at 150 dpi has 4 million; each takes 4 bytes


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


def part_of_page(
    document: OpenDocument, *, number: int, box: tuple[int, int, int, int], side: int
) -> bytes | None:
    """Return a part of a page as a PNG; None if pages of this format have no image.

    Args:
        document: the document.
        number: of the page, from 1.
        box: left, top, right and bottom in 1/72 inch of the page as displayed.
        side: longest side of the picture in pixels.
    """
    page = document.image(number, dpi=_PART_DPI, pixels_max=_PART_PIXELS_MAX, grey=False)
    if page is None:
        return None
    scale = page.dpi / _POINTS_PER_INCH
    left, top = (max(0, int(edge * scale)) for edge in box[:2])
    right, bottom = (math.ceil(edge * scale) for edge in box[2:])
    # A part outside of the page, which a damaged document may state, becomes one pixel.
    left, top = min(left, page.width - 1), min(top, page.height - 1)
    right, bottom = max(left + 1, min(right, page.width)), max(top + 1, min(bottom, page.height))
    return _png(page, side=side, box=(left, top, right, bottom))


def _thumbnail(document: OpenDocument, *, side: int) -> ThumbnailDrawn | None:
    png = picture(document, number=1, side=side)
    return None if png is None else ThumbnailDrawn(png=png)


def _png(page: PageImage, *, side: int, box: tuple[int, int, int, int] | None = None) -> bytes:
    image = Image.frombytes(
        "L" if page.channels == 1 else "RGB", (page.width, page.height), page.pixels
    )
    if box is not None:
        image = image.crop(box)
    image.thumbnail((side, side))
    written = io.BytesIO()
    image.save(written, "PNG")
    return written.getvalue()
