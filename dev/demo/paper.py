"""Creates the demo's PDFs: a large one, a scan, and one with a damaged page."""

import re
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Final

from PIL import Image, ImageDraw, ImageFont
from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Flowable, PageBreak, Paragraph, SimpleDocTemplate, Spacer, Table
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

CHARGES: Final = (
    ("Charge", "Unit", "Rate EUR"),
    ("Crane hire", "hour", "312.50"),
    ("Pilotage", "vessel", "1,845.00"),
    ("Cold storage", "pallet and day", "7.35"),
)
"""The table on the last page: a header and three rows."""

QUERIES: Final = {
    '"before the seal is broken"': "before the seal is broken",
    "1,845.00": "Pilotage",
    "How do I complain about broken goods?": "Damage has to be reported",
}
"""A phrase, a number of the table and a question in other words, each with words of one of its first hits."""

SCANNED_TEXT: Final = (
    "Delivery note 4711",
    "Received in good order: twelve crates",
    "of oranges and one barrel of cod oil.",
    "Rotterdam, the third of March 2026",
)
SCAN_DPI: Final = 200


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
            *(_charges() if number == PAGES else ()),
            PageBreak(),
        ]
    SimpleDocTemplate(str(path), pagesize=A4, title=TITLE, author=AUTHOR).build(story)


def _charges() -> list[Flowable]:
    table = Table(CHARGES, style=[("GRID", (0, 0), (-1, -1), 0.5, colors.black)])
    return [Spacer(1, 6 * mm), table]


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


def write_scan(path: Path) -> None:
    """Write a PDF with a printed page, and a page that is a picture of `SCANNED_TEXT`."""
    pixels_per_point = SCAN_DPI / 72
    page = Image.new("L", (round(A4[0] * pixels_per_point), round(A4[1] * pixels_per_point)), 245)
    font = ImageFont.load_default(size=14 * pixels_per_point)
    for number, line in enumerate(SCANNED_TEXT):
        top = (90 + 24 * number) * pixels_per_point
        ImageDraw.Draw(page).text((70 * pixels_per_point, top), line, fill=30, font=font)
    canvas = Canvas(str(path), pagesize=A4)
    canvas.drawString(72, 750, "Cover letter: the signed delivery note is on the next page.")
    canvas.showPage()
    canvas.drawImage(ImageReader(page.rotate(-1, fillcolor=245)), 0, 0, *A4)
    canvas.save()


def write_damaged_pdf(path: Path) -> None:
    """Write a PDF of three pages; no reader can load the second."""
    file = BytesIO()
    canvas = Canvas(file, pagesize=A4)
    for number in (1, 2, 3):
        canvas.drawString(72, 750, f"Page {number} of the customs papers of this consignment.")
        canvas.showPage()
    canvas.save()
    _, second, _ = re.findall(
        rb"(\d+ 0 obj\n<<[^>]*/Contents.*?)endobj", file.getvalue(), re.DOTALL
    )
    head, _, body = second.partition(b"\n")
    damaged = head + b"\n" + b"(damaged)".ljust(len(body))
    path.write_bytes(file.getvalue().replace(second, damaged))
