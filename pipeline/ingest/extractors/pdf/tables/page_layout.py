"""Finds the tables and figures of a page."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from msgspec.structs import astuple, replace

from pipeline.ingest.errors import PAGE_REASONS
from pipeline.ingest.extractors.layout import (
    FigureFound,
    LayoutLimits,
    PageLayout,
    TableCell,
    TableFound,
    TablePart,
)
from pipeline.ingest.extractors.pdf.geometry import Box, shared_height, shared_width
from pipeline.ingest.extractors.pdf.pdfium import PdfiumPage
from pipeline.ingest.extractors.pdf.tables import figures
from pipeline.ingest.extractors.pdf.tables.aligned import grid_of, parts_of, runs_of, words_in
from pipeline.ingest.extractors.pdf.tables.captions import caption_of, is_called_figure
from pipeline.ingest.extractors.pdf.tables.charts import is_chart
from pipeline.ingest.extractors.pdf.tables.draft import Draft
from pipeline.ingest.extractors.pdf.tables.grid import Grid, grids_of, merged
from pipeline.ingest.extractors.pdf.tables.headers import header_rows
from pipeline.ingest.extractors.pdf.tables.headings import with_spans
from pipeline.ingest.extractors.pdf.tables.judged import confidence_of, is_table
from pipeline.ingest.extractors.pdf.tables.looks import may_have_columns
from pipeline.ingest.extractors.pdf.tables.objects import PageObjects, Rule, objects_of
from pipeline.ingest.extractors.pdf.tables.prose_columns import by_column
from pipeline.ingest.extractors.pdf.tables.refined import refined
from pipeline.ingest.extractors.pdf.tables.ruled import filled, is_inside
from pipeline.ingest.extractors.pdf.tables.stacks import stacks_of
from pipeline.ingest.extractors.pdf.tables.words import Word, lines_of, words_of
from schemas.layout import TableMethod
from schemas.outcomes import Outcome

_IRREGULAR_MAX: Final = 0.5
"""Share of the area of a grid in cells that are no rectangles: more is a drawing."""

# In 1/72 inch; a smaller grid is a box to tick.
_WIDTH_MIN: Final = 36.0
_HEIGHT_MIN: Final = 14.0

_GRIDS_MAX: Final = 300
"""Boxes of a form; each is compared with all words."""

_DRAWINGS_MAX: Final = 2_000
_SHARED_MAX: Final = 0.5


def layout_of(page: PdfiumPage, number: int, *, limits: LayoutLimits) -> PageLayout:
    """Return the tables and figures of page `number`."""
    objects = objects_of(page, objects_max=limits.objects)
    found = _tables(page, number, objects, limits=limits)
    places = [Box(*part[1:]) for table in found for part in map(astuple, table.parts)]
    shown = figures.figures_of(page, objects, tables=places)
    tables, is_cut = _within(found, limits)
    is_cut = is_cut or objects.is_cut or len(shown) > limits.figures
    outcome = Outcome.LIMIT_PAGE_CONTENT if is_cut else Outcome.COMPLETE
    return PageLayout(
        number=number,
        outcome=outcome,
        reason=PAGE_REASONS.get(outcome, ""),
        tables=tables,
        figures=tuple(
            FigureFound(
                page=number,
                kind=figure.kind,
                left=round(figure.box.left),
                top=round(figure.box.top),
                right=round(figure.box.right),
                bottom=round(figure.box.bottom),
                width_pixels=figure.width_pixels,
                height_pixels=figure.height_pixels,
            )
            for figure in shown[: limits.figures]
        ),
    )


def _tables(
    page: PdfiumPage, number: int, objects: PageObjects, *, limits: LayoutLimits
) -> list[TableFound]:
    """Return the tables from top to bottom."""
    horizontal, vertical = merged(objects.horizontal), merged(objects.vertical)
    grids = [grid for grid in grids_of(horizontal, vertical) if _may_be_table(grid)][:_GRIDS_MAX]
    if not grids and len(horizontal) <= 1 and not may_have_columns(page):
        return []
    words = words_of(page, words_max=limits.words)
    drawings = objects.drawings[:_DRAWINGS_MAX]
    drafts = _drafts(grids, words, drawings)
    left = [word for word in words if not _is_taken(word.box, drafts)]
    free = [rule for rule in horizontal if not _is_taken(_box_of(rule), drafts)]
    drafts += _drafts(stacks_of(free, left), left, drawings)
    left = [word for word in left if not _is_taken(word.box, drafts)]
    drafts += _borderless(left, drawings)
    drafts.sort(key=lambda draft: (draft.box.top, draft.box.left))
    lines = lines_of([word for word in words if not _is_taken(word.box, drafts)])
    drafts = [draft for draft in drafts if not is_called_figure(draft.box, lines)]
    return [
        replace(
            _found(draft, number),
            caption=caption_of(draft.box, lines),
            lines_above=sum(line.box.bottom <= draft.box.top + 1 for line in lines),
            lines_below=sum(line.box.top >= draft.box.bottom - 1 for line in lines),
        )
        for draft in drafts
    ]


def _borderless(words: Sequence[Word], drawings: Sequence[Box]) -> Iterator[Draft]:
    runs = [run for group in by_column(words) for run in runs_of(lines_of(group))]
    while runs:
        run = runs.pop()
        grid = grid_of(run)
        if grid is not None:
            found = _drafts([grid], words_in(run), drawings, method=TableMethod.BORDERLESS)
            yield from found
            if not found:
                runs += parts_of(run)


def _drafts(
    grids: Iterable[Grid],
    words: Sequence[Word],
    drawings: Sequence[Box],
    *,
    method: TableMethod = TableMethod.RULED,
) -> list[Draft]:
    """Return the tables of grids; of two at one place, the one with more cells."""
    found = []
    for grid in grids:
        if grid.irregular_share > _IRREGULAR_MAX:
            continue
        inside = [word for word in words if is_inside(word.box, grid.box)]
        finer = refined(grid, inside)
        draft = filled(finer, inside, method=method)
        if len(grid.xs) == 2:  # noqa: PLR2004  # no rule divides its columns
            draft = with_spans(draft)
        if is_table(draft) and not is_chart(finer, drawings):
            found.append(draft)
    kept: list[Draft] = []
    for draft in sorted(found, key=lambda draft: len(draft.cells), reverse=True):
        if not any(_overlap(draft.box, other.box) for other in kept):
            kept.append(draft)
    return kept


def _overlap(one: Box, other: Box) -> bool:
    """Return whether two boxes share most of the smaller one."""
    width, height = shared_width(one, other), shared_height(one, other)
    smaller = min(one.width * one.height, other.width * other.height)
    return width > 0 and height > 0 and width * height > _SHARED_MAX * smaller


def _may_be_table(grid: Grid) -> bool:
    return grid.box.width >= _WIDTH_MIN and grid.box.height >= _HEIGHT_MIN


def _is_taken(box: Box, drafts: Sequence[Draft]) -> bool:
    return any(is_inside(box, draft.box) for draft in drafts)


def _box_of(rule: Rule) -> Box:
    return Box(rule.start, rule.place, rule.end, rule.place)


def _found(draft: Draft, number: int) -> TableFound:
    return TableFound(
        parts=(
            TablePart(
                number,
                round(draft.box.left),
                round(draft.box.top),
                round(draft.box.right),
                round(draft.box.bottom),
            ),
        ),
        row_count=draft.row_count,
        column_count=draft.column_count,
        header_row_count=header_rows(draft),
        method=draft.method,
        confidence=round(confidence_of(draft), 2),
        cells=tuple(
            TableCell(
                cell.row,
                cell.column,
                cell.row_span,
                cell.column_span,
                cell.text,
                number,
                round(cell.box.left),
                round(cell.box.top),
                round(cell.box.right),
                round(cell.box.bottom),
            )
            for cell in draft.cells
        ),
    )


def _within(
    tables: Sequence[TableFound], limits: LayoutLimits
) -> tuple[tuple[TableFound, ...], bool]:
    """Return what the limits allow of the tables, and whether something is left out."""
    kept = []
    left = limits.cells
    for table in tables[: limits.tables]:
        within = _shortened(table, cells=left, characters=limits.cell_characters)
        left -= len(within.cells)
        if within.cells:
            kept.append(within)
    is_cut = len(kept) < len(tables) or any(table.is_cut for table in kept)
    return tuple(kept), is_cut


def _shortened(table: TableFound, *, cells: int, characters: int) -> TableFound:
    """Return a table with its first rows, and with shorter texts."""
    kept = table.cells
    rows = table.row_count
    if len(kept) > cells:
        rows = kept[cells].row
        kept = tuple(cell for cell in kept if cell.row < rows)
    is_cut = rows < table.row_count
    if any(len(cell.text) > characters for cell in kept):
        is_cut = True
        kept = tuple(
            replace(cell, text=cell.text[:characters]) if len(cell.text) > characters else cell
            for cell in kept
        )
    if not is_cut:
        return table
    kept = tuple(replace(cell, row_span=min(cell.row_span, rows - cell.row)) for cell in kept)
    return replace(
        table,
        row_count=rows,
        header_row_count=min(table.header_row_count, rows),
        cells=kept,
        is_cut=True,
    )
