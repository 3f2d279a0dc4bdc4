"""Creates the demo's PDF: pages of text, and pictures that make the file large."""

from io import BytesIO
from pathlib import Path
from random import Random
from typing import Final

from PIL import Image
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.platypus import Flowable, PageBreak, Paragraph, SimpleDocTemplate, Spacer
from reportlab.platypus import Image as Picture

TITLE: Final = "Consignment note and customs papers"
AUTHOR: Final = "Waybill demo"
PAGES: Final = 12

SENTENCES: Final = (
    "The consignment of {weight} kg left the port of Rotterdam on {date} in good order.",
    "Freight and insurance amount to EUR {amount} and are payable within thirty days.",
    "Questions about this page go to desk{number}@example.com or https://example.com/desk/{number}.",
    "The insured value rose by {percent}% after the goods had been weighed again.",
    "The carrier accepts the goods as described and will deliver them to the named consignee.",
    "Damage has to be reported in writing, with photographs, before the seal is broken.",
)


def write_pdf(path: Path, *, seed: int) -> None:
    """Write a PDF of `PAGES` pages; the same seed gives the same words and pictures."""
    random = Random(seed)  # noqa: S311  # invented freight papers, not secrets
    styles = getSampleStyleSheet()
    story: list[Flowable] = []
    for number in range(1, PAGES + 1):
        story += [
            Paragraph(f"{TITLE}, page {number}", styles["Heading1"]),
            Spacer(1, 4 * mm),
            *(Paragraph(_paragraph(random, number), styles["BodyText"]) for _ in range(5)),
            Spacer(1, 6 * mm),
            Picture(_noise(random), width=120 * mm, height=80 * mm),
            PageBreak(),
        ]
    SimpleDocTemplate(str(path), pagesize=A4, title=TITLE, author=AUTHOR).build(story)


def _paragraph(random: Random, number: int) -> str:
    return " ".join(
        sentence.format(
            weight=random.randint(100, 9_999),
            date=f"{random.randint(1, 28)} March 20{random.randint(10, 26)}",
            amount=f"{random.randint(1_000, 99_999):,}.00",
            percent=random.randint(2, 30),
            number=number,
        )
        for sentence in random.sample(SENTENCES, k=4)
    )


def _noise(random: Random) -> BytesIO:
    """Return a picture that does not compress."""
    picture = Image.frombytes("RGB", (360, 240), random.randbytes(360 * 240 * 3))
    file = BytesIO()
    picture.save(file, format="PNG")
    file.seek(0)
    return file
