from pathlib import Path

import pytest

from pipeline.ingest.extractors.pdf import page_text
from tests.factories import pdfs
from tests.factories.drawn_pdfs import A4_HEIGHT, Shown, pdf
from tests.unit.pipeline.ingest.extractors.pdf.reading import (
    lines_of,
    paragraph,
    read,
    read_file,
)


def test_lines_have_offsets_and_boxes(tmp_path: Path) -> None:
    content = read(tmp_path, *paragraph("First line.", "Second, longer line."))
    assert content.text == "First line.\nSecond, longer line."
    assert lines_of(content) == ["First line.", "Second, longer line."]
    first, second = content.lines
    assert first.left in range(71, 76)
    assert A4_HEIGHT - 700 - 12 < first.top < first.bottom < A4_HEIGHT - 700 + 5
    assert first.bottom < second.bottom == pytest.approx(first.bottom + 14, abs=3)
    assert second.right > first.right


@pytest.mark.parametrize(("degrees", "left", "top"), [(0, 72, 132), (90, 700, 72)])
def test_boxes_are_those_of_the_page_as_displayed(
    tmp_path: Path, degrees: int, left: int, top: int
) -> None:
    content = read_file(tmp_path, pdf([Shown(text="Turned")], entries=b"/Rotate %d" % degrees))
    assert content.lines[0].left == pytest.approx(left, abs=4)
    assert content.lines[0].top == pytest.approx(top, abs=4)


@pytest.mark.parametrize("degrees", [180, 270])
def test_a_page_that_is_displayed_upside_down_has_its_start_at_the_other_end(
    tmp_path: Path, degrees: int
) -> None:
    content = read_file(tmp_path, pdf([Shown(text="Turned")], entries=b"/Rotate %d" % degrees))
    box = content.lines[0]
    # Baseline at 700 from the lower edge, start at 72 from the left edge of the page in the file.
    assert (box.right if degrees == 180 else box.bottom) == pytest.approx(595 - 72, abs=4)
    assert (box.top if degrees == 180 else box.left) == pytest.approx(
        700 if degrees == 180 else A4_HEIGHT - 700 - 12, abs=4
    )


def test_boxes_are_measured_from_the_crop_box(tmp_path: Path) -> None:
    content = read_file(tmp_path, pdf([Shown(text="Cropped")], entries=b"/CropBox[50 100 500 750]"))
    assert content.lines[0].left == pytest.approx(22, abs=4)
    assert content.lines[0].top == pytest.approx(750 - 700 - 10, abs=4)


def test_an_empty_line_separates_blocks(tmp_path: Path) -> None:
    content = read(
        tmp_path,
        Shown(text="A heading", y=760, size=20),
        *paragraph("The first paragraph", "goes on here.", y=700),
        *paragraph("The second one", "as well.", y=650),
    )
    assert content.text == (
        "A heading\n\nThe first paragraph\ngoes on here.\n\nThe second one\nas well."
    )


def test_a_sentence_that_goes_on_in_the_next_column_is_not_divided(tmp_path: Path) -> None:
    content = read(
        tmp_path,
        *paragraph("One column ends", "in the middle", x=72),
        *paragraph("of a sentence.", "Then it goes on.", x=320),
    )
    assert content.text == ("One column ends\nin the middle\nof a sentence.\nThen it goes on.")


def test_offsets_survive_cleaning(tmp_path: Path) -> None:
    content = read(
        tmp_path,
        *paragraph("of\u0001ce \u0002le", "The next\u00a0line", "The last  line"),
        unicode_values={"\u0001": "\ufb01", "\u0002": "\ufb02"},
    )
    assert content.text == "ofﬁce ﬂle\nThe next line\nThe last line".replace("ﬁ", "fi").replace(
        "ﬂ", "fl"
    )
    assert lines_of(content) == content.text.split("\n")


def test_text_beyond_the_basic_plane_has_right_offsets(tmp_path: Path) -> None:
    content = read(
        tmp_path,
        *paragraph("A smile * here", "and a line"),
        unicode_values={"*": "\N{GRINNING FACE}"},
    )
    assert content.text == "A smile \N{GRINNING FACE} here\nand a line"
    assert lines_of(content) == content.text.split("\n")


def test_a_glyph_that_stands_for_a_control_character_does_not_end_a_line(tmp_path: Path) -> None:
    content = read(
        tmp_path, *paragraph("A *uantile, a !ine"), unicode_values={"*": "\r", "!": "\x00"}
    )
    assert content.text == "A uantile, a ine"


def test_chinese_and_japanese_text_is_kept(tmp_path: Path) -> None:
    content = read(tmp_path, *paragraph("我们都是黑体字", "あいうえお、標準"))
    assert content.text == "我们都是黑体字\nあいうえお、標準"


def test_words_keep_their_spaces(tmp_path: Path) -> None:
    # The gaps are moves, not characters.
    width = 0.6 * 12
    words = [
        Shown(text=word, x=72 + width * start)
        for word, start in (("23", 0), ("Main", 2.6), ("Street", 7.2))
    ]
    assert read(tmp_path, *words).text == "23 Main Street"


def test_lines_that_run_upwards_stay_lines(tmp_path: Path) -> None:
    content = read_file(
        tmp_path,
        pdfs.with_page_contents(
            b"BT /F1 12 Tf 0 1 -1 0 100 100 Tm (Sideways text here) Tj 0 -14 Td (and more) Tj ET"
        ),
    )
    assert content.text.split() == ["Sideways", "text", "here", "and", "more"]
    assert lines_of(content) == ["Sideways text here", "and more"]


def test_a_line_far_outside_of_the_page_has_a_bounded_box(tmp_path: Path) -> None:
    content = read(tmp_path, Shown(text="far away", x=900_000), Shown(text="here", y=600))
    assert content.text.split() == ["far", "away", "here"]
    assert max(line.right for line in content.lines) == 20_000


def test_japanese_that_is_written_downwards_is_read_downwards(tmp_path: Path) -> None:
    columns = ["日本語の文章", "縦書きです"]
    shown = [
        Shown(text=character, x=300 - 20 * number, y=700 - 14 * row)
        for number, column in enumerate(columns)
        for row, character in enumerate(column)
    ]
    assert read(tmp_path, *shown).text.split() == columns


def test_a_page_without_text_has_no_lines(tmp_path: Path) -> None:
    content = read(tmp_path)
    assert content.text == ""
    assert content.lines == ()


def test_text_without_places_is_cleaned_and_its_divided_words_are_joined() -> None:
    content = page_text.plain("An exam-\nple of\u00a0soft di\u00ad\nvision\x00 \nand more")
    assert content.text == "An example\nof soft division\nand more"
    assert content.lines == ()
