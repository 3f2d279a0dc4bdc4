"""Formats other than PDF, from a finalized upload to the published document."""

import io
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy.orm import Session

from pipeline.ingest.extractors.extractor import SpanKind
from schemas.events.documents import DocumentFailed, IngestedEvent
from schemas.events.envelope import Envelope
from schemas.lifecycle import DocumentStatus, JobStatus
from schemas.outcomes import Outcome
from schemas.tables.documents import Document, Page, Revision
from tests.eventually import eventually
from tests.factories.docx import CORE, paragraph, story, write_docx
from tests.integration.pipeline.workbench import Workbench

HEBREW = "הסכם זה נערך ונחתם בין הצדדים ביום הראשון של החודש. התשלום יבוצע עד סוף החודש הנוכחי."
JAPANESE = (
    "本契約は、甲と乙の間で締結された業務委託に関する契約書であり、双方は以下の条項に同意する。"
)
ARABIC = "تم إبرام هذا العقد بين الطرفين ويلتزم كل طرف بالشروط التالية."


def submitted(bench: Workbench, content: bytes, *, filename: str) -> Envelope:
    event = bench.finalized(content, filename=filename)
    bench.bus.publish(event)
    # The workbench has no relay.
    eventually(lambda: bench.emitted(event), until=bool)
    bench.bus.publish(bench.emitted(event)[0])
    return event


def read(bench: Workbench, content: bytes, *, filename: str) -> tuple[Document, Revision, Page]:
    """Return the document, its revision and its first page."""
    event = submitted(bench, content, filename=filename)
    job = bench.settled(event)
    assert job.status == JobStatus.COMPLETED, job.error_detail
    assert isinstance(bench.emitted(event)[-1].data, IngestedEvent)
    document = bench.document(event)
    assert document is not None
    with Session(bench.engine) as session:
        revision = session.get_one(Revision, document.revision_id)
        return document, revision, session.get_one(Page, (revision.id, 1))


@pytest.mark.parametrize(
    ("filename", "content", "language"),
    [
        ("agreement.txt", HEBREW.encode("iso-8859-8"), "he"),
        ("agreement.csv", JAPANESE.encode("shift-jis"), "ja"),
        ("agreement.html", f"<html><p>{ARABIC}".encode(), "ar"),
    ],
)
def test_text_and_html_are_read(
    bench: Workbench, filename: str, content: bytes, language: str
) -> None:
    document, revision, page = read(bench, content, filename=filename)

    assert (document.status, document.outcome) == (DocumentStatus.INGESTED, Outcome.COMPLETE)
    assert page.text in {HEBREW, JAPANESE, ARABIC}
    assert revision.language == language


def test_a_docx_is_read_with_its_header_marked(bench: Workbench, tmp_path: Path) -> None:
    file = write_docx(
        tmp_path / "bericht.docx",
        paragraph("Die Prüfung ergab größere Beträge."),
        parts={"header1": story("hdr", paragraph("Vertraulich"))},
        core=CORE,
    )

    document, _, page = read(bench, file.read_bytes(), filename="bericht.docx")

    assert document.content_type.endswith(".wordprocessingml.document")
    assert page.text == "Vertraulich\n\nDie Prüfung ergab größere Beträge."
    assert page.spans == [list(SpanKind).index(SpanKind.HEADER), 0, 11]


def test_a_picture_without_ocr_is_a_partial_document(bench: Workbench) -> None:
    content = io.BytesIO()
    Image.effect_noise((200, 100), 80).save(content, "PNG")

    document, revision, page = read(bench, content.getvalue(), filename="scan")

    assert (document.status, document.outcome) == (DocumentStatus.PARTIAL, Outcome.NEEDS_OCR)
    assert (revision.pages_needs_ocr, page.text) == (1, "")


def test_binary_content_with_the_name_of_a_text_fails_as_corrupt(bench: Workbench) -> None:
    event = submitted(bench, bytes(range(256)) * 40, filename="notes.txt")

    job = bench.settled(event)

    assert (job.status, job.error_code) == (JobStatus.FAILED, "document_corrupt")
    failed = bench.emitted(event)[-1].data
    assert isinstance(failed, DocumentFailed)
    assert "The content is not text." in failed.detail
