"""Pages as a scanner draws them in: pictures of text, askew, turned, with noise."""

import random
from collections import Counter
from collections.abc import Sequence
from io import BytesIO
from typing import Final

import numpy as np
import pypdfium2
from PIL import Image
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas

from pipeline.ingest.extractors.extractor import PageImage

DPI: Final = 200
MARGIN_POINTS: Final = 60

_ENGLISH: Final = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "lazy",
    "dog",
    "while",
    "several",
    "engineers",
    "describe",
    "how",
    "a",
    "document",
    "is",
    "read",
    "page",
    "by",
    "page",
    "and",
    "what",
    "remains",
    "invoice",
    "number",
    "total",
    "amount",
    "payment",
    "received",
    "within",
    "thirty",
    "days",
    "contract",
    "between",
    "parties",
    "agreement",
    "signature",
    "date",
    "address",
    "customer",
    "order",
    "delivery",
    "measured",
    "results",
    "show",
    "that",
    "temperature",
    "pressure",
    "volume",
    "increase",
    "during",
    "experiment",
]
_GERMAN: Final = [
    "die",
    "Prüfung",
    "der",
    "Verträge",
    "fällt",
    "für",
    "größere",
    "Käufe",
    "über",
    "längere",
    "Zeiträume",
    "natürlich",
    "ausführlicher",
    "aus",
    "während",
    "mögliche",
    "Änderungen",
    "der",
    "Gebühren",
    "öffentlich",
    "erklärt",
    "werden",
    "müssen",
    "und",
    "die",
    "Behörde",
    "schließlich",
    "ihre",
    "Übersicht",
    "über",
    "sämtliche",
    "Rückfragen",
    "veröffentlicht",
]


def english(words: int) -> list[str]:
    """Lines of English words, the same at every call."""
    return _lines(_ENGLISH, words=words)


def german(words: int) -> list[str]:
    return _lines(_GERMAN, words=words)


def pdf_of(*pages: Sequence[str], size: float = 11) -> bytes:
    """A PDF with these lines of text."""
    file = BytesIO()
    canvas = Canvas(file, pagesize=A4)
    for lines in pages:
        canvas.setFont("Times-Roman", size)
        for row, line in enumerate(lines):
            canvas.drawString(MARGIN_POINTS, A4[1] - 70 - row * 1.35 * size, line)
        canvas.showPage()
    canvas.save()
    return file.getvalue()


def picture_of(
    lines: Sequence[str], *, skew: float = 0, turn: int = 0, noise: float = 0, size: float = 11
) -> Image.Image:
    """A grey picture of a page at `DPI`.

    Args:
        lines: the text.
        skew: degrees by which its lines rise to the right.
        turn: degrees by which the page is then turned counterclockwise.
        noise: standard deviation of the noise added to the pixels, of 255.
        size: of the letters, in points.
    """
    document = pypdfium2.PdfDocument(pdf_of(lines, size=size))
    try:
        rendered: Image.Image = document[0].render(scale=DPI / 72, grayscale=True).to_pil()
        picture = rendered.convert("L")
    finally:
        document.close()
    picture = picture.rotate(skew, resample=Image.Resampling.BICUBIC, fillcolor=255)
    picture = picture.rotate(turn, expand=True)
    if noise:
        pixels = np.asarray(picture, dtype=np.float64)
        pixels = pixels + np.random.default_rng(0).normal(0, noise, pixels.shape)
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return picture


def scanned_pdf(*pictures: Image.Image) -> bytes:
    """A PDF whose pages are pictures, as a scanner makes it."""
    file = BytesIO()
    first, *others = pictures
    first.save(file, "PDF", resolution=DPI, save_all=True, append_images=others)
    return file.getvalue()


def page_image(picture: Image.Image) -> PageImage:
    return PageImage(
        width=picture.width,
        height=picture.height,
        channels=1,
        pixels=picture.tobytes(),
        dpi=DPI,
    )


def recall(text: str, *, of: Sequence[str]) -> float:
    """The share of the words of these lines that the text has."""
    wanted = Counter(" ".join(of).split())
    return (wanted & Counter(text.split())).total() / wanted.total()


def _lines(vocabulary: Sequence[str], *, words: int) -> list[str]:
    chosen = random.Random(0).choices(vocabulary, k=words)
    return [" ".join(chosen[start : start + 12]) for start in range(0, words, 12)]
