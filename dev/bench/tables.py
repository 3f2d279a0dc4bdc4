"""Tables of PDFs, by the measure of the ICDAR 2013 table competition, beside bare libraries."""

import importlib
import importlib.util
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any, Final

import pdfplumber

from dev.bench import adjacency, machine, plots
from dev.bench.adjacency import Cell, Relations, Score, relations_of
from dev.bench.plots import Bars
from dev.bench.sections import Section, Table
from dev.bench.system import System
from pipeline.ingest.extractors.layout import LayoutLimits, PageLayout
from pipeline.ingest.extractors.pdf.document import PdfExtractor
from pipeline.ingest.extractors.pdf.pdfium import PdfiumDocument
from pipeline.ingest.extractors.pdf.tables.objects import objects_of
from pipeline.ingest.sandbox.limits import ReadingLimits
from pipeline.ingest.table_joining import joined
from schemas.settings import GIB, MIB

SUFFIX: Final = "-str.xml"
OURS: Final = "Waybill"
CAMELOT_FLAVORS: Final = ("lattice", "hybrid", "auto")
LIMITS: Final = ReadingLimits(
    timeout=timedelta(minutes=5),
    page_timeout=timedelta(seconds=30),
    memory_bytes=GIB,
    file_bytes=GIB,
    pages=1_000,
    text_bytes=50 * MIB,
)


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A document of the competition, and the relations that its tables have."""

    path: Path
    expected: Relations


@dataclass(kw_only=True)
class Measured:
    """What one finder of tables found in the documents.

    Attributes:
        scores: of each document.
        page_ms: processor time of each page; of the mean page of each document for peers.
    """

    scores: list[Score] = field(default_factory=list)
    page_ms: list[float] = field(default_factory=list)


def run(system: System, *, documents_max: int | None) -> Section:
    papers = list(papers_in(system.tables, system.documents))[:documents_max]
    finders: Mapping[str, Callable[[Path], Relations]] = {
        "pdfplumber": _by_pdfplumber,
        **(_camelot_finders() if papers else {}),
    }
    found: dict[str, Measured] = {OURS: Measured(), **{name: Measured() for name in finders}}
    with_rules: list[float] = []
    without_rules: list[float] = []
    for paper in papers:
        found[OURS].scores.append(
            adjacency.score(
                _by_waybill(paper.path, with_rules=with_rules, without_rules=without_rules),
                expected=paper.expected,
            )
        )
        for name, find in finders.items():
            measured = found[name]
            began = time.process_time()
            relations = find(paper.path)
            milliseconds = (time.process_time() - began) * 1000
            measured.page_ms.append(milliseconds / _page_count(paper.path))
            measured.scores.append(adjacency.score(relations, expected=paper.expected))
        system.report(f"tables: {paper.path.stem.rpartition('__')[2]}")
    found[OURS].page_ms = with_rules + without_rules
    if papers:
        _plot(found, to=system.plots / "tables.svg")
    return _section(found, papers, with_rules=with_rules, without_rules=without_rules)


def papers_in(truths: Path | None, documents: Iterable[Path]) -> Iterator[Paper]:
    """Yield the documents that have a ground truth."""
    paths = {path.stem: path for directory in documents for path in directory.rglob("*.pdf")}
    for truth in sorted(truths.glob(f"*{SUFFIX}")) if truths else ():
        name = truth.name.removesuffix(SUFFIX)
        # A corpus may put the directory of a file into its name.
        path = next((path for stem, path in paths.items() if stem.endswith(name)), None)
        if path is not None:
            yield Paper(path=path, expected=adjacency.expected_in(truth))


def _by_waybill(path: Path, *, with_rules: list[float], without_rules: list[float]) -> Relations:
    """Return what Waybill finds; adds the processor time of each page, with its loading."""
    layouts: list[PageLayout] = []
    limits = LayoutLimits()
    ruled = _ruled_pages(path)
    with PdfExtractor().open(path, limits=LIMITS, password=None) as document:
        for number in range(1, document.page_count + 1):
            began = time.process_time()
            layouts.append(document.layout(number, limits=limits))
            milliseconds = (time.process_time() - began) * 1000
            (with_rules if number in ruled else without_rules).append(milliseconds)
    relations: Relations = adjacency.Relations()
    for table in joined(layouts):
        relations += relations_of(
            Cell(
                cell.row,
                cell.column,
                cell.row + cell.row_span - 1,
                cell.column + cell.column_span - 1,
                cell.text,
            )
            for cell in table.cells
        )
    return relations


def _ruled_pages(path: Path) -> set[int]:
    document = PdfiumDocument(path)
    try:
        ruled = set()
        for number in range(1, document.page_count + 1):
            with document.page(number) as page:
                objects = objects_of(page, objects_max=LayoutLimits().objects)
                if objects.horizontal or objects.vertical:
                    ruled.add(number)
        return ruled
    finally:
        document.close()


def _page_count(path: Path) -> int:
    document = PdfiumDocument(path)
    try:
        return document.page_count
    finally:
        document.close()


def _by_pdfplumber(path: Path) -> Relations:
    relations: Relations = adjacency.Relations()
    with pdfplumber.open(path) as document:
        for page in document.pages:
            for table in page.extract_tables():
                relations += relations_of(_cells(table))
    return relations


def _camelot_finders() -> dict[str, Callable[[Path], Relations]]:
    """Return the flavors of camelot, if the extra `bench-tables` is installed."""
    if importlib.util.find_spec("camelot") is None:
        return {}
    camelot: Any = importlib.import_module("camelot")

    def finder(flavor: str) -> Callable[[Path], Relations]:
        def find(path: Path) -> Relations:
            relations: Relations = adjacency.Relations()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns about pages without tables
                for table in camelot.read_pdf(str(path), pages="all", flavor=flavor):
                    relations += relations_of(_cells(table.df.to_numpy().tolist()))
            return relations

        return find

    return {f"camelot {flavor}": finder(flavor) for flavor in CAMELOT_FLAVORS}


def _cells(rows: Iterable[Sequence[str | None]]) -> Iterator[Cell]:
    for row, texts in enumerate(rows):
        for column, text in enumerate(texts):
            yield Cell(row, column, row, column, text or "")


def _section(
    found: Mapping[str, Measured],
    papers: Sequence[Paper],
    *,
    with_rules: Sequence[float],
    without_rules: Sequence[float],
) -> Section:
    rows = []
    for name, measured in found.items():
        if measured.scores:
            mean = adjacency.mean(measured.scores)
            rows.append(
                [
                    name,
                    f"{mean.precision:.3f}",
                    f"{mean.recall:.3f}",
                    f"{mean.f1:.3f}",
                    f"{median(measured.page_ms):.1f} ms",
                ]
            )
    cost = [
        [name, str(len(pages)), f"{median(pages):.1f} ms", f"{max(pages):.1f} ms"]
        for name, pages in (("with lines", with_rules), ("without lines", without_rules))
        if pages
    ]
    has_camelot = any(name.startswith("camelot") for name in found)
    remarks = []
    if not papers:
        remarks.append(
            "Skipped: `--tables` and `--documents` name no ground truth with its documents."
        )
    elif not has_camelot:
        remarks.append("Without camelot: the extra `bench-tables` is not installed.")
    return Section(
        title="Tables",
        question=(
            f"The tables of {len(papers)} PDFs of the ICDAR 2013 table competition: precision and"
            " recall of the relations between neighbouring cells, means over the documents, from"
            " the bare pages. The peers run with their defaults, in the same process. Processor"
            " time of a page, in the median."
        ),
        tables=[
            Table(headings=["", "precision", "recall", "F1", "per page"], rows=rows),
            Table(
                title="Pages of Waybill",
                headings=["", "pages", "median", "slowest"],
                rows=cost,
            ),
        ],
        remarks=remarks,
        plots=["tables.svg"] if papers else [],
        peers=machine.versions_of("pdfplumber", *(["camelot-py"] if has_camelot else [])),
        measured_on=datetime.now(UTC).date(),
    )


def _plot(found: Mapping[str, Measured], *, to: Path) -> None:
    plots.bars(
        Bars(
            title="Tables of the ICDAR 2013 competition (higher is better)",
            unit="relations between cells",
            groups=["precision", "recall", "F1"],
            series={
                name: [[mean.precision], [mean.recall], [mean.f1]]
                for name, mean in (
                    (name, adjacency.mean(measured.scores)) for name, measured in found.items()
                )
            },
            ours=(OURS,),
        ),
        to=to,
    )
