from datetime import date
from io import StringIO

from rich.console import Console

from dev.bench import sections
from dev.bench.sections import Section, Table

SECTION = Section(
    title="Receiving",
    question="How fast?",
    tables=[
        Table(headings=["MiB/s", "ours"], rows=[["a|b", "200"], ["c [1]", "100"]]),
        Table(title="Costs", headings=["", "CPU"], rows=[["ours", "1 s"]]),
    ],
    remarks=["Only one of them syncs."],
    plots=["receiving.svg"],
    peers={"tus": "2", "node": "20"},
    measured_on=date(2026, 1, 31),
)


def test_markdown_has_title_table_and_notes() -> None:
    page = sections.as_markdown(SECTION)

    assert page.startswith("## Receiving\n\nHow fast?\n\n![Receiving](receiving.svg)\n\n")
    assert "**Costs**\n\n|  | CPU |\n| --- | ---: |\n| ours | 1 s |\n" in page
    assert "- Only one of them syncs.\n" in page
    assert page.endswith("*Measured on 2026-01-31. Peers: node 20, tus 2.*\n")


def test_a_vertical_bar_in_a_cell_is_escaped() -> None:
    assert "| a\\|b | 200 |" in sections.as_markdown(SECTION)


def test_the_terminal_prints_cells_unescaped() -> None:
    out = StringIO()

    Console(file=out, width=120).print(sections.for_terminal(SECTION))

    assert "c [1]" in out.getvalue()
    assert "- Only one of them syncs." in out.getvalue()
