"""Which engine reads a page, and what the page comes to: one small file per kind of fault."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.ingest.errors import DocumentCorrupt, DocumentEmpty, DocumentEncrypted, DocumentError
from pipeline.ingest.extractors.extractor import ExtractedPage, SpanKind
from pipeline.ingest.extractors.pdf.document import PdfExtractor
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.outcomes import Outcome
from schemas.settings import PdfEngine
from tests.factories import drawn_pdfs, pdf_faults, pdfs
from tests.factories.drawn_pdfs import Shown
from tests.factories.pdf_faults import SENTENCE

PASSWORD = "pässword"  # noqa: S105  # of test files

Read = Callable[..., list[ExtractedPage]]


@pytest.fixture
def read(tmp_path: Path, limits: ReadingLimits) -> Read:
    """Reads all pages of a PDF."""

    def read(
        content: bytes,
        *,
        engine: PdfEngine = PdfEngine.AUTO,
        password: str | None = None,
        limits: ReadingLimits = limits,
    ) -> list[ExtractedPage]:
        path = tmp_path / "document.pdf"
        path.write_bytes(content)
        limits = replace(limits, pdf_engine=engine)
        with PdfExtractor().open(path, limits=limits, password=password) as document:
            return [document.page(number) for number in range(1, document.page_count + 1)]

    return read


def words(page: ExtractedPage) -> str:
    return " ".join(page.text.split())


def marked(page: ExtractedPage) -> list[tuple[SpanKind, str]]:
    return [(span.kind, page.text[span.start : span.end]) for span in page.spans]


def test_an_ordinary_page_is_read_by_pdfium(read: Read) -> None:
    page = read(pdfs.with_pages(SENTENCE))[0]
    assert (words(page), page.outcome) == (SENTENCE, Outcome.COMPLETE)
    assert (page.engine, page.engine_reason) == ("pdfium", "")
    assert page.engine_version


def test_the_operator_chooses_the_engine(read: Read) -> None:
    page = read(pdfs.with_pages(SENTENCE), engine=PdfEngine.PYPDF)[0]
    assert words(page) == SENTENCE
    assert (page.engine, page.engine_reason) == ("pypdf", "chosen by the operator")
    assert page.width_points == pytest.approx(595, abs=1)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(pdf_faults.without_a_unicode_map(SENTENCE, SENTENCE), id="glyph numbers"),
        pytest.param(pdf_faults.with_a_private_unicode_map(SENTENCE), id="private characters"),
    ],
)
def test_text_that_no_engine_maps_is_not_stored_and_needs_ocr(content: bytes, read: Read) -> None:
    page = read(content)[0]
    assert (page.text, page.outcome) == ("", Outcome.NEEDS_OCR)
    assert page.reason == "The fonts of the page do not say which characters they show."


def test_codes_of_glyphs_that_form_words_are_text(read: Read) -> None:
    page = read(pdf_faults.with_numbered_glyphs(SENTENCE))[0]
    assert (words(page), page.outcome, page.engine) == (SENTENCE, Outcome.COMPLETE, "pdfium")


def test_glyph_names_are_not_text(read: Read) -> None:
    page = read(pdf_faults.with_numbered_glyphs(SENTENCE), engine=PdfEngine.PYPDF)[0]
    assert (page.text, page.outcome) == ("", Outcome.NEEDS_OCR)


def test_chinese_without_a_unicode_map_is_read(read: Read) -> None:
    page = read(pdf_faults.without_a_font_map_in_chinese())[0]
    assert (page.text, page.outcome) == ("我们都是黑体字", Outcome.COMPLETE)


def test_a_scan_needs_ocr(read: Read) -> None:
    page = read(pdf_faults.scan())[0]
    assert (page.text, page.outcome) == ("", Outcome.NEEDS_OCR)
    assert page.reason


def test_a_scan_with_a_stamp_needs_ocr_and_keeps_the_stamp(read: Read) -> None:
    page = read(pdf_faults.scan(stamp="Received 3 May"))[0]
    assert (page.text, page.outcome) == ("Received 3 May", Outcome.NEEDS_OCR)


def test_a_scan_needs_ocr_whatever_the_engine(read: Read) -> None:
    assert read(pdf_faults.scan(), engine=PdfEngine.PYPDF)[0].outcome is Outcome.NEEDS_OCR


def test_a_scan_with_enough_text_is_read(read: Read) -> None:
    page = read(pdf_faults.scan(stamp=SENTENCE))[0]
    assert (words(page), page.outcome) == (SENTENCE, Outcome.COMPLETE)


def test_a_page_with_a_logo_is_read(read: Read) -> None:
    page = read(pdf_faults.with_a_logo("Dear Ann"))[0]
    assert (page.text, page.outcome) == ("Dear Ann", Outcome.COMPLETE)


def test_a_page_of_outlined_letters_needs_ocr(read: Read) -> None:
    assert read(pdf_faults.with_outlined_letters(200))[0].outcome is Outcome.NEEDS_OCR


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(pdfs.with_pages(""), id="blank"),
        pytest.param(pdf_faults.with_ruled_lines(), id="ruled lines"),
        pytest.param(pdf_faults.with_a_logo(""), id="a logo"),
    ],
)
def test_a_page_without_text_has_none(content: bytes, read: Read) -> None:
    page = read(content)[0]
    assert (page.text, page.outcome) == ("", Outcome.NO_TEXT)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(pdf_faults.with_an_operator_in_an_array("Grandes"), id="page"),
        pytest.param(pdf_faults.without_an_offset_of_the_table("Grandes"), id="file"),
    ],
)
def test_pdfium_reads_what_pypdf_does_not(content: bytes, read: Read) -> None:
    assert words(read(content)[0]) == "Grandes"
    with pytest.raises(DocumentCorrupt):
        read(content, engine=PdfEngine.PYPDF)


def test_a_file_with_an_owners_password_opens(read: Read) -> None:
    assert words(read(pdfs.owner_locked(SENTENCE))[0]) == SENTENCE


def test_a_file_with_an_encrypted_attachment_opens(read: Read) -> None:
    assert words(read(pdf_faults.with_an_encrypted_attachment(SENTENCE))[0]) == SENTENCE


@pytest.mark.parametrize("engine", list(PdfEngine))
def test_the_password_opens_a_file(engine: PdfEngine, read: Read) -> None:
    content = pdfs.locked(SENTENCE, opened_with=PASSWORD)
    assert words(read(content, engine=engine, password=PASSWORD)[0]) == SENTENCE


@pytest.mark.parametrize("engine", list(PdfEngine))
@pytest.mark.parametrize("password", [None, "", "wrong"])
def test_a_file_without_its_password_is_encrypted(
    engine: PdfEngine, password: str | None, read: Read
) -> None:
    with pytest.raises(DocumentEncrypted):
        read(pdfs.locked(SENTENCE, opened_with=PASSWORD), engine=engine, password=password)


def test_a_file_that_needs_no_password_opens_with_any(read: Read) -> None:
    assert words(read(pdfs.with_pages(SENTENCE), password=PASSWORD)[0]) == SENTENCE


@pytest.mark.parametrize("engine", list(PdfEngine))
def test_a_page_with_too_much_text_is_cut_and_says_so(
    engine: PdfEngine, read: Read, limits: ReadingLimits
) -> None:
    small = replace(limits, page_characters=4)
    page = read(pdfs.page_of_text(b"0123456789"), engine=engine, limits=small)[0]
    assert (page.text, page.outcome) == ("0123", Outcome.LIMIT_PAGE_TEXT)
    assert "4 characters" in page.reason


def test_a_string_that_pdfium_cuts_is_read_by_pypdf(read: Read) -> None:
    page = read(pdfs.page_of_text(b"words " * 10_000))[0]
    assert (page.engine, page.outcome) == ("pypdf", Outcome.COMPLETE)
    assert len(page.text.split()) == 10_000


def test_a_string_that_only_pdfium_reads_is_flagged_as_cut(read: Read) -> None:
    page = read(pdfs.page_of_text(b"words " * 10_000), engine=PdfEngine.PDFIUM)[0]
    assert page.outcome is Outcome.LIMIT_PAGE_TEXT
    assert len(page.text) > 30_000


def test_a_long_page_that_is_whole_is_not_flagged(read: Read) -> None:
    line = b"(a line of ordinary words) Tj 0 -12 Td "
    content = pdfs.with_page_contents(b"BT /F1 9 Tf 72 700 Td " + line * 1_500 + b"ET")
    page = read(content)[0]
    assert (page.engine, page.outcome) == ("pdfium", Outcome.COMPLETE)


def test_a_page_of_many_vectors_is_read(read: Read) -> None:
    page = read(pdfs.page_of_tokens(700_000))[0]
    assert (words(page), page.outcome) == ("end", Outcome.COMPLETE)


def test_form_values_are_in_the_text_and_marked(read: Read) -> None:
    page = read(pdf_faults.with_fields("Name:", b"/FT/Tx/V(Ann)", b"/FT/Tx/V(Two\nlines)"))[0]
    assert page.text.startswith("Name: Ann\n")
    assert marked(page) == [(SpanKind.FORM_FIELD, "Ann"), (SpanKind.FORM_FIELD, "Two\nlines")]


def test_a_document_of_forms_has_their_text(read: Read) -> None:
    certificate = b"/FT/Tx/V(This certificate is not an insurance policy.)"
    page = read(pdf_faults.with_fields("", certificate))[0]
    assert page.outcome is Outcome.COMPLETE
    assert page.text == "This certificate is not an insurance policy."


def test_a_choice_shows_its_label(read: Read) -> None:
    page = read(pdf_faults.with_fields("Country:", b"/FT/Ch/Ff 131072/Opt[[(de)(Germany)]]/V(de)"))
    assert marked(page[0]) == [(SpanKind.FORM_FIELD, "Germany")]


def test_a_checked_box_is_marked_and_an_unchecked_one_is_not(read: Read) -> None:
    states = b"/AP<</N<</On 5 0 R/Off 5 0 R>>>>"
    page = read(
        pdf_faults.with_fields(
            "Agreed:", b"/FT/Btn/V/On/AS/On" + states, b"/FT/Btn/V/Off/AS/Off" + states
        )
    )[0]
    assert page.text == "Agreed: ☒"


@pytest.mark.parametrize(
    "field",
    [
        pytest.param(b"/FT/Tx/Ff 8192/V(secret)", id="password"),
        pytest.param(b"/FT/Tx/F 2/V(secret)", id="hidden"),
        pytest.param(b"/FT/Tx/F 32/V(secret)", id="not viewed"),
        pytest.param(b"/FT/Tx/Rect[0 0 0 0]/V(secret)", id="without a size"),
        pytest.param(b"/FT/Tx/Rect[900 900 999 999]/V(secret)", id="outside"),
    ],
)
def test_what_a_form_does_not_show_is_not_text(field: bytes, read: Read) -> None:
    assert read(pdf_faults.with_fields("Name:", field))[0].text == "Name:"


def test_text_written_onto_a_page_is_text_and_comments_are_not(read: Read) -> None:
    notes = [pdf_faults.comment("a comment"), pdf_faults.free_text("written here")]
    hidden = pdf_faults.free_text("hidden", flags=2)
    page = read(pdf_faults.with_fields("Name:", annotations=[*notes, hidden]))[0]
    assert page.text == "Name:\nwritten here"
    assert marked(page) == [(SpanKind.ANNOTATION, "written here")]


BROKEN = {
    "empty": (pdfs.empty(), DocumentEmpty),
    "without pages": (pdfs.without_pages(), DocumentEmpty),
    "not a PDF": (pdfs.not_a_pdf(), DocumentCorrupt),
    "truncated": (pdfs.truncated(), DocumentCorrupt),
    "garbage": (pdfs.garbage(100_000), DocumentCorrupt),
    "page tree loop": (pdfs.with_a_page_tree_loop(), DocumentCorrupt),
    "locked": (pdfs.locked("x", opened_with="pw"), DocumentEncrypted),
    "unknown handler": (pdfs.encrypted_by_an_unknown_handler(), DocumentEncrypted),
}


@pytest.mark.parametrize(("content", "error"), BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("engine", [PdfEngine.AUTO, PdfEngine.PYPDF])
def test_a_broken_file_fails_with_its_error(
    engine: PdfEngine, content: bytes, error: type[DocumentError], read: Read
) -> None:
    with pytest.raises(error):
        read(content, engine=engine)


@pytest.fixture
def failures(read: Read) -> list[str]:
    """What clients read about each broken file and each engine."""
    said = []
    files = [content for content, _ in BROKEN.values()]
    more = [
        pdfs.nested_arrays(200_000),
        pdfs.flate_bomb(80 * pdfs.MB),
        pdfs.unicode_map_bomb(80 * pdfs.MB),
        pdfs.with_a_bad_page("one"),
        pdf_faults.with_an_operator_in_an_array("a"),
        pdf_faults.scan(),
        pdf_faults.without_a_unicode_map(SENTENCE),
    ]
    for content in [*files, *more]:
        for engine in PdfEngine:
            try:
                said += [page.reason for page in read(content, engine=engine)]
            except DocumentError as error:
                said.append(str(error))
    return said


def test_a_reason_has_no_words_of_a_library(failures: list[str]) -> None:
    assert len(failures) > 40
    for said in failures:
        assert not [
            word
            for word in (
                "pypdf",
                "pdfium",
                "fontTools",
                "pip ",
                "Error",
                "0x",
                "object at",
                "::",
                "/",
            )
            if word.lower() in said.lower()
        ], said


def test_the_other_extractor_reads_without_native_code(
    tmp_path: Path, limits: ReadingLimits
) -> None:
    path = tmp_path / "document.pdf"
    path.write_bytes(pdfs.with_pages(SENTENCE))
    with PdfExtractor().other().open(path, limits=limits, password=None) as document:
        page = document.page(1)
    assert (words(page), page.engine) == (SENTENCE, "pypdf")


def test_a_page_that_one_engine_leaves_out_is_not_taken_for_the_next(
    tmp_path: Path, limits: ReadingLimits
) -> None:
    path = tmp_path / "document.pdf"
    path.write_bytes(pdfs.with_a_missing_page("first", "third"))
    with PdfExtractor().open(path, limits=limits, password=None) as document:
        assert [words(document.page(number)) for number in (1, 3)] == ["first", "third"]
        with pytest.raises(DocumentCorrupt):
            document.page(2)


def test_a_page_whose_content_is_damaged_is_not_a_blank_page(
    tmp_path: Path, limits: ReadingLimits
) -> None:
    path = tmp_path / "document.pdf"
    path.write_bytes(pdfs.with_a_deflated_page(b"not deflated"))
    with (
        PdfExtractor().open(path, limits=limits, password=None) as document,
        pytest.raises(DocumentCorrupt),
    ):
        document.page(1)


@pytest.mark.parametrize("engine", PdfEngine)
def test_a_page_of_impossible_size_has_text_and_a_size_that_can_be_stored(
    engine: PdfEngine, read: Read
) -> None:
    side = 10**43
    (page,) = read(
        drawn_pdfs.pdf([Shown(text=SENTENCE, x=72, y=700)], width=side, height=side), engine=engine
    )
    assert page.text.strip() == SENTENCE
    assert page.width_points is None or page.width_points < 1e38  # the largest `real`
