"""PDFs with tables, made by reportlab, and with drawings."""

from collections.abc import Callable, Sequence
from io import BytesIO

from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Table

Draw = Callable[[Canvas], None]
Style = Sequence[tuple[object, ...]]

RULED: Style = [("GRID", (0, 0), (-1, -1), 0.5, colors.black)]
BOOKTABS: Style = [
    ("LINEABOVE", (0, 0), (-1, 0), 1, colors.black),
    ("LINEBELOW", (0, 0), (-1, 0), 0.5, colors.black),
    ("LINEBELOW", (0, -1), (-1, -1), 1, colors.black),
]
BARE: Style = []

PRICES: Sequence[Sequence[str]] = [
    ["Item", "Unit", "Price", "Stock"],
    ["Steel pipe", "m", "12.50", "1,240"],
    ["Copper wire", "kg", "9.75", "310"],
    ["Brass valve", "piece", "31.00", "42"],
    ["Gasket", "piece", "0.85", "9,000"],
]


def table(
    rows: Sequence[Sequence[str]],
    *,
    style: Style = RULED,
    left: float = 72,
    top: float = 700,
    widths: Sequence[float] | None = None,
) -> Draw:
    """Draw a table whose upper left corner is at `left` and `top`, in PDF's coordinates."""

    def draw(canvas: Canvas) -> None:
        flowable = Table([list(row) for row in rows], colWidths=widths, style=list(style))
        _, height = flowable.wrap(A4[0], A4[1])
        flowable.drawOn(canvas, left, top - height)

    return draw


def lines(*texts: str, left: float = 72, top: float = 760, leading: float = 14) -> Draw:
    """Draw lines of text below each other."""

    def draw(canvas: Canvas) -> None:
        canvas.setFont("Helvetica", 10)
        for number, text in enumerate(texts):
            canvas.drawString(left, top - number * leading, text)

    return draw


def pdf(*pages: Sequence[Draw], turned: int = 0) -> bytes:
    """Return a PDF of A4 pages; each draws its parts.

    Args:
        pages: the parts of each page.
        turned: degrees by which a viewer turns the pages.
    """
    buffer = BytesIO()
    canvas = Canvas(buffer, pagesize=A4, invariant=True)
    for parts in pages:
        canvas.setPageRotation(turned)
        for part in parts:
            part(canvas)
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()
