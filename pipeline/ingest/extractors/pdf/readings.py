"""What one engine makes of a page."""

from dataclasses import dataclass

from pipeline.ingest.extractors.pdf import page_text, pdfium, pypdf_document
from pipeline.ingest.extractors.pdf.additions import Addition, PlacedText
from pipeline.ingest.extractors.pdf.doubts import doubted_text, may_be_cut
from pipeline.ingest.extractors.pdf.fields import additions_on
from pipeline.ingest.extractors.pdf.opinions import LITTLE_TEXT, Opinion, Shown
from pipeline.ingest.extractors.pdf.pdfium import PdfiumDocument
from pipeline.ingest.extractors.pdf.pypdf_document import PypdfDocument
from pipeline.ingest.extractors.pdf.shown import shown_on
from pipeline.ingest.extractors.pdf.signs import with_spaces, without_noise
from pipeline.ingest.sandbox.limits import ReadingLimits


@dataclass(frozen=True, kw_only=True)
class PageReading:
    """A page as one engine reads it.

    Attributes:
        engine: name of the engine.
        engine_version: its version.
        opinion: what the engine says the text is.
        text: the cleaned text, with the places of its lines.
        shown: what else the page shows; only looked at if there is little text.
        additions: form values and annotations, which are not part of `text`.
        width: as displayed, in 1/72 inch.
        height: as displayed, in 1/72 inch.
    """

    engine: str
    engine_version: str
    opinion: Opinion
    text: PlacedText
    shown: Shown
    additions: tuple[Addition, ...] = ()
    width: float | None = None
    height: float | None = None


def by_pdfium(document: PdfiumDocument, number: int, *, limits: ReadingLimits) -> PageReading:
    with document.page(number) as page:
        longest = limits.page_characters
        yielded = page.characters(longest=longest + 1)
        codes = doubted_text(page.raw_text, count=len(yielded))
        raw = with_spaces(without_noise(yielded, doubted=codes) if codes else yielded)
        content = page_text.read(page, raw[:longest])
        opinion = Opinion(
            raw=raw,
            text=content.text,
            codes=codes,
            doubted=codes if yielded == raw else "".join(map(_kept, raw, codes)),
            may_be_cut=may_be_cut(page.raw, page.raw_text, count=len(raw)),
        )
        return PageReading(
            engine="pdfium",
            engine_version=pdfium.VERSION,
            opinion=opinion,
            text=PlacedText(text=content.text, lines=content.lines),
            shown=shown_on(page.raw) if len(content.text) < 2 * LITTLE_TEXT else Shown(),
            additions=tuple(additions_on(page.raw, form=document.raw_form, characters_max=longest)),
            width=page.width,
            height=page.height,
        )


def by_pypdf(document: PypdfDocument, number: int, *, limits: ReadingLimits) -> PageReading:
    page = document.page(number)
    content = page_text.plain(page.raw[: limits.page_characters])
    return PageReading(
        engine="pypdf",
        engine_version=pypdf_document.VERSION,
        opinion=Opinion(raw=page.raw, text=content.text, may_be_cut=page.is_incomplete),
        text=PlacedText(text=content.text),
        shown=Shown(image_share=1.0 if page.has_image else 0.0),
        width=page.width,
        height=page.height,
    )


def _kept(character: str, doubted: str) -> str:
    """Return a doubted character if it is still in the text, else a space."""
    return doubted if character == doubted else " "
