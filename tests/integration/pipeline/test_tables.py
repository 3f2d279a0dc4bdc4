"""Real workers find the tables and figures of a document after it is published."""

from collections.abc import Iterator, Sequence
from typing import Any

import psutil
import pytest
from PIL import Image
from reportlab.lib.utils import ImageReader
from sqlalchemy import select
from sqlalchemy.orm import Session

from dev.stack.stack import Stack
from pipeline.ingest.tables_task import CELLS_PER_PAGE
from schemas.events.documents import IngestedEvent
from schemas.events.envelope import Envelope
from schemas.layout import FigureKind, TableMethod
from schemas.lifecycle import JobStatus, PassageKind, StepStatus, TablesState
from schemas.outcomes import Outcome
from schemas.steps import StepName
from schemas.tables.documents import DocumentTable, Figure, Revision
from schemas.tables.passages import Passage
from tests.eventually import BUSY_TIMEOUT, eventually
from tests.factories import pdfs, table_pdfs
from tests.integration.pipeline.workbench import Workbench, prepare_staging, workbench

PRICES = table_pdfs.table(table_pdfs.PRICES)


@pytest.fixture(scope="module")
def system(infrastructure: Stack, migrated_template: str) -> Iterator[Stack]:
    settings = {"TRANSFER_LEASE": "3s", "STEP_OVERDUE": "5s", "STEP_WATCH_EVERY": "1s"}
    with infrastructure.scoped("tables", settings=settings, template=migrated_template) as own:
        prepare_staging(own)
        own.start_services("relay", "transfer", "ingest", "metadata", "batch", "beat")
        yield own


@pytest.fixture
def bench(system: Stack) -> Iterator[Workbench]:
    with workbench(system) as bench:
        yield bench


def submitted(bench: Workbench, content: bytes, **options: Any) -> Envelope:  # noqa: ANN401  # of `finalized`
    event = bench.finalized(content, filename="prices.pdf", **options)
    bench.bus.publish(event)
    return event


def settled(bench: Workbench, event: Envelope) -> Revision:
    """Return the revision once the job is completed."""
    assert bench.settled(event, within=BUSY_TIMEOUT).status is JobStatus.COMPLETED
    document = bench.document(event)
    assert document is not None
    with Session(bench.engine, expire_on_commit=False) as session:
        return session.get_one(Revision, document.revision_id)


def rows(bench: Workbench, table: type[Any], revision: Revision) -> Sequence[Any]:
    with Session(bench.engine, expire_on_commit=False) as session:
        return session.scalars(
            select(table).where(table.revision_id == revision.id).order_by(table.page)
        ).all()


def texts(table: DocumentTable) -> list[str]:
    return [text for _, _, _, _, text, *_ in table.cells]


def test_a_table_is_found_with_its_cells_and_its_passage(bench: Workbench) -> None:
    event = submitted(bench, table_pdfs.pdf([PRICES]))

    revision = settled(bench, event)

    (table,) = rows(bench, DocumentTable, revision)
    assert (table.page, table.row_count, table.column_count) == (1, 5, 4)
    assert (table.method, table.header_row_count) == (TableMethod.RULED, 1)
    assert texts(table) == [text for row in table_pdfs.PRICES for text in row]
    assert (revision.tables_state, revision.table_count) == (TablesState.COMPLETE, 1)
    (passage,) = (each for each in rows(bench, Passage, revision) if each.kind is PassageKind.TABLE)
    assert "Copper wire | kg | 9.75 | 310" in passage.text
    assert passage.text.startswith("Item | Unit | Price | Stock")
    told = next(each for each in bench.emitted(event) if isinstance(each.data, IngestedEvent))
    assert told.job_id == event.job_id


def test_an_image_is_listed_as_a_figure(bench: Workbench) -> None:
    picture = Image.new("RGB", (200, 100), "red")

    revision = settled(bench, submitted(bench, _with_picture(picture)))

    (figure,) = rows(bench, Figure, revision)
    assert (figure.kind, figure.width_pixels, figure.height_pixels) == (FigureKind.IMAGE, 200, 100)
    assert (figure.left, figure.right) == (100, 300)
    assert revision.figure_count == 1


def _with_picture(picture: Image.Image) -> bytes:
    return table_pdfs.pdf(
        [lambda canvas: canvas.drawImage(ImageReader(picture), 100, 400, width=200, height=100)]
    )


def test_a_broken_page_is_named_and_the_tables_of_the_others_are_found(bench: Workbench) -> None:
    content = table_pdfs.pdf([PRICES], [PRICES], [PRICES])

    revision = settled(bench, submitted(bench, pdfs.with_damaged_page(content, number=2)))

    assert [table.page for table in rows(bench, DocumentTable, revision)] == [1, 3]
    assert revision.tables_state is TablesState.PARTIAL
    (reason,) = revision.tables_reasons
    assert (reason["outcome"], reason["pages"]) == (Outcome.CORRUPT, [[2, 2]])


def test_a_hostile_page_is_named_and_the_tables_of_the_others_are_found(bench: Workbench) -> None:
    # A grid with 22,500 places, each of which has a letter.
    lines = b"".join(
        b"%d 0 m %d 600 l 0 %d m 600 %d l S\n" % (n, n, n, n) for n in range(0, 601, 4)
    )
    letters = b"".join(
        b"BT /F1 3 Tf %d %d Td (a) Tj ET\n" % (x + 1, y + 1)
        for x in range(0, 600, 4)
        for y in range(0, 600, 4)
    )
    hostile = pdfs.with_page_contents(lines + letters)
    content = pdfs.merged(table_pdfs.pdf([PRICES]), hostile, table_pdfs.pdf([PRICES]))

    revision = settled(bench, submitted(bench, content))

    tables = rows(bench, DocumentTable, revision)
    assert [table.page for table in tables if table.page != 2] == [1, 3]
    assert sum(table.cell_count for table in tables if table.page == 2) <= CELLS_PER_PAGE
    assert revision.tables_state in {TablesState.COMPLETE, TablesState.PARTIAL}


def test_the_same_bytes_again_have_the_same_tables(bench: Workbench) -> None:
    content = table_pdfs.pdf([PRICES], [], [PRICES])
    first = submitted(bench, content)
    original = settled(bench, first)

    copied = settled(bench, submitted(bench, content, tenant_id=first.tenantid))

    assert copied.reused_from == original.id
    before, after = (
        [(table.number, table.page, table.cells) for table in rows(bench, DocumentTable, each)]
        for each in (original, copied)
    )
    assert before == after
    assert len(after) == 2
    assert copied.tables_state is TablesState.COMPLETE


def test_a_killed_worker_loses_and_doubles_no_table(bench: Workbench) -> None:
    pages = 80
    worker = psutil.Process(bench.system.processes["batch"].pid)
    event = submitted(bench, table_pdfs.pdf(*([_numbered(page)] for page in range(pages))))
    eventually(lambda: StepName.TABLES in bench.steps(event), until=bool)
    step = eventually(
        lambda: bench.step(event, StepName.TABLES),
        until=lambda step: step.done > 0,
        within=BUSY_TIMEOUT,
    )
    assert step.status is StepStatus.RUNNING
    assert step.checkpoint is not None
    assert step.checkpoint["seconds"] > 0
    for process in worker.children():
        process.kill()

    revision = settled(bench, event)

    tables = rows(bench, DocumentTable, revision)
    assert [(table.number, table.page) for table in tables] == [
        (number, number) for number in range(1, pages + 1)
    ]
    found = [each for each in rows(bench, Passage, revision) if each.kind is PassageKind.TABLE]
    assert [each.page for each in found] == list(range(1, pages + 1))
    assert revision.table_count == pages


def _numbered(page: int) -> table_pdfs.Draw:
    """Draw a table that no other page continues."""
    return table_pdfs.table(
        [[f"Column {page}", "Price"], *[[f"Row {n}", str(n)] for n in range(30)]]
    )
