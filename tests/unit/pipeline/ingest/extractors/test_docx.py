import zipfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from lxml import etree

from pipeline.ingest.errors import DocumentCorrupt, DocumentEncrypted, DocumentLimitExceeded
from pipeline.ingest.extractors.docx import DocxExtractor
from pipeline.ingest.extractors.extractor import OutlineItem, Span, SpanKind
from schemas.outcomes import Outcome
from tests.factories.documents import Extracted, extract
from tests.factories.docx import CORE, paragraph, run, story, table, write_docx
from tests.factories.reading_limits import READING_LIMITS

PAGE_BREAK = '<w:r><w:br w:type="page"/></w:r>'
RENDERED_BREAK = "<w:r><w:lastRenderedPageBreak/></w:r>"


def read(tmp_path: Path, body: str, **parts: str) -> Extracted:
    return extract(DocxExtractor(), write_docx(tmp_path / "a.docx", body, parts=parts))


@pytest.mark.parametrize(
    "sentence",
    [
        "Die Prüfung ergab größere Beträge.",
        "本契約は甲と乙の間で締結された。",
        "הסכם זה נחתם בין הצדדים.",
        "تم إبرام هذا العقد بين الطرفين.",
    ],
    ids=["German", "Japanese", "Hebrew", "Arabic"],
)
def test_a_paragraph_is_read_in_any_language(tmp_path: Path, sentence: str) -> None:
    assert read(tmp_path, paragraph(sentence)).text == sentence


def test_paragraphs_are_separated_by_empty_lines(tmp_path: Path) -> None:
    body = paragraph("One") + paragraph("") + paragraph("Two")

    assert read(tmp_path, body).text == "One\n\nTwo"


def test_runs_tabs_and_line_breaks_stay_in_their_paragraph(tmp_path: Path) -> None:
    body = (
        '<w:p><w:pPr><w:tabs><w:tab w:val="left" w:pos="720"/></w:tabs></w:pPr>'
        f"{run('one ')}{run('two')}<w:r><w:tab/></w:r>{run('three')}<w:r><w:br/></w:r>{run('four')}"
        f"<w:r><w:noBreakHyphen/></w:r>{run('five')}</w:p>"
    )

    assert read(tmp_path, body).text == "one two\tthree\nfour\u2011five"


def test_a_table_becomes_lines_with_tabs(tmp_path: Path) -> None:
    body = (
        paragraph("Before") + table(("Item", "Price"), ("Pen", "3"), ("", "4")) + paragraph("After")
    )

    assert read(tmp_path, body).text == "Before\n\nItem\tPrice\nPen\t3\n\t4\n\nAfter"


def test_a_table_inside_a_cell_stays_in_its_row(tmp_path: Path) -> None:
    inner = table(("a", "b"), ("c", "d"))
    body = f"<w:tbl><w:tr><w:tc>{paragraph('x')}{inner}</w:tc><w:tc>{paragraph('y')}</w:tc></w:tr></w:tbl>"

    assert read(tmp_path, body).text == "x a b c d\ty"


def test_a_text_box_is_read_once_and_after_its_paragraph(tmp_path: Path) -> None:
    box = f"<w:txbxContent>{paragraph('In the box')}</w:txbxContent>"
    body = (
        f"<w:p>{run('An')}<w:r><mc:AlternateContent><mc:Choice Requires='wps'>{box}</mc:Choice>"
        f"<mc:Fallback>{box}</mc:Fallback></mc:AlternateContent></w:r>{run('chor')}</w:p>"
        + paragraph("Next")
    )

    assert read(tmp_path, body).text == "Anchor\n\nIn the box\n\nNext"


def test_deleted_moved_and_hidden_text_is_left_out(tmp_path: Path) -> None:
    body = (
        f"<w:p><w:ins>{run('new ')}</w:ins><w:del><w:r><w:delText>old</w:delText></w:r></w:del>"
        f"<w:moveFrom>{run('moved')}</w:moveFrom>"
        "<w:r><w:rPr><w:vanish/></w:rPr><w:t>hidden</w:t></w:r>"
        '<w:r><w:rPr><w:vanish w:val="0"/></w:rPr><w:t>shown</w:t></w:r></w:p>'
    )

    assert read(tmp_path, body).text == "new shown"


def test_the_instructions_of_a_field_are_left_out(tmp_path: Path) -> None:
    body = (
        '<w:p><w:r><w:fldChar w:fldCharType="begin"/></w:r>'
        '<w:r><w:instrText> HYPERLINK "x" </w:instrText></w:r>'
        f'<w:r><w:fldChar w:fldCharType="separate"/></w:r>{run("a link")}'
        '<w:r><w:fldChar w:fldCharType="end"/></w:r></w:p>'
    )

    assert read(tmp_path, body).text == "a link"


def test_headings_make_the_outline(tmp_path: Path) -> None:
    body = (
        paragraph("Einleitung", style="berschrift1")
        + paragraph("Text")
        + f"<w:p>{PAGE_BREAK}</w:p>"
        + paragraph("Ziele", style="Sub")
        + paragraph("Mittel", style="Derived")
        + paragraph("Anhang", properties='<w:outlineLvl w:val="2"/>')
    )

    assert read(tmp_path, body).structure.outline == (
        OutlineItem(title="Einleitung", level=0, page=1),
        OutlineItem(title="Ziele", level=1, page=2),
        OutlineItem(title="Mittel", level=0, page=2),
        OutlineItem(title="Anhang", level=2, page=2),
    )


@pytest.mark.parametrize(
    "body",
    [
        f"<w:p>{run('One')}{PAGE_BREAK}{run('Two')}</w:p>",
        f"<w:p>{run('One')}{PAGE_BREAK}</w:p><w:p>{RENDERED_BREAK}{run('Two')}</w:p>",
        paragraph("One") + f"<w:p>{RENDERED_BREAK}{run('Two')}</w:p>",
        paragraph("One") + paragraph("Two", properties="<w:pageBreakBefore/>"),
        paragraph("One", properties="<w:sectPr/>") + f"<w:p>{RENDERED_BREAK}{run('Two')}</w:p>",
        "<w:tbl><w:tr><w:tc><w:p>" + run("One") + PAGE_BREAK + "</w:p></w:tc></w:tr></w:tbl>" + paragraph("Two"),
    ],
    ids=["explicit", "explicit and rendered", "rendered", "before a paragraph", "section", "table"],
)  # fmt: skip
def test_a_page_break_begins_one_page(tmp_path: Path, body: str) -> None:
    assert [page.text for page in read(tmp_path, body).pages] == ["One", "Two"]


def test_a_continuous_section_begins_no_page(tmp_path: Path) -> None:
    section = '<w:sectPr><w:type w:val="continuous"/></w:sectPr>'
    body = paragraph("One", properties=section) + paragraph("Two")

    assert read(tmp_path, body).text == "One\n\nTwo"


def test_a_page_with_a_picture_alone_is_a_page(tmp_path: Path) -> None:
    body = f"<w:p>{run('One')}{PAGE_BREAK}<w:r><w:drawing/></w:r>{PAGE_BREAK}{run('Three')}</w:p>"

    pages = read(tmp_path, body).pages

    assert [page.text for page in pages] == ["One", "", "Three"]
    assert [page.outcome for page in pages] == [Outcome.COMPLETE, Outcome.NO_TEXT, Outcome.COMPLETE]


def test_headers_and_footers_are_read_once_and_marked(tmp_path: Path) -> None:
    page_number = f'<w:fldSimple w:instr=" PAGE ">{run("7")}</w:fldSimple>'
    footer = story("ftr", f"<w:p>{run('Seite ')}{page_number}</w:p>")
    header = story("hdr", paragraph("Vertraulich"))

    page = read(tmp_path, paragraph("Text"), header1=header, header2=header, footer1=footer).pages[
        0
    ]

    assert page.text == "Vertraulich\n\nText\n\nSeite"
    assert page.spans == (Span(SpanKind.HEADER, 0, 11), Span(SpanKind.FOOTER, 19, 24))


def test_notes_follow_the_paragraph_that_refers_to_them(tmp_path: Path) -> None:
    notes = story(
        "footnotes",
        f'<w:footnote w:type="separator" w:id="0">{paragraph("---")}</w:footnote>'
        f'<w:footnote w:id="2">{paragraph("See annex.")}</w:footnote>',
    )
    body = (
        f'<w:p>{run("A claim")}<w:r><w:footnoteReference w:id="2"/></w:r>{run(".")}</w:p>'
        + paragraph("Next")
    )

    assert read(tmp_path, body, footnotes=notes).text == "A claim[1].\n\n[1] See annex.\n\nNext"


def test_core_properties_become_metadata(tmp_path: Path) -> None:
    file = write_docx(tmp_path / "a.docx", paragraph("Text"), core=CORE)

    metadata = extract(DocxExtractor(), file).structure.metadata

    assert metadata.title == "Jahresbericht"
    assert metadata.author == "Jürgen Müller"
    assert metadata.created == datetime(2024, 3, 1, 8, 30, tzinfo=UTC)
    assert metadata.extra == {"last_modified_by": "Eva"}


def test_embedded_files_are_listed(tmp_path: Path) -> None:
    file = write_docx(tmp_path / "a.docx", paragraph("Text"))
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("word/embeddings/Tabelle1.xlsx", b"12345")

    (attachment,) = extract(DocxExtractor(), file).structure.attachments

    assert (attachment.name, attachment.size_bytes) == ("Tabelle1.xlsx", 5)


def test_a_main_part_with_another_name_is_found(tmp_path: Path) -> None:
    file = tmp_path / "a.docx"
    other = tmp_path / "b.docx"
    write_docx(file, paragraph("Text"))
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(other, "w") as renamed:
        for name in archive.namelist():
            content = archive.read(name).replace(b"word/document.xml", b"word/document2.xml")
            renamed.writestr(name.replace("word/document.xml", "word\\Document2.xml"), content)

    assert extract(DocxExtractor(), other).text == "Text"


def test_damage_beside_the_text_is_a_warning(tmp_path: Path) -> None:
    found = read(tmp_path, paragraph("Text"), header1="<w:hdr>", footnotes="no XML")

    assert found.text == "Text"
    assert found.warnings == 2


def test_a_document_whose_notes_are_damaged_is_not_complete(tmp_path: Path) -> None:
    (page,) = read(tmp_path, paragraph("Text"), footnotes="no XML").pages
    assert (page.text, page.outcome) == ("Text", Outcome.CORRUPT)

    (page,) = read(tmp_path, paragraph("Text"), styles="no XML").pages
    assert page.outcome is Outcome.COMPLETE


def test_a_document_of_pictures_alone_needs_ocr(tmp_path: Path) -> None:
    picture = "<w:p><w:r><w:drawing/></w:r></w:p>"
    (page,) = read(tmp_path, picture).pages
    assert page.outcome is Outcome.NEEDS_OCR

    (page,) = read(tmp_path, picture + paragraph("Text")).pages
    assert page.outcome is Outcome.COMPLETE


def test_a_document_without_text_has_one_page_without_text(tmp_path: Path) -> None:
    (page,) = read(tmp_path, paragraph("")).pages

    assert page.outcome is Outcome.NO_TEXT


def test_text_beyond_the_limit_is_left_out(tmp_path: Path) -> None:
    file = write_docx(tmp_path / "a.docx", paragraph("word " * 100) * 100)

    page = extract(DocxExtractor(), file, limits=replace(READING_LIMITS, text_bytes=1_000)).pages[
        -1
    ]

    assert page.outcome is Outcome.LIMIT_TEXT
    assert len(page.text) <= 1_000


def test_an_encrypted_document_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.docx"
    file.write_bytes(
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2_000) + "EncryptedPackage".encode("utf-16-le")
    )

    with pytest.raises(DocumentEncrypted):
        extract(DocxExtractor(), file)


def test_an_older_format_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.docx"
    file.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2_000))

    with pytest.raises(DocumentCorrupt):
        extract(DocxExtractor(), file)


def test_an_archive_without_a_document_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.docx"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("notes.txt", "x")

    with pytest.raises(DocumentCorrupt):
        extract(DocxExtractor(), file)


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_truncated_document_is_damaged(tmp_path: Path, kept: float) -> None:
    file = write_docx(tmp_path / "a.docx", paragraph("Text"))
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept)])

    with pytest.raises(zipfile.BadZipFile):
        extract(DocxExtractor(), file)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    file = write_docx(tmp_path / "a.docx", paragraph("x") * 100_000)
    limits = replace(READING_LIMITS, archive_bytes=1_000_000)
    assert file.stat().st_size < 100_000

    with pytest.raises(DocumentLimitExceeded, match="unpacks to more than 1000000 bytes"):
        extract(DocxExtractor(), file, limits=limits)


def with_entities(tmp_path: Path, *, entities: str, content: str) -> Path:
    file = write_docx(tmp_path / "plain.docx", paragraph("Text"))
    other = tmp_path / "a.docx"
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(other, "w") as changed:
        for name in archive.namelist():
            part = archive.read(name).decode()
            if name == "word/document.xml":
                part = f"<!DOCTYPE x [{entities}]>" + part.replace("Text", content)
            changed.writestr(name, part)
    return other


def test_entities_that_multiply_are_refused(tmp_path: Path) -> None:
    laughs = "".join(f'<!ENTITY l{number} "{f"&l{number - 1};" * 10}">' for number in range(1, 10))
    entities = f'<!ENTITY l0 "lol">{laughs}'

    with pytest.raises(etree.XMLSyntaxError):
        extract(DocxExtractor(), with_entities(tmp_path, entities=entities, content="&l9;"))


def test_an_external_entity_is_not_fetched(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    entities = f'<!ENTITY f SYSTEM "{secret.as_uri()}">'

    file = with_entities(tmp_path, entities=entities, content="a&f;b")

    assert "secret" not in extract(DocxExtractor(), file).text


def test_a_deep_tree_is_refused(tmp_path: Path) -> None:
    file = write_docx(tmp_path / "a.docx", "<w:sdt>" * 100_000 + "</w:sdt>" * 100_000)

    with pytest.raises(etree.XMLSyntaxError):
        extract(DocxExtractor(), file)
