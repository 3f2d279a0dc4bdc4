"""The measure of the ICDAR 2013 table competition: relations between neighbouring cells.

Göbel, Hassan, Oro, Orsi: A methodology for evaluating algorithms for table understanding in PDF
documents. DocEng 2012.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Final, NamedTuple

from lxml import etree

_OTHER: Final = re.compile(r"[^\w]|_")


class Cell(NamedTuple):
    """A cell of a table: its first and last row and column, and its text."""

    row: int
    column: int
    last_row: int
    last_column: int
    text: str


Relations = Counter[tuple[str, str, str]]
"""Texts of two neighbouring cells, and the direction from one to the other."""


class Score(NamedTuple):
    """Precision and recall of one document."""

    precision: float
    recall: float

    @property
    def f1(self) -> float:
        both = self.precision + self.recall
        return 2 * self.precision * self.recall / both if both else 0.0


def relations_of(cells: Iterable[Cell]) -> Relations:
    """Return the relations of each cell with text to the nearest ones on its right and below."""
    at: dict[tuple[int, int], Cell] = {}
    with_text = [cell._replace(text=text) for cell in cells if (text := _normal(cell.text))]
    for cell in with_text:
        for row in range(cell.row, cell.last_row + 1):
            for column in range(cell.column, cell.last_column + 1):
                at[row, column] = cell
    last_row = max((row for row, _ in at), default=0)
    last_column = max((column for _, column in at), default=0)
    found: set[tuple[Cell, Cell, str]] = set()
    for cell in with_text:
        for row in range(cell.row, cell.last_row + 1):
            columns = range(cell.last_column + 1, last_column + 1)
            right = next((at[row, column] for column in columns if (row, column) in at), None)
            if right is not None:
                found.add((cell, right, "right"))
        for column in range(cell.column, cell.last_column + 1):
            rows = range(cell.last_row + 1, last_row + 1)
            below = next((at[row, column] for row in rows if (row, column) in at), None)
            if below is not None:
                found.add((cell, below, "below"))
    return Counter((one.text, other.text, direction) for one, other, direction in found)


def score(found: Relations, *, expected: Relations) -> Score:
    correct = (found & expected).total()
    return Score(
        correct / found.total() if found else 0.0,
        correct / expected.total() if expected else 0.0,
    )


def mean(scores: Sequence[Score]) -> Score:
    """Return the means over documents, as the competition reports them."""
    return Score(fmean(each.precision for each in scores), fmean(each.recall for each in scores))


def expected_in(file: Path) -> Relations:
    """Return the relations of all tables of a `*-str.xml` of the competition."""
    found: Relations = Counter()
    # The files are as they were published; one has a byte that is no UTF-8.
    parser = etree.XMLParser(recover=True, resolve_entities=False, no_network=True)
    for table in etree.parse(file, parser).iter("table"):
        cells = [
            _cell(
                cell,
                rows=int(region.get("row-increment", 0)),
                columns=int(region.get("col-increment", 0)),
            )
            for region in table.iter("region")
            for cell in region.iter("cell")
        ]
        found += relations_of(cells)
    return found


def _cell(cell: etree._Element, *, rows: int, columns: int) -> Cell:
    row, column = int(cell.get("start-row", 0)), int(cell.get("start-col", 0))
    # Some ends are before their starts.
    last_row = max(row, int(cell.get("end-row", row)))
    last_column = max(column, int(cell.get("end-col", column)))
    return Cell(
        row + rows,
        column + columns,
        last_row + rows,
        last_column + columns,
        cell.findtext("content") or "",
    )


def _normal(text: str) -> str:
    """Return a text without white space, in lower case, with one mark for every other sign."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    without_space = "".join(plain.split())
    return _OTHER.sub("_", without_space) if without_space.strip() else ""
