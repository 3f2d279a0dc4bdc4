from pathlib import Path

import pytest

from pipeline.ingest.extractors.pdf import hyphens
from tests.factories import pdfs
from tests.unit.pipeline.ingest.extractors.pdf.reading import (
    lines_of,
    paragraph,
    read,
    read_file,
)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (("This is an exam-", "ple of a word."), "This is an example\nof a word."),
        (("a soft hyphen di\u00ad", "vides"), "a soft hyphen divides"),
        (("the family of Jean-", "Paul is here"), "the family of Jean-Paul\nis here"),
        (("a US-", "based company"), "a US-based\ncompany"),
        (("state-of-", "the-art things"), "state-of-the-art\nthings"),
        (("a well-", "known thing"), "a well-known\nthing"),
        (("pages 10-", "20 of it"), "pages 10-\n20 of it"),
        (("Vor-", "und Nachteile"), "Vor-\nund Nachteile"),
        (("in GROSS-", "BUCHSTABEN gesetzt"), "in GROSSBUCHSTABEN\ngesetzt"),
        (("see example.org/a-", "page for it"), "see example.org/a-page\nfor it"),
        (("cost-benefit and cost-", "benefit again"), "cost-benefit and cost-benefit\nagain"),
        (("a hyphen at the end-",), "a hyphen at the end-"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-",
)
def test_a_divided_word_is_joined_in_its_first_line(
    tmp_path: Path, lines: tuple[str, ...], text: str
) -> None:
    content = read(tmp_path, *paragraph(*lines))
    assert content.text == text
    assert lines_of(content) == text.split("\n")


def test_a_word_is_joined_on_a_page_whose_characters_pdfium_leaves_out(tmp_path: Path) -> None:
    content = pdfs.with_page_contents(
        b"BT /F1 12 Tf 72 700 Td (A code \\003 without a character, an exam-) Tj 0 -14 Td (ple of it) Tj ET"
    )
    assert read_file(tmp_path, content).text == "A code without a character, an example\nof it"


def test_a_hyphen_before_a_line_far_below_divides_no_word(tmp_path: Path) -> None:
    shown = [*paragraph("A line that ends with plain-"), *paragraph("far away", y=400)]
    assert read(tmp_path, *shown).text == "A line that ends with plain-\nfar away"


@pytest.mark.parametrize(
    ("head", "tail"), [("grade A-", "below"), ("a -", "b"), ("10-", "fold"), ("", "word")]
)
def test_a_dash_divides_no_word(head: str, tail: str) -> None:
    assert not hyphens.is_divided(head, tail)
