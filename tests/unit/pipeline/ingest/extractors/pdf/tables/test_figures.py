from io import BytesIO
from pathlib import Path

from PIL import Image
from reportlab.lib import colors
from reportlab.lib.utils import ImageReader
from reportlab.pdfgen.canvas import Canvas

from pipeline.ingest.extractors.layout import LayoutLimits
from schemas.layout import FigureKind
from schemas.outcomes import Outcome
from tests.factories.table_pdfs import PRICES, Draw, lines, pdf, table
from tests.unit.pipeline.ingest.extractors.pdf.tables.finding import layouts


def image(*, left: float, bottom: float, width: float, height: float) -> Draw:
    buffer = BytesIO()
    Image.new("RGB", (64, 48), (200, 30, 30)).save(buffer, "PNG")

    def draw(canvas: Canvas) -> None:
        picture = ImageReader(BytesIO(buffer.getvalue()))
        canvas.drawImage(picture, left, bottom, width=width, height=height)

    return draw


def curve(canvas: Canvas) -> None:
    canvas.line(100, 300, 100, 500)
    canvas.line(100, 300, 400, 300)
    for number in range(6):
        canvas.bezier(100, 320 + number, 200, 500, 300, 320, 400, 480)
        canvas.circle(150 + 40 * number, 400, 4)


def test_an_image_is_listed_with_its_box_and_its_pixels(tmp_path: Path) -> None:
    content = pdf([image(left=72, bottom=400, width=320, height=240)])
    [page] = layouts(tmp_path, content)
    [figure] = page.figures
    assert (figure.kind, figure.page) == (FigureKind.IMAGE, 1)
    assert (figure.width_pixels, figure.height_pixels) == (64, 48)
    assert (figure.left, figure.top, figure.right, figure.bottom) == (72, 202, 392, 442)


def test_curves_and_shapes_near_each_other_are_one_chart(tmp_path: Path) -> None:
    [page] = layouts(tmp_path, pdf([curve, lines("Figure 1: Growth", top=280)]))
    [figure] = page.figures
    assert figure.kind is FigureKind.CHART
    assert figure.width_pixels is None
    assert page.tables == ()


def test_ornaments_and_the_lines_of_tables_are_no_figures(tmp_path: Path) -> None:
    def ornament(canvas: Canvas) -> None:
        canvas.circle(300, 800, 5)
        canvas.setFillColor(colors.red)
        canvas.wedge(290, 60, 310, 80, 0, 90, fill=1)

    tiny = image(left=40, bottom=780, width=12, height=12)
    [page] = layouts(tmp_path, pdf([ornament, tiny, table(PRICES)]))
    assert page.figures == ()
    assert len(page.tables) == 1


def test_more_figures_than_the_limit_are_left_out_and_flagged(tmp_path: Path) -> None:
    parts = [image(left=72, bottom=700 - 60 * n, width=50, height=50) for n in range(5)]
    [page] = layouts(tmp_path, pdf(parts), limits=LayoutLimits(figures=3))
    assert [figure.top for figure in page.figures] == sorted(each.top for each in page.figures)
    assert len(page.figures) == 3
    assert page.outcome is Outcome.LIMIT_PAGE_CONTENT


def test_the_box_of_a_figure_on_a_turned_page_is_as_displayed(tmp_path: Path) -> None:
    [page] = layouts(tmp_path, pdf([image(left=72, bottom=300, width=320, height=200)], turned=90))
    [figure] = page.figures
    assert (figure.left, figure.top, figure.right, figure.bottom) == (300, 72, 500, 392)
