"""A real worker recognises scanned pages."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from PIL import ImageOps
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from dev.stack.stack import Stack
from schemas import queues
from schemas.events.documents import IngestedEvent
from schemas.events.envelope import Envelope
from schemas.lifecycle import DocumentStatus, PageStatus, StepStatus
from schemas.outcomes import Outcome
from schemas.steps import StepName
from schemas.tables.documents import Document, Page
from schemas.tables.engines import LiveEngine
from tests.eventually import eventually
from tests.factories import pdfs, scans
from tests.integration.pipeline.readers import readers_of
from tests.integration.pipeline.workbench import Workbench, prepare_staging, workbench

PAGES_MAX = 12


@pytest.fixture(scope="module")
def system(infrastructure: Stack, migrated_template: str) -> Iterator[Stack]:
    settings = {
        "OCR_PAGES_MAX": str(PAGES_MAX),
        "TRANSFER_LEASE": "3s",
        "TABLES_ENABLED": "false",  # no worker of this system finds them
    }
    with infrastructure.scoped("ocr", settings=settings, template=migrated_template) as own:
        prepare_staging(own)
        own.start_services("transfer", "ingest", "ocr")
        yield own


@pytest.fixture
def bench(system: Stack) -> Iterator[Workbench]:
    with workbench(system) as bench:
        eventually(lambda: bench.count(LiveEngine), until=lambda engines: engines == 1)
        yield bench


def submitted(bench: Workbench, content: bytes) -> Envelope:
    """Send a document through the steps until its pages are being recognised."""
    event = bench.finalized(content, filename="scan.pdf")
    bench.bus.publish(event)
    (stored,) = eventually(lambda: bench.emitted(event), until=bool)
    bench.bus.publish_to(queues.DOCUMENT_PROCESSING, stored)
    eventually(lambda: StepName.OCR in bench.steps(event), until=bool)
    bench.bus.publish_to(queues.OCR_PROCESSING, stored)
    return event


def recognised(bench: Workbench, content: bytes) -> tuple[Document, list[Page]]:
    event = submitted(bench, content)
    eventually(
        lambda: bench.step(event, StepName.OCR).status,
        until=lambda status: status is StepStatus.COMPLETED,
        within=timedelta(minutes=2),
    )
    document = bench.document(event)
    assert document is not None
    return document, pages_of(bench, document)


def pages_of(bench: Workbench, document: Document) -> list[Page]:
    with Session(bench.engine, expire_on_commit=False) as session:
        return list(
            session.scalars(
                select(Page).where(Page.revision_id == document.revision_id).order_by(Page.number)
            )
        )


def pages_with_text(bench: Workbench, event: Envelope) -> int:
    with Session(bench.engine) as session:
        return (
            session.scalar(
                select(func.count())
                .select_from(Page)
                .join(Document, Document.revision_id == Page.revision_id)
                .where(Document.upload_id == event.upload_id, Page.text != "")
            )
            or 0
        )


def test_a_scan_is_recognised_and_published(bench: Workbench) -> None:
    english = scans.english(120)
    content = scans.scanned_pdf(
        scans.picture_of(english, skew=-4, noise=15), scans.picture_of(english, turn=180)
    )

    event = submitted(bench, content)
    document = eventually(
        lambda: bench.document(event),
        until=lambda found: found is not None and found.ingested_at is not None,
        within=timedelta(minutes=2),
    )

    assert document is not None
    assert (document.status, document.outcome) == (DocumentStatus.INGESTED, Outcome.COMPLETE)
    pages = pages_of(bench, document)
    assert [(page.status, page.engine, page.language) for page in pages] == [
        (PageStatus.OCR, "tesseract", "en")
    ] * 2
    for page in pages:
        assert scans.recall(page.text, of=english) >= 0.95
        assert page.confidence is not None
        assert page.confidence > 0.85
        assert len(page.lines) == 6 * len(english)
        assert page.sentences
    told = bench.emitted(event)[-1].data
    assert isinstance(told, IngestedEvent)
    assert (told.pages_ocr, told.pages_needs_ocr, told.language) == (2, 0, "en")


def test_only_the_pages_without_text_are_recognised(bench: Workbench) -> None:
    words = scans.german(100)
    mixed = pdfs.merged(scans.pdf_of(scans.german(200)), scans.scanned_pdf(scans.picture_of(words)))

    document, pages = recognised(bench, mixed)

    assert document.status is DocumentStatus.INGESTED
    assert document.outcome is Outcome.COMPLETE
    assert [(page.status, page.engine) for page in pages] == [
        (PageStatus.READ, "pdfium"),
        (PageStatus.OCR, "tesseract"),
    ]
    assert scans.recall(pages[1].text, of=words) >= 0.95, "recognised with the data of its language"


def test_a_page_that_cannot_be_recognised_keeps_no_text_and_says_why(bench: Workbench) -> None:
    words = scans.english(60)
    mirrored = ImageOps.mirror(scans.picture_of(words))
    content = scans.scanned_pdf(scans.picture_of(words), mirrored)

    document, pages = recognised(bench, content)

    assert document.status is DocumentStatus.PARTIAL
    assert document.outcome is Outcome.PARTIAL
    assert (pages[1].status, pages[1].outcome, pages[1].text) == (
        PageStatus.NEEDS_OCR,
        Outcome.NEEDS_OCR,
        "",
    )
    assert "certainty" in pages[1].reason


def test_pages_beyond_the_limit_stay_unread_and_say_why(bench: Workbench) -> None:
    small = scans.picture_of(scans.english(12)).crop((0, 0, 1654, 500))

    document, pages = recognised(bench, scans.scanned_pdf(*([small] * (PAGES_MAX + 2))))

    assert document.outcome is Outcome.PARTIAL
    assert {page.status for page in pages[:PAGES_MAX]} == {PageStatus.OCR}
    assert {(page.status, page.reason) for page in pages[PAGES_MAX:]} == {
        (PageStatus.NEEDS_OCR, "More pages need OCR than are recognised of one document.")
    }


def test_pages_are_readable_one_after_another_and_a_cancel_ends_the_work(
    bench: Workbench,
) -> None:
    page = scans.picture_of(scans.english(300), noise=15)
    event = submitted(bench, scans.scanned_pdf(*([page] * PAGES_MAX)))
    first = eventually(
        lambda: pages_with_text(bench, event), until=bool, within=timedelta(minutes=1)
    )
    step = bench.step(event, StepName.OCR)
    readers = readers_of(bench, "ocr")
    assert readers
    for reader in readers:
        reader.suspend()  # the page does not end by itself

    bench.cancel(event)

    assert first < PAGES_MAX
    assert 1 <= step.done < PAGES_MAX
    assert step.total == PAGES_MAX
    assert step.checkpoint is not None
    assert step.checkpoint["last_page"] == step.done
    assert step.checkpoint["seconds"] > 0
    eventually(
        lambda: bench.step(event, StepName.OCR).lease_owner, until=lambda owner: owner is None
    )
    eventually(
        lambda: [reader for reader in readers if reader.is_running()], until=lambda left: not left
    )
