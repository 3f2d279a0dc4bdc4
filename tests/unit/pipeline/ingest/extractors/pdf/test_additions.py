from pipeline.ingest.extractors.extractor import Line, Span, SpanKind
from pipeline.ingest.extractors.pdf.additions import Addition, PlacedText, placed


def page_of(*lines: tuple[str, int, int]) -> PlacedText:
    """A page with lines of a text, at a left edge and a top; a letter is 6 points wide."""
    text = "\n".join(words for words, _, _ in lines)
    placed_lines = []
    start = 0
    for words, left, top in lines:
        end = start + len(words)
        placed_lines.append(Line(start, end, left, top, left + 6 * len(words), top + 12))
        start = end + 1
    return PlacedText(text=text, lines=tuple(placed_lines))


def value(text: str, *, left: int, top: int, width: int = 100, height: int = 14) -> Addition:
    return Addition(
        kind=SpanKind.FORM_FIELD,
        text=text,
        left=left,
        top=top,
        right=left + width,
        bottom=top + height,
    )


def parts(page: PlacedText) -> list[str]:
    return [page.text[span.start : span.end] for span in page.spans]


def lines(page: PlacedText) -> list[str]:
    return [page.text[line.start : line.end] for line in page.lines]


FORM = page_of(("Name:", 72, 100), ("Born:", 72, 130), ("Signed", 72, 160))


def test_a_value_ends_the_line_of_its_label() -> None:
    page = placed(FORM, [value("1963", left=120, top=129), value("Ann", left=120, top=99)])
    assert page.text == "Name: Ann\nBorn: 1963\nSigned"
    assert parts(page) == ["Ann", "1963"]
    assert lines(page) == ["Name: Ann", "Born: 1963", "Signed"]
    assert page.lines[0].right == 220


def test_values_on_one_line_go_from_left_to_right() -> None:
    page = placed(FORM, [value("Smith", left=230, top=100), value("Ann", left=120, top=101)])
    assert page.text.startswith("Name: Ann Smith\n")
    assert parts(page) == ["Ann", "Smith"]


def test_a_value_below_its_label_is_a_line_of_its_own() -> None:
    page = placed(FORM, [value("in ink", left=72, top=175)])
    assert page.text == "Name:\nBorn:\nSigned\nin ink"
    assert lines(page)[-1] == "in ink"


def test_a_value_of_several_lines_stands_on_its_own_lines() -> None:
    page = placed(FORM, [value("one\ntwo", left=120, top=115, height=14)])
    assert page.text == "Name:\none\ntwo\nBorn:\nSigned"
    assert lines(page) == ["Name:", "one", "two", "Born:", "Signed"]
    assert parts(page) == ["one\ntwo"]


def test_a_value_above_all_lines_comes_first() -> None:
    page = placed(FORM, [value("Form 7", left=72, top=20)])
    assert page.text == "Form 7\nName:\nBorn:\nSigned"
    assert lines(page)[0] == "Form 7"


def test_a_value_that_the_page_shows_already_is_left_out() -> None:
    page = page_of(("Name: Ann", 72, 100))
    assert placed(page, [value("Ann", left=100, top=99, width=30)]) == page


def test_the_only_text_of_a_page_is_its_values() -> None:
    page = placed(PlacedText(), [value("two", left=9, top=30), value("one", left=9, top=9)])
    assert page.text == "one\ntwo"
    assert (parts(page), lines(page)) == (["one", "two"], ["one", "two"])


def test_values_of_a_page_without_places_are_at_its_end() -> None:
    page = placed(PlacedText(text="Name:\n"), [value("Ann", left=120, top=99)])
    assert page.text.split() == ["Name:", "Ann"]
    assert parts(page) == ["Ann"]


def test_marks_and_lines_after_an_addition_move_with_their_text() -> None:
    header = Span(SpanKind.HEADER, 0, 5)
    footer = Span(SpanKind.FOOTER, 12, 18)
    page = PlacedText(text=FORM.text, lines=FORM.lines, spans=(header, footer))
    page = placed(page, [value("Ann", left=120, top=99)])
    assert [(span.kind, page.text[span.start : span.end]) for span in page.spans] == [
        (SpanKind.HEADER, "Name:"),
        (SpanKind.FORM_FIELD, "Ann"),
        (SpanKind.FOOTER, "Signed"),
    ]
