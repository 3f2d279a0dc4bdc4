import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.ingest.errors import DocumentCorrupt, DocumentLimitExceeded
from pipeline.ingest.extractors.extractor import OutlineItem
from pipeline.ingest.extractors.html import HtmlExtractor
from pipeline.ingest.sandbox.limits import ReadingLimits
from schemas.outcomes import Outcome
from tests.factories.documents import Extracted, extract
from tests.factories.reading_limits import READING_LIMITS


def read(
    tmp_path: Path, content: bytes | str, *, limits: ReadingLimits = READING_LIMITS
) -> Extracted:
    file = tmp_path / "page.html"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return extract(HtmlExtractor(), file, limits=limits)


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("<p>one <b>two</b>three</p><p>four", "one twothree\n\nfour"),
        ("<div>one</div><div>two</div>three", "one\ntwo\nthree"),
        ("one<br>two<br><br>three", "one\ntwo\n\nthree"),
        ("  one \n\t two<span> </span>three ", "one two three"),
        ("<ul><li>one<li>two<ul><li>three</ul></ul>four", "one\ntwo\n\nthree\n\nfour"),
        ("<pre>  a\n    b <i>c</i> <b>d</b></pre>e", "  a\n    b c d\n\ne"),
        ("a&nbsp;b &lt;c&gt; &auml;&#x5d0;", "a b <c> äא"),
        ("<h1>one</h1>two<hr>three", "one\n\ntwo\n\nthree"),
        ("<dl><dt>a<dd>b<dt>c<dd>d</dl>", "a\nb\nc\nd"),
        ("a<wbr>b<!-- no -->c", "abc"),
    ],
)
def test_blocks_become_lines(tmp_path: Path, markup: str, text: str) -> None:
    assert read(tmp_path, markup).text == text


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ("<tr><th>a<th>b<tr><td>1<td>2", "a\tb\n1\t2"),
        ("<tr><td><p>a</p></td><td><p>b</p></td></tr><tr><td>c", "a\tb\nc"),
        ("<tr><td></td><td>b</td></tr><tr><td>c</td><td></td></tr><tr><td>d", "\tb\nc\nd"),
        ("<tr><td>a<td><td>c", "a\t\tc"),
    ],
)
def test_rows_become_lines_with_tabs(tmp_path: Path, rows: str, text: str) -> None:
    found = read(tmp_path, f"x<table>{rows}</table>y").text

    assert found == f"x\n\n{text}\n\ny"


@pytest.mark.parametrize(
    "hidden",
    [
        "<script>no</script>",
        "<style>no</style>",
        "<noscript>no</noscript>",
        "<template>no</template>",
        "<p hidden>no</p>",
        '<p style="color: red; display : none">no</p>',
        "<span style='visibility:hidden'>no</span>",
        "<input type=hidden value=no>",
        "<svg><text>no</text></svg>",
        "<dialog>no</dialog>",
        "<select><option>no</select>",
    ],
)
def test_invisible_content_is_left_out(tmp_path: Path, hidden: str) -> None:
    assert read(tmp_path, f"<p>seen {hidden}too").text.split() == ["seen", "too"]


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
def test_a_page_is_read_in_any_language(tmp_path: Path, sentence: str) -> None:
    assert read(tmp_path, f"<meta charset=utf-8><p>{sentence}").text == sentence


@pytest.mark.parametrize(
    ("declaration", "encoding"),
    [
        ("<meta charset=ISO-8859-1>", "cp1252"),
        ('<META http-equiv="Content-Type" content="text/html; charset=windows-1252">', "cp1252"),
        ('<?xml version="1.0" encoding="ISO-8859-15"?>', "iso8859-15"),
        ("<meta charset=utf-16>", "utf-8"),
        ("<meta charset=base64>", "utf-8"),
        ("<meta charset=no-such-encoding>", "utf-8"),
        ("", "utf-16"),
    ],
)
def test_the_declared_encoding_is_used_unless_the_bytes_contradict(
    tmp_path: Path, declaration: str, encoding: str
) -> None:
    content = f"{declaration}<html><p>Preis: 5 € für Größe".encode(encoding)

    assert read(tmp_path, content).text == "Preis: 5 € für Größe"


def test_the_title_and_the_named_values_are_metadata(tmp_path: Path) -> None:
    metadata = read(
        tmp_path,
        "<html lang=de-AT><title> Ein \n Titel </title><meta name=Author content='Eva Müller'>"
        "<meta name=keywords content='a, b'><meta name=description content=Kurz>"
        "<meta property=article:published_time content=2024-03-01T08:30:00Z><p>Text",
    ).structure.metadata

    assert metadata.title == "Ein Titel"
    assert (metadata.author, metadata.keywords, metadata.subject) == ("Eva Müller", "a, b", "Kurz")
    assert metadata.created == datetime(2024, 3, 1, 8, 30, tzinfo=UTC)
    assert metadata.extra["language"] == "de-AT"


def test_headings_make_the_outline(tmp_path: Path) -> None:
    found = read(tmp_path, "<h1>One <i>two</i></h1>" + "<p>words</p>" * 1_000 + "<h2>Three</h2>x")

    assert found.structure.outline == (
        OutlineItem(title="One two", level=0, page=1),
        OutlineItem(title="Three", level=1, page=found.page_count),
    )
    assert "Three" in found.pages[-1].text


def test_binary_content_is_not_html(tmp_path: Path) -> None:
    with pytest.raises(DocumentCorrupt):
        read(tmp_path, b"<html>" + bytes(range(256)) * 10)


def test_truncated_markup_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, "<html><body><div><p>one<p>two<a href='x").text == "one\n\ntwo"


def test_a_page_without_text_has_the_outcome_no_text(tmp_path: Path) -> None:
    (page,) = read(tmp_path, "<html><body><script>x</script></body></html>").pages

    assert page.outcome is Outcome.NO_TEXT


@pytest.mark.parametrize(
    "tags",
    ["<div>", "<b>", "<a href=x>", "<table>", "<select><optgroup><option>", "<svg><td>", "<font>x"],
)
def test_deep_markup_is_read_in_little_time(tmp_path: Path, tags: str) -> None:
    markup = tags * (200_000 // tags.count("<"))
    began = time.process_time()

    read(tmp_path, f"{markup}x")

    assert time.process_time() - began < 5  # the parser alone takes minutes


@pytest.mark.parametrize("begin", ["<a", "<a x=", "</a ", "<a<b "])
def test_tags_without_an_end_are_read_in_little_time(tmp_path: Path, begin: str) -> None:
    began = time.process_time()

    read(tmp_path, begin * 100_000)

    assert time.process_time() - began < 5


def test_comparisons_in_a_script_are_no_tags(tmp_path: Path) -> None:
    script = "<script>" + "if (a<b && c<d) e();" * 600 + "</script>"

    markup = f"{script}<style>p {{ color: red }}</style><p>One<p hidden>Two<p>Three"

    assert read(tmp_path, markup).text == "One\n\nThree"


def test_the_text_of_deep_elements_is_kept(tmp_path: Path) -> None:
    assert read(tmp_path, "<div>" * 5_000 + "deep" + "</div>" * 5_000 + "<p>after").text == (
        "deep\n\nafter"
    )


def test_too_many_elements_are_refused(tmp_path: Path) -> None:
    limits = replace(READING_LIMITS, markup_elements=1_000)

    with pytest.raises(DocumentLimitExceeded, match="more than 1000 elements"):
        read(tmp_path, "<br>" * 2_000, limits=limits)


def test_markup_beyond_the_limit_is_left_out(tmp_path: Path) -> None:
    (page,) = read(
        tmp_path, "<p>word</p>" * 100, limits=replace(READING_LIMITS, markup_bytes=550)
    ).pages

    assert page.text.split() == ["word"] * 50
    assert page.outcome is Outcome.LIMIT_PAGE_CONTENT


def test_text_beyond_the_limit_is_left_out(tmp_path: Path) -> None:
    limits = replace(READING_LIMITS, text_bytes=1_000)

    page = read(tmp_path, "<p>word</p>" * 1_000, limits=limits).pages[-1]

    assert page.outcome is Outcome.LIMIT_TEXT
    assert len(page.text) <= 1_000
